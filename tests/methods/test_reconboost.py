"""ReconBoost: its stages, its losses and its optimizers, by hand."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.errors import UserError
from jaxmm.methods.common import Progress
from jaxmm.methods.reconboost import ReconBoostConfig, boosting_loss
from jaxmm.task import cross_entropy
from jaxmm.train import predictions, setup as setup_lib

ONE = jax.devices()[:1]


def build(options, dataset, make_config, **kwargs):
    """The setup, its first state, and step(state, phase) on the first eight rows, which keeps the state."""
    setup = setup_lib.build(make_config(options, **kwargs), dataset=dataset, devices=ONE)
    fed = setup.programs.feed(dataset.splits["train"], "device").at(np.arange(8, dtype=np.int32)[None])

    def step(state, phase):
        state, metrics = setup.programs.steps(jax.tree.map(jnp.copy, state), fed, phase)
        return state, {name: float(x[0]) for name, x in metrics.items()}

    return setup, setup_lib.init_state(setup), step


def of(state, m):
    """What a modality has in a state."""
    opt_state = state.opt_state
    return jax.device_get((state.params[m], state.params["head"][m], state.batch_stats[m], opt_state[m],
                           opt_state["head"][m]))


def differ(a, b):
    return any((x != y).any() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_gradient_by_hand():
    """C = 2, z_m = 0, p_J[y] = 0.5, w = (5, 1), y = 0: (w1 - w2 p_J[y]) / C (p_m - onehot), none to the others."""
    def loss(z, others):
        label = jnp.zeros(1, int)
        known = jnp.exp(-cross_entropy(others, label))
        return boosting_loss(cross_entropy(z, label), known, 5.0, 1.0, 2)[0]

    of_m, of_others = jax.grad(loss, (0, 1))(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
    np.testing.assert_allclose(of_m, [[-1.125, 1.125]], rtol=1e-6)
    np.testing.assert_array_equal(of_others, 0)


def test_phases_take_turns(make_dataset, make_config):
    setup, _, _ = build(ReconBoostConfig(stage_epochs=2, joint_epochs=1), make_dataset(), make_config)
    phases = [setup.programs.phase(Progress(0, epoch, 0)) for epoch in range(7)]
    assert phases == ["stage_image"] * 2 + ["joint"] + ["stage_sound"] * 2 + ["joint", "stage_image"]


def test_nothing_of_the_others_changes_in_a_stage(make_dataset, make_config):
    """Parameters, layer, batch statistics, state of the optimizer: to the bit. The joint epochs change all."""
    dataset = make_dataset({"sound": (4, 4), "image": (4, 4)})
    encoder = EncoderConfig("cnn", width=2, depth=1, features=4)
    _, state, step = build(ReconBoostConfig(agreement=False), dataset, make_config, encoder=encoder)
    state, _ = step(state, "joint")     # so that there is momentum
    before = {m: of(state, m) for m in dataset.modalities}
    assert all(jax.tree.leaves(part) for part in before["image"])
    found, _ = step(state, "stage_sound")
    chex.assert_trees_all_equal(of(found, "image"), before["image"])
    assert all(differ(new, old) for new, old in zip(of(found, "sound"), before["sound"]))
    found, _ = step(state, "joint")
    assert all(differ(new, old) for new, old in zip(of(found, "image"), before["image"]))


def softmax(z):
    return np.exp(z.astype(np.float64)) / np.exp(z.astype(np.float64)).sum(-1, keepdims=True)


def test_losses_by_hand(make_dataset, make_config):
    """With three modalities, some missing; the agreement counts from the second stage of a modality on."""
    dataset = make_dataset({"sound": (3,), "image": (5,), "flow": (4,)}, missing=True)
    options = ReconBoostConfig(stage_epochs=1, joint_epochs=0, w1=4.0, w2=0.5, alpha=20.0)
    setup, state, step = build(options, dataset, make_config, modalities=dataset.modalities, epochs=9)
    rows = jax.tree.map(lambda x: x[:8], dataset.splits["train"])
    z, label, there = predictions.predict_split(setup, state, rows), rows["label"], rows["present"]["image"]
    np.testing.assert_allclose(z["fused"], z["sound"] + z["image"] + z["flow"], rtol=1e-5, atol=1e-6)
    known = softmax(z["sound"] + z["flow"])[np.arange(8), label]
    losses = -(4.0 - 0.5 * known) / 3 * np.log(softmax(z["image"])[np.arange(8), label])
    last, stats = state.extra["last"]
    layer = jax.tree.map(lambda x: x + 0.5 * jnp.arange(3), last["head"]["image"])
    moved = state._replace(extra={"last": (last | {"head": last["head"] | {"image": layer}}, stats)})
    other = state._replace(params=moved.extra["last"][0])
    gap = softmax(predictions.predict_split(setup, other, rows)["image"]) - softmax(z["image"])
    for epoch, factor in ((2, 0.0), (3, 20.0)):
        _, metrics = step(moved._replace(step=jnp.int32(4 * epoch)), "stage_image")
        assert metrics["loss/image"] == pytest.approx(losses[there].mean(), rel=1e-4)
        assert metrics["loss/agreement"] == pytest.approx(factor * np.square(gap)[there].mean(), rel=1e-3)
        assert metrics["loss"] == pytest.approx(metrics["loss/image"] + metrics["loss/agreement"], rel=1e-5)


def test_without_the_others_and_joint_epochs_it_is_unimodal_training(make_dataset, make_config):
    """w1 = C, w2 = 0: after a stage of each, modalities are where a step of late takes them."""
    dataset = make_dataset(missing=True)
    options = ReconBoostConfig(w1=3.0, w2=0.0, joint_epochs=0, agreement=False)
    _, state, step = build(options, dataset, make_config)
    _, start, late = build("late", dataset, make_config)
    for phase in ("stage_sound", "stage_image"):
        state, _ = step(state, phase)
    expected, _ = late(start, "")
    chex.assert_trees_all_close(jax.device_get(state.params), jax.device_get(expected.params), rtol=1e-5, atol=1e-6)


def test_optimizers_start_anew_and_last_stages_are_kept(make_dataset, make_config):
    """Two epochs of a stage, one joint, of four steps each; the rate of the schedule "plateau" goes on."""
    config = make_config(ReconBoostConfig(stage_epochs=2, joint_epochs=1), epochs=6)
    config.optimizer.schedule = "plateau"
    setup = setup_lib.build(config, dataset=make_dataset(), devices=ONE)
    state = setup_lib.init_state(setup)
    state = state._replace(opt_state=jax.tree.map(lambda x: x + 1, state.opt_state),
                           params=jax.tree.map(lambda x: x + 1, state.params))
    anew, kept = [], []
    for epoch in range(1, 7):
        new = setup.programs.end_epoch(state._replace(step=jnp.int32(4 * epoch)), None)
        chex.assert_trees_all_equal(new.opt_state["plateau"], state.opt_state["plateau"])
        groups = {g: x for g, x in new.opt_state.items() if g != "plateau"}
        zero = {not np.any(x) for x in jax.tree.leaves(groups)}
        assert len(zero) == 1
        anew += [epoch] * zero.pop()
        (params, stats), (before, _) = new.extra["last"], state.extra["last"]
        kept += [(epoch, m) for m in ("sound", "image") if differ(
            (params[m], params["head"][m]), (before[m], before["head"][m]))]
        for m in [m for at, m in kept if at == epoch]:
            chex.assert_trees_all_equal((params[m], params["head"][m], stats[m]), (
                state.params[m], state.params["head"][m], state.batch_stats[m]))
    assert anew == [2, 3, 5, 6] and kept == [(3, "image"), (6, "sound")]


@pytest.mark.parametrize("options, message", [
    (ReconBoostConfig(stage_epochs=0), "method.stage_epochs=0"), (ReconBoostConfig(joint_epochs=-1), "joint_epochs=-1"),
    (ReconBoostConfig(w2=-1.0), "method.w2=-1.0"), (ReconBoostConfig(alpha=float("inf")), "method.alpha=inf")])
def test_options_out_of_range(options, message, make_dataset, make_config):
    with pytest.raises(UserError, match=message):
        setup_lib.build(make_config(options), dataset=make_dataset(), devices=ONE)
