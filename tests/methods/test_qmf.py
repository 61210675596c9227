import jax
import numpy as np

from jaxmm.batch import take
from jaxmm.config import OptimizerConfig
from jaxmm.methods.qmf import QMFConfig, fuse
from jaxmm.state.history import UNSEEN
from jaxmm.train import predictions, setup as setup_lib


def energy(z):
    return np.log(np.exp(z).sum(-1)) / 10


def numpy_loss(logits, batch, history, weight):
    """The whole loss in float64, and the histories after the step."""
    label, present = batch["label"], batch["present"]
    rows = np.arange(len(label))
    fused = sum((energy(z) * present[m])[:, None] * z for m, z in logits.items())

    def ce(z):
        return np.log(np.exp(z).sum(-1)) - z[rows, label]

    total, new = ce(fused).mean(), {}
    for m, z in logits.items():
        total += ce(z)[present[m]].mean()
        new[m], ids = history[m].copy(), batch["id"][present[m]]
        new[m][ids] = np.maximum(new[m][ids], 0) + ce(z)[present[m]]
        seen = new[m][new[m] >= 0]
        relative = (new[m] - seen.min()) / (seen.max() - seen.min())
        c, l = energy(z), relative[batch["id"]]
        pairs = []
        for i in rows:
            j = (i + 1) % len(rows)
            if present[m][i] and present[m][j]:
                t = np.sign(l[i] - l[j])
                pairs.append(max(0, t * (c[i] - c[j]) - abs(l[i] - l[j])) if t else 0)
        total += weight * np.mean(pairs)
    return total, new


def test_loss_and_history_against_numpy(make_dataset, make_config):
    """Two steps without learning rate, so that the logits before them are those within."""
    dataset = make_dataset(missing=True)
    config = make_config(QMFConfig(weight=3.0), batch_size=16,
                         optimizer=OptimizerConfig(learning_rate=0.0, schedule="constant"))
    setup = setup_lib.build(config, dataset=dataset, devices=jax.devices()[:1])
    train = dataset.splits["train"]
    feed = setup.programs.feed(train, "device")
    state = setup_lib.init_state(setup)
    history = {m: np.full(32, UNSEEN) for m in dataset.modalities}
    logits = {m: np.asarray(z, np.float64) for m, z in predictions.predict_split(
        setup, state, train).items() if m != "fused"}
    for seed in (0, 1):
        index = np.random.default_rng(seed).permutation(32)[:16]
        expected, history = numpy_loss({m: z[index] for m, z in logits.items()},
                                       take(train, index), history, 3.0)
        state, metrics = setup.programs.steps(state, feed.at(index[None].astype(np.int32)))
        np.testing.assert_allclose(metrics["loss"][0], expected, rtol=1e-5)
        for m, h in setup.programs.fetch(state).extra["history"].items():
            np.testing.assert_allclose(h, history[m], rtol=1e-5)


def test_weights_of_the_fusion_carry_no_gradient():
    logits = {"a": np.array([[1.0, 3.0]], np.float32), "b": np.array([[0.5, 0.0]], np.float32)}
    present = {"a": np.array([True]), "b": np.array([False])}
    np.testing.assert_allclose(fuse(logits, present), energy(logits["a"]) * logits["a"], rtol=1e-6)
    grads = jax.grad(lambda z: fuse(z, present)[0, 1])(logits)
    np.testing.assert_allclose(grads["a"], [[0, energy(logits["a"])[0]]], rtol=1e-6)
    np.testing.assert_array_equal(grads["b"], 0)
