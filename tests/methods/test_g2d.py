"""G2D: its loss, its ranking and its frozen encoder, by hand."""
import chex
import jax
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.errors import UserError
from jaxmm.methods.common import Progress
from jaxmm.methods.fusion import UnimodalConfig
from jaxmm.methods.g2d import G2DConfig, find_strongest
from jaxmm.train import plan, predictions, setup as setup_lib

ONE = jax.devices()[:1]


def build(method, dataset, make_config, **options):
    """The setup, the states of its teachers, which were not trained, and its first state, taught by them."""
    setup = setup_lib.build(make_config(method, **options), dataset=dataset, devices=ONE)
    teachers = {}
    for m in dataset.modalities:
        config = make_config(UnimodalConfig(modality=m), seed=1000, **options)
        teacher = setup_lib.build(config, dataset=dataset, devices=ONE)
        teachers[m] = teacher, setup_lib.init_state(teacher)
    state = setup.programs.teach(setup_lib.init_state(setup), {m: state for m, (_, state) in teachers.items()})
    return setup, teachers, jax.tree.map(lambda x: x.copy(), state)


def log_softmax(z):
    z = np.asarray(z, np.float64)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def step(setup, state, phase):
    feed = setup.programs.feed(setup.dataset.splits["train"], "device")
    return setup.programs.steps(state, feed.at(np.arange(8, dtype=np.int32)[None]), phase)


@pytest.mark.parametrize("options", [G2DConfig(alpha=0.0, beta=0.0, tau=0),       # CE of the mean of readouts
                                     G2DConfig(alpha=3.0, beta=0.5, temperature=2.0)])
def test_loss_by_hand(options, make_dataset, make_config):
    """Means over the examples that have a modality; the fused logits are the mean over those an example has."""
    dataset = make_dataset(missing=True)
    setup, teachers, state = build(options, dataset, make_config)
    rows = jax.tree.map(lambda x: x[:8], dataset.splits["train"])
    logits = predictions.predict_split(setup, state, rows)
    h = predictions.split_features(setup, state, rows)
    there = {m: rows["present"][m].astype(float) for m in h}
    fused = sum(there[m][:, None] * logits[m] for m in h) / sum(there.values())[:, None]
    np.testing.assert_allclose(logits["fused"], fused, rtol=1e-5, atol=1e-6)
    expected = {"fused": -log_softmax(fused)[np.arange(8), rows["label"]].mean(), "features": 0.0, "labels": 0.0}
    for m, (teacher, known) in teachers.items():
        target, t = predictions.split_features(teacher, known, rows)[m], options.temperature
        log_p, log_q = log_softmax(predictions.predict_split(teacher, known, rows)[m] / t), log_softmax(fused / t)
        expected["features"] += options.alpha * np.square(h[m] - target)[rows["present"][m]].mean()
        divergence = (np.exp(log_p) * (log_p - log_q)).sum(-1)
        expected["labels"] += options.beta * t**2 * divergence[rows["present"][m]].mean()
    for phase in ("all", "without_sound"):
        _, metrics = step(setup, jax.tree.map(lambda x: x.copy(), state), phase)
        assert {name: float(metrics[f"loss/{name}"][0]) for name in expected} == pytest.approx(expected, rel=1e-4)
        assert float(metrics["loss"][0]) == pytest.approx(sum(expected.values()), rel=1e-4)


def test_the_strongest_is_whose_teacher_is_surest_of_the_labels(make_dataset, make_config):
    """By the mean over all rows that have the modality, the last, incomplete batch and no padding included."""
    dataset = make_dataset(rows=(30, 16, 16), missing=True)
    setup, teachers, state = build(G2DConfig(tau=0.6), dataset, make_config, epochs=3)
    feed, train = setup.programs.feed(dataset.splits["train"], "device"), dataset.splits["train"]
    for (_, counts), fed in feed.through(list(plan.visits(setup.tasks, 8))):
        state = setup.programs.survey(state, fed, counts)
    means = {}
    for m, (teacher, known) in teachers.items():
        log_p = log_softmax(predictions.predict_split(teacher, known, train)[m])[np.arange(30), train["label"]]
        total, count = map(float, state.extra["confidence"][m])
        assert count == train["present"][m].sum() and total == pytest.approx(
            np.exp(log_p)[train["present"][m]].sum(), rel=1e-5)
        means[m] = total / count
    strongest = max(means, key=means.get)
    phases = [setup.programs.phase(Progress(0, epoch, 0, lambda: state.extra)) for epoch in range(3)]
    assert phases == [f"without_{strongest}"] * 2 + ["all"]
    assert setup.obstacle == "each chooses its phases by what it finds before its first step"
    assert find_strongest({"a": np.array([3.0, 4.0]), "b": np.array([0.8, 1.0])}) == "b"
    assert find_strongest({"a": np.array([1.0, 2.0]), "b": np.array([0.0, 0.0])}) == "a"


def test_the_strongest_encoder_is_frozen_while_the_others_learn(make_dataset, make_config):
    """Parameters, batch statistics and state of the optimizer, to the bit."""
    dataset = make_dataset({"sound": (4, 4), "image": (4, 4), "flow": (4, 4)})
    setup, _, state = build(G2DConfig(), dataset, make_config, modalities=("sound", "image", "flow"),
                            encoder=EncoderConfig("cnn", width=2, depth=1, features=4))
    assert jax.tree.leaves(state.batch_stats["image"])

    def parts(state, m):
        return jax.device_get((state.params[m], state.batch_stats[m], state.opt_state[m]))

    before = {m: parts(state, m) for m in dataset.modalities}
    head = jax.device_get(state.params["head"])
    state, _ = step(setup, state, "without_image")
    chex.assert_trees_all_equal(parts(state, "image"), before["image"])
    for m in dataset.modalities:
        assert m == "image" or all((x != y).any() for x, y in zip(*map(
            jax.tree.leaves, (parts(state, m)[:2], before[m][:2]))) if x.size > 1)
        assert (state.params["head"][m]["kernel"] != head[m]["kernel"]).any()


@pytest.mark.parametrize("options, message", [
    (G2DConfig(alpha=-1.0), "method.alpha=-1.0"), (G2DConfig(beta=float("nan")), "method.beta=nan"),
    (G2DConfig(temperature=0.0), "method.temperature=0.0"), (G2DConfig(tau=-1.0), "method.tau=-1.0"), (G2DConfig(tau=50), "method.tau=50; expected a share")])
def test_options_out_of_range(options, message, make_dataset, make_config):
    with pytest.raises(UserError, match=message):
        setup_lib.build(make_config(options), dataset=make_dataset(), devices=ONE)


def test_one_modality_is_refused(make_dataset, make_config):
    dataset = make_dataset({"sound": (3,)})
    with pytest.raises(UserError, match="g2d trains the weaker modalities.*use unimodal"):
        setup_lib.build(make_config("g2d", modalities=("sound",)), dataset=dataset, devices=ONE)
