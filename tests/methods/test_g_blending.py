import jax
import numpy as np
import pytest

from jaxmm.errors import UserError
from jaxmm.methods.g_blending import GBlendingConfig, blend
from jaxmm.train import predictions, setup as setup_lib


def test_weights_of_given_curves_by_hand():
    """Gains 0.6, 0.3, -0.1 and growths 0.2, 0.1, 0.5: ratios 15, 30, 0."""
    first = np.array([[1.0, 1.0, 1.0], [1.2, 1.1, 1.0]])
    last = np.array([[0.2, 0.6, 0.6], [0.6, 0.8, 1.1]])
    np.testing.assert_allclose(blend(first, last), [1 / 3, 2 / 3, 0], rtol=1e-5)


def test_weights_at_the_guards():
    same = np.ones((2, 4))
    np.testing.assert_allclose(blend(same, same), 1 / 4)                # nothing was gained
    better = same - np.array([0.5, 0.25, 0, 0])                         # and nothing overfitted
    np.testing.assert_allclose(blend(same, better), [2 / 3, 1 / 3, 0, 0], rtol=1e-5)


def test_online_weights_follow_the_epochs_measured(make_dataset, make_config):
    """Two windows of two epochs against losses summed up here, from an encoder that stays."""
    dataset = make_dataset(missing=True)
    config = make_config(GBlendingConfig(weighting="online", window=2, holdout=0.4), epochs=4)
    setup = setup_lib.build(config, dataset=dataset, devices=jax.devices()[:1])
    feed = setup.programs.feed(dataset.splits["train"], "device")
    state = setup_lib.init_state(setup)
    key = setup.programs.fetch(state).extra["key"]
    held = np.array([float(jax.random.uniform(jax.random.fold_in(key, i))) < 0.4 for i in range(32)])
    assert 0 < held.sum() < 32
    train, names = dataset.splits["train"], (*dataset.modalities, "fused")
    means, weights = [], []
    for _ in range(4):
        sums = np.zeros((2, 3, 2))
        for index in np.arange(32).reshape(4, 8):
            # Small networks without batch norm: logits in evaluation mode are those of training.
            logits = predictions.predict_split(setup, state, train)
            state, metrics = setup.programs.steps(state, feed.at(index[None].astype(np.int32)))
            for k, head in enumerate(names):
                for i in index:
                    if train["present"].get(head, np.ones(32, bool))[i]:
                        z = np.asarray(logits[head][i], np.float64)
                        loss = np.log(np.exp(z).sum()) - z[train["label"][i]]
                        sums[int(held[i]), k] += loss, 1
        means.append(sums[..., 0] / sums[..., 1])
        weights.append([float(metrics[f"weight/{k}"][0]) for k in names])
    np.testing.assert_allclose(weights[0], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(weights[1], blend(means[0], means[1]), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(weights[3], blend(means[2], means[3]), rtol=1e-3, atol=1e-5)
    assert not np.allclose(weights[1], 1 / 3)


def test_options_out_of_range(make_dataset, make_config):
    for options, message in (({"weighting": "later"}, "weighting='later'.*offline, online"),
                             ({"window": 1}, "window=1"), ({"holdout": 0.0}, "holdout=0.0")):
        with pytest.raises(UserError, match=message):
            setup_lib.build(make_config(GBlendingConfig(**options)), dataset=make_dataset())
