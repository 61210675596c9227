"""DER++ and LwF: their losses by hand, over two steps and the end of a task."""
import chex
import jax
import numpy as np
import pytest

from jaxmm.config import OptimizerConfig
from jaxmm.errors import UserError
from jaxmm.methods.common import Progress
from jaxmm.methods.derpp import DERConfig
from jaxmm.methods.lwf import LwFConfig
from jaxmm.train import predictions, setup as setup_lib

ONE = jax.devices()[:1]
OPTIMIZER = OptimizerConfig(learning_rate=0.05, schedule="constant")


def build(method, dataset, make_config):
    """The setup, its first state, and step(state, rows, phase) on rows of the training split."""
    setup = setup_lib.build(make_config(method, optimizer=OPTIMIZER), dataset=dataset, devices=ONE)
    feed = setup.programs.feed(dataset.splits["train"], "device")

    def step(state, rows, phase=""):
        state, metrics = setup.programs.steps(state, feed.at(np.asarray(rows, np.int32)[None]), phase)
        return state, float(metrics["loss"][0])

    def logits(state):
        """By head, on all training rows: without batch norm as in training."""
        found = predictions.predict_split(setup, state, dataset.splits["train"])
        return {head: z.astype(float) for head, z in found.items()}

    return setup, setup_lib.init_state(setup), step, logits


def log_softmax(z):
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def over_heads(dataset, lambda_, rows, loss):
    """The mean loss of the fused head over the rows, and lambda times those of the others."""
    present = {m: p[rows] for m, p in dataset.splits["train"]["present"].items()}
    return loss("fused").mean() + lambda_ * sum(loss(m)[p].mean() for m, p in present.items())


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
def test_derpp_matches_the_logits_of_insertion(lambda_, make_dataset, make_config):
    """The second step replays, twice, all that the memory holds: the eight examples of the first."""
    dataset = make_dataset(missing=True)
    label, first, second = dataset.splits["train"]["label"], np.arange(8), np.arange(8, 16)
    method = DERConfig(capacity=16, replay_batch=12, alpha=3.0, beta=0.7, lambda_=lambda_)
    _, state, step, logits = build(method, dataset, make_config)

    def cross_entropy(z, rows):
        return over_heads(dataset, lambda_, rows, lambda head: -log_softmax(z[head])[rows, label[rows]])

    stored = logits(state)
    state, loss = step(state, first)
    np.testing.assert_allclose(loss, cross_entropy(stored, first), rtol=1e-4)
    z = logits(state)
    for head, kept in state.extra["memory"].storage["logits"].items():
        assert lambda_ or head == "fused"
        np.testing.assert_allclose(kept[:8], stored[head][first], atol=1e-4)
    state, loss = step(state, second)
    dark = over_heads(dataset, lambda_, first, lambda head: np.square(z[head] - stored[head])[first].mean(-1))
    expected = cross_entropy(z, second) + 3.0 * dark + 0.7 * cross_entropy(z, first)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
def test_lwf_distils_the_old_classes_alone(lambda_, make_dataset, make_config):
    """Classes 0 and 1, then 1 and 2: CE over what was seen, KL over the old classes."""
    dataset = make_dataset(missing=True)
    label = dataset.splits["train"]["label"]
    early, late = np.flatnonzero(label < 2)[:8], np.flatnonzero(label > 0)[8:16]
    method = LwFConfig(alpha=2.0, temperature=3.0, lambda_=lambda_)
    setup, state, step, logits = build(method, dataset, make_config)

    def cross_entropy(z, rows, seen):
        return over_heads(dataset, lambda_, rows, lambda head: -log_softmax(
            z[head][rows, :seen])[np.arange(8), label[rows]])

    z = logits(state)
    state, loss = step(state, early)
    np.testing.assert_allclose(loss, cross_entropy(z, early, 2), rtol=1e-4)
    state = setup.programs.end_task(state)
    before = logits(state)

    def drift(head):
        old, new = (log_softmax(x[head][late, :2] / 3.0) for x in (before, z))
        return (np.exp(old) * (old - new)).sum(-1)

    for i in range(2):      # at the first of them nothing is forgotten yet
        z = logits(state)
        state, loss = step(state, late)
        forgotten = over_heads(dataset, lambda_, late, drift)
        assert (forgotten > 1e-4) == (i > 0)
        np.testing.assert_allclose(loss, cross_entropy(z, late, 3) + 2.0 * 3.0**2 * forgotten, rtol=1e-4)
    np.testing.assert_array_equal(state.extra["seen"].first, [0, 0, 1])


def test_lwf_may_train_the_head_of_a_new_task_first(make_dataset, make_config):
    setup, state, step, _ = build(LwFConfig(head_epochs=2), make_dataset(), make_config)
    where = {(0, 0): "all", (1, 1): "head", (1, 2): "all"}
    assert {at: setup.programs.phase(Progress(*at, 0)) for at in where} == where
    before = jax.device_get((state.params, state.opt_state))
    state, _ = step(state, np.arange(8), "head")
    for old, new in zip(before, (state.params, state.opt_state)):
        for m in ("sound", "image"):
            chex.assert_trees_all_equal(old[m], jax.device_get(new[m]))
        assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (old["head"], new["head"]))))


@pytest.mark.parametrize("method, message", [
    (DERConfig(alpha=-1.0), "method.alpha=-1.0"), (DERConfig(beta=float("nan")), "method.beta=nan"),
    (DERConfig(replay_batch=60, capacity=50), "method.capacity=50 is smaller than the replay batch"),
    (DERConfig(replay_batch=-1), "method.replay_batch=-1"), (DERConfig(lambda_=-1.0), "method.lambda_=-1.0"),
    (DERConfig(capacity_bytes=8 * 54 - 1), "bytes=431 holds 7 examples of 54 bytes, and the replay batch has 8"),
    (LwFConfig(alpha=-1.0), "method.alpha"), (LwFConfig(temperature=0.0), "method.temperature=0.0")])
def test_options_out_of_range(method, message, make_dataset, make_config):
    with pytest.raises(UserError, match=message):
        setup_lib.build(make_config(method), dataset=make_dataset(), devices=ONE)


def test_replayed_rows_divide_over_the_devices(make_dataset, make_config):
    """Twelve rows do not divide over eight devices."""
    dataset = make_dataset()
    config = make_config(DERConfig(capacity=16, replay_batch=12), batch_size=8)
    setup = setup_lib.build(config, dataset=dataset, devices=jax.devices()[:8])
    feed = setup.programs.feed(dataset.splits["train"], "device")
    with pytest.raises(UserError, match="replay_batch=12 does not divide over 8 devices"):
        setup.programs.steps(setup_lib.init_state(setup), feed.at(np.arange(8, dtype=np.int32)[None]))
