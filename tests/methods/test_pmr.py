"""PMR: its weights, prototypes and loss by hand."""
import jax
import numpy as np
import pytest

from jaxmm.batch import take
from jaxmm.errors import UserError
from jaxmm.methods.pmr import PMRConfig, rebalance
from jaxmm.train import predictions, setup as setup_lib

ONE = jax.devices()[:1]


def floats(values):
    return {m: float(x) for m, x in values.items()}


def test_weights_by_hand():
    """rho = .7311 / .2689 = e: the second modality is slow with weight 1, the first one fast."""
    slow, fast = rebalance({"a": np.float32(0.7311), "b": np.float32(0.2689)})
    assert (floats(slow), floats(fast)) == ({"a": 0, "b": 1}, {"a": 1, "b": 0})
    slow, fast = rebalance({"a": np.float32(0.4), "b": np.float32(0.5), "c": np.float32(0.2)})
    assert floats(slow) == pytest.approx({"a": 0.25, "b": 0.0, "c": 1.0}) and floats(fast) == {"a": 0, "b": 1, "c": 0}
    slow, _ = rebalance({"a": np.float32(0.4), "b": np.float32(0.5)}, "binary")
    assert floats(slow) == {"a": 1, "b": 0}
    slow, fast = rebalance({"a": np.float32(0.0), "b": np.float32(0.5)})        # nobody had the first one yet
    assert floats(slow) == floats(fast) == {"a": 0, "b": 0}


def log_softmax(z):
    z = np.asarray(z, np.float64)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def class_means(h, label, there):
    return np.stack([h[there & (label == k)].mean(0) for k in range(3)])


def test_loss_by_hand(make_dataset, make_config):
    """No terms without prototypes; then two ends of epochs, and a step."""
    dataset = make_dataset(missing=True)
    options = PMRConfig(alpha=2.0, mu=0.5, epsilon=0.25, share=0.5, entropy_epochs=1)
    setup = setup_lib.build(make_config(options), dataset=dataset, devices=ONE)
    state, train = setup_lib.init_state(setup), dataset.splits["train"]
    feed = setup.programs.feed(train, "device")

    def step(state):
        state, metrics = setup.programs.steps(jax.tree.map(lambda x: x.copy(), state),
                                              feed.at(np.arange(8, dtype=np.int32)[None]))
        return {name: float(x[0]) for name, x in metrics.items()}

    first = step(state)
    assert first["loss/prototypes"] == first["loss/entropy"] == 0 and first["loss"] == first["loss/fused"]
    h, asked = predictions.split_features(setup, state, train), []
    for scale in (1.0, 3.0):
        def features_of(split, share, run, scale=scale):
            asked.append((split, share, run))
            return train | {"features": {m: scale * x for m, x in h.items()}}

        state = setup.programs.end_epoch(state, features_of)
    assert asked == [("train", 0.5, 0)] * 2
    log_q, scores, rows = {}, {}, take(train, np.arange(8))
    for m, x in h.items():
        means = class_means(x, train["label"], train["present"][m])
        np.testing.assert_allclose(state.extra["prototypes"][m].mean, (0.25 + 0.75 * 3) * means, rtol=1e-4, atol=1e-5)
        distances = np.linalg.norm(x[:8, None].astype(np.float64) - (0.25 + 0.75 * 3) * means, axis=-1)
        log_q[m] = log_softmax(-distances)[rows["present"][m]]
        label = rows["label"][rows["present"][m]]
        scores[m] = np.exp(log_q[m])[np.arange(len(label)), label].mean()
        log_q[m] = (-log_q[m][np.arange(len(label)), label].mean(), -(np.exp(log_q[m]) * log_q[m]).sum(-1).mean())
    slow, fast = sorted(scores, key=scores.get)
    weight = min(scores[fast] / scores[slow] - 1, 1)
    found = step(state)
    assert found[f"weight/{slow}"] == pytest.approx(weight, rel=1e-3) and found[f"weight/{fast}"] == 0
    assert found["loss/prototypes"] == pytest.approx(2.0 * weight * log_q[slow][0], rel=1e-3)
    assert found["loss/entropy"] == pytest.approx(-0.5 * weight * log_q[fast][1], rel=1e-3)
    assert found["loss/fused"] == pytest.approx(first["loss/fused"])
    assert step(state._replace(step=state.step + 4))["loss/entropy"] == 0      # past the first epoch


def test_running_prototypes_follow_each_batch_and_do_nothing_without_weight(make_dataset, make_config):
    """With alpha = mu = 0 the steps are those of concat."""
    dataset = make_dataset(missing=True)
    train, states = dataset.splits["train"], []
    for method in (PMRConfig(alpha=0.0, mu=0.0, prototypes="running"), "concat"):
        setup = setup_lib.build(make_config(method), dataset=dataset, devices=ONE)
        assert not setup.programs.end_epoch
        feed, state, expected = setup.programs.feed(train, "device"), setup_lib.init_state(setup), {}
        for rows in (np.arange(16), np.arange(16, 32)):
            h, batch = predictions.split_features(setup, state, train), take(train, rows)
            state, _ = setup.programs.steps(state, feed.at(rows[None].astype(np.int32)))
            for m, x in h.items():
                means = class_means(x[rows], batch["label"], batch["present"][m])
                expected[m] = 0.2 * expected[m] + 0.8 * means if m in expected else means
        if method != "concat":
            for m, means in expected.items():
                np.testing.assert_allclose(state.extra["prototypes"][m].mean, means, rtol=1e-4, atol=1e-5)
        states.append(jax.device_get(state.params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), *states)


@pytest.mark.parametrize("options, message", [
    (PMRConfig(alpha=-1.0), "method.alpha=-1.0"), (PMRConfig(epsilon=1.0), "method.epsilon=1.0"),
    (PMRConfig(share=0.0), "method.share=0.0; expected a share of the training rows"),
    (PMRConfig(weights="ratios"), "method.weights='ratios'; did you mean ratio"),
    (PMRConfig(prototypes="epochs"), "method.prototypes='epochs'; did you mean epoch")])
def test_options_out_of_range(options, message, make_dataset, make_config):
    with pytest.raises(UserError, match=message):
        setup_lib.build(make_config(options), dataset=make_dataset(), devices=ONE)
