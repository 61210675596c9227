import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmm.config import OptimizerConfig
from jaxmm.errors import UserError
from jaxmm.methods import common
from jaxmm.methods.avslowfast import LateralDropoutConfig
from jaxmm.methods.fusion import AuxCEConfig, DropoutConfig, UnimodalConfig, drop_features, drop_modality
from jaxmm.model import Model
from jaxmm.task import classification
from jaxmm.train import predictions, setup as setup_lib


@pytest.fixture(scope="module")
def missing(make_dataset):
    return make_dataset(missing=True)


def first_step(dataset, config):
    setup = setup_lib.build(config, dataset=dataset, devices=jax.devices()[:1])
    feed = setup.programs.feed(dataset.splits["train"], "device")
    state = setup_lib.init_state(setup)
    before = jax.tree.map(np.asarray, (state.params, state.batch_stats))
    index = np.arange(8, dtype=np.int32)[None]
    state, metrics = setup.programs.steps(state, feed.at(index))
    return before, state, metrics, setup


def features_of(params, batch, dataset):
    """The one-layer encoders of the test, on normalised inputs; zero where missing."""
    features = {}
    train = dataset.splits["train"]
    for m in params.keys() & batch["inputs"].keys():
        x = batch["inputs"][m]
        seen = train["inputs"][m][train["present"][m]]
        x = (x - seen.mean(0)) / seen.std(0)
        h = np.maximum(x @ params[m]["Dense_0"]["kernel"] + params[m]["Dense_0"]["bias"], 0)
        features[m] = np.where(batch["present"][m][:, None], h, 0)
    return features


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(logits), labels)


@pytest.mark.parametrize("name", ["concat", "sum", "late", "unimodal", "aux_ce"])
def test_loss_is_that_of_the_method(name, missing, make_config):
    (params, _), _, metrics, _ = first_step(missing, make_config(name))
    batch = jax.tree.map(lambda x: x[:8], missing.splits["train"])
    h, y, head = features_of(params, batch, missing), batch["label"], params["head"]
    z = {}
    joint = 0.0
    if name == "aux_ce":
        layer, head = head["fused"], head["unimodal"]
        fused = sum(h[m] @ layer["kernel"][m] for m in h) + layer["bias"]
        joint = cross_entropy(fused, y).mean()
    for m in h:
        if name == "concat":
            z[m] = h[m] @ head["kernel"][m] + head["bias"] / 2
        else:
            z[m] = h[m] @ head[m]["kernel"] + head[m]["bias"]
    if name in ("concat", "sum"):
        expected = cross_entropy(z["sound"] + z["image"], y).mean()
    else:
        expected = joint + sum(cross_entropy(z[m], y)[batch["present"][m]].mean() for m in z)
    np.testing.assert_allclose(metrics["loss"][0], expected, rtol=1e-5)


def test_readouts_of_concat_add_up_to_fused(missing, make_config):
    _, state, _, setup = first_step(missing, make_config("concat"))
    logits = predictions.predict_split(setup, state, missing.splits["val"])
    np.testing.assert_allclose(logits["sound"] + logits["image"], logits["fused"], atol=1e-5)


def test_late_fuses_by_the_mean_of_the_present_logits(missing, make_config):
    _, state, _, setup = first_step(missing, make_config("late"))
    val = missing.splits["val"]
    logits = predictions.predict_split(setup, state, val)
    weights = np.stack([val["present"][m] for m in ("sound", "image")])[..., None]
    stacked = np.stack([logits["sound"], logits["image"]])
    np.testing.assert_allclose(logits["fused"], (weights * stacked).sum(0) / weights.sum(0),
                               atol=1e-5)


def test_modalities_of_late_do_not_touch_each_other(make_dataset, make_config):
    """Changing one modality's inputs leaves the other's trained parameters as they were."""
    dataset = make_dataset()
    _, state, _, _ = first_step(dataset, make_config("late"))
    other = make_dataset()
    other.splits["train"]["inputs"]["image"][:] = np.random.default_rng(1).normal(
        size=other.splits["train"]["inputs"]["image"].shape)
    _, changed, _, _ = first_step(other, make_config("late"))
    chex.assert_trees_all_equal(state.params["sound"], changed.params["sound"])
    chex.assert_trees_all_equal(state.params["head"]["sound"], changed.params["head"]["sound"])
    assert not np.array_equal(state.params["image"]["Dense_0"]["kernel"],
                              changed.params["image"]["Dense_0"]["kernel"])


def test_unimodal_has_one_encoder_and_the_modality_must_exist(make_dataset, make_config):
    _, state, _, setup = first_step(make_dataset(), make_config(UnimodalConfig(modality="image")))
    assert set(state.params) == {"image", "head"} == set(state.opt_state)
    logits = predictions.predict_split(setup, state, make_dataset().splits["val"])
    np.testing.assert_array_equal(logits["image"], logits["fused"])
    with pytest.raises(UserError, match="'smell'.*image, sound"):
        setup_lib.build(make_config(UnimodalConfig(modality="smell")), dataset=make_dataset())


@pytest.mark.parametrize("method", ["concat", "ogm_ge", "agm", "er"])
def test_an_encoder_that_no_row_of_a_batch_is_for_stays(method, make_dataset, make_config):
    """Nor do momentum, weight decay and noise move it; head and the other encoder go on."""
    dataset = make_dataset(rows=(16, 8, 8))
    dataset.splits["train"]["present"]["sound"][8:] = False
    config = make_config(method)
    setup = setup_lib.build(config, dataset=dataset, devices=jax.devices()[:1])
    feed = setup.programs.feed(dataset.splits["train"], "device")
    state = setup_lib.init_state(setup)
    if method != "er":      # whose memory has rows with sound then
        state, _ = setup.programs.steps(state, feed.at(np.arange(8, dtype=np.int32)[None]))
        assert any(x.any() for x in jax.tree.leaves(state.opt_state["sound"]))
    before = jax.device_get(state)
    state, _ = setup.programs.steps(state, feed.at(np.arange(8, 16, dtype=np.int32)[None]))
    chex.assert_trees_all_equal(jax.device_get((state.params["sound"], state.opt_state["sound"])),
                                (before.params["sound"], before.opt_state["sound"]))
    for group in ("image", "head"):
        assert not all(np.array_equal(x, y) for x, y in zip(
            jax.tree.leaves(state.params[group]), jax.tree.leaves(before.params[group])))
    if method == "er":
        state, _ = setup.programs.steps(state, feed.at(np.arange(8, dtype=np.int32)[None]))
        before = jax.device_get(state.params["sound"])
        state, _ = setup.programs.steps(state, feed.at(np.arange(8, 16, dtype=np.int32)[None]))
        assert not np.array_equal(state.params["sound"]["Dense_0"]["kernel"], before["Dense_0"]["kernel"])


def test_unknown_method_is_refused(make_dataset, make_config):
    with pytest.raises(UserError, match="'mlb'.*concat.*mla"):
        setup_lib.build(make_config("mlb"), dataset=make_dataset())


def test_dropped_features():
    h = jnp.arange(1, 4001.0).reshape(20, 200)
    key, batch = jax.random.key(0), {"id": jnp.arange(20)}
    dropped = drop_features(0.75, key, {"a": h, "b": h}, batch)
    for x in dropped.values():
        assert set(np.unique(np.round(x / h, 5))) == {0.0, 4.0}
        np.testing.assert_allclose((x == 0).mean(), 0.75, atol=0.03)
    assert ((dropped["a"] == 0) != (dropped["b"] == 0)).any()
    # An example loses the same features wherever it stands, and whatever else it has.
    turned = drop_features(0.75, key, {"a": h[::-1], "b": h}, {"id": batch["id"][::-1]})
    np.testing.assert_array_equal(turned["a"][::-1], dropped["a"])
    np.testing.assert_array_equal(drop_features(0.75, key, {"b": h}, batch)["b"], dropped["b"])


def test_dropped_modality():
    features = {m: jnp.ones((2, 3)) for m in "abc"}
    keys = jax.random.split(jax.random.key(0), 3000)
    batch = {"present": dict.fromkeys("abc", jnp.ones(2, bool))}
    kept = jax.vmap(lambda key: drop_modality(0.6, key, features, batch))(keys)
    gone = np.stack([np.asarray((kept[m] == 0).all((1, 2))) for m in "abc"])
    for m, zero in zip("abc", gone):
        np.testing.assert_array_equal(np.asarray((kept[m] == 0).any((1, 2))), zero)
    assert gone.sum(0).max() == 1
    np.testing.assert_allclose(gone.mean(1), 0.2, atol=0.025)
    # The second example has nothing but a, and keeps it.
    batch["present"] |= dict.fromkeys("bc", jnp.array([True, False]))
    kept = jax.vmap(lambda key: drop_modality(0.6, key, features, batch))(keys[:50])["a"]
    assert (kept[:, 0] == 0).any() and (kept[:, 1] == 1).all()


def test_rates_out_of_range(make_dataset, make_config):
    for config in (LateralDropoutConfig("dropout", rate=1.0), DropoutConfig("modality_dropout", rate=1.0)):
        with pytest.raises(UserError, match="method.rate=1.0"):
            setup_lib.build(make_config(config), dataset=make_dataset())


def test_accuracy_is_over_the_examples_that_have_the_modality():
    logits = {m: np.eye(3, dtype=np.float32)[[0, 1, 2, 0]] for m in ("sound", "image", "fused")}
    batch = {"label": np.array([0, 1, 1, 1]), "present": {"sound": np.array([True, False, True, False]),
                                                          "image": np.zeros(4, bool)}}
    one = Model({}, classification("abc"), None, None, None, 4, 4)
    found = common.head_progress(one, logits, batch)
    assert (found["accuracy/fused"], found["accuracy/sound"]) == (0.5, 0.5)
    assert np.isnan(found["accuracy/image"])
    # On two devices, of which one has no example with sound.
    halves = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), (logits, batch))
    batch["present"]["sound"][0] = False
    two = one._replace(axis_name="i")
    found = jax.pmap(lambda z, b: common.head_progress(two, z, b), axis_name="i",
                     devices=jax.devices()[:2])(*halves)
    np.testing.assert_array_equal(found["accuracy/sound"], [0, 0])
    np.testing.assert_array_equal(found["accuracy/image"], [np.nan, np.nan])


def test_detached_fusion_leaves_encoders_to_the_losses_of_their_modalities(missing, make_config):
    """Encoders get w times the gradients of `late` with the same head, which gets those of `concat`."""
    batch = missing.splits["train"]
    plain = OptimizerConfig(learning_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant")

    def change(method, head=None):
        """Parameters of the first state, what a step subtracts from them, and the outputs before it."""
        config = make_config(method, optimizer=plain)
        built = setup_lib.build(config, dataset=missing, devices=jax.devices()[:1]).make_method(None, {})
        state = built.init(jax.random.key(0), batch)
        state = state._replace(params=state.params | ({} if head is None else {"head": head}))
        after, metrics = built.step(state, batch)
        moved = jax.tree.map(jnp.subtract, state.params, after.params)
        return state.params, moved, built.predict(state, batch), metrics

    @jax.jit
    def run():
        detached = change(AuxCEConfig(detach_fusion=True, weight=3.0))
        layer = detached[0]["head"]
        same = {m: {"kernel": layer["kernel"][m], "bias": layer["bias"]} for m in missing.modalities}
        return detached, change("concat", layer), change("late", same)

    (params, found, outputs, metrics), (_, of_concat, _, fused), (_, of_late, readouts, alone) = run()
    chex.assert_trees_all_close(found["head"], of_concat["head"], rtol=1e-4, atol=1e-6)
    for m in missing.modalities:
        chex.assert_trees_all_close(found[m], jax.tree.map(lambda x: 3 * x, of_late[m]), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(outputs[m], readouts[m], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], fused["loss"] + 3 * alone["loss"], rtol=1e-5)
