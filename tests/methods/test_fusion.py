import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmm.config import EncoderConfig, OptimizerConfig, UnimodalConfig
from jaxmm.errors import UserError
from jaxmm.methods import METHODS
from jaxmm.train import checkpoints, setup as setup_lib


@pytest.fixture(scope="module")
def missing(make_dataset):
    return make_dataset(missing=True)


def first_step(dataset, config):
    setup = setup_lib.build(config, dataset=dataset, devices=jax.devices()[:1])
    feed = setup.programs.feed(dataset.splits["train"], "device")
    state = setup_lib.init_state(setup)
    before = jax.tree.map(np.asarray, (state.params, state.batch_stats))
    index = np.arange(8, dtype=np.int32)[None]
    state, metrics = setup.programs.steps(state, feed, index)
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


@pytest.mark.parametrize("name", ["concat", "sum", "late", "unimodal"])
def test_loss_is_that_of_the_method(name, missing, make_config):
    (params, _), _, metrics, _ = first_step(missing, make_config(name))
    batch = jax.tree.map(lambda x: x[:8], missing.splits["train"])
    h, y, head = features_of(params, batch, missing), batch["label"], params["head"]
    z = {}
    for m in h:
        if name == "concat":
            z[m] = h[m] @ head["kernel"][m] + head["bias"] / 2
        else:
            z[m] = h[m] @ head[m]["kernel"] + head[m]["bias"]
    if name in ("concat", "sum"):
        expected = cross_entropy(z["sound"] + z["image"], y).mean()
    else:
        expected = sum(cross_entropy(z[m], y)[batch["present"][m]].mean() for m in z)
    np.testing.assert_allclose(metrics["loss"][0], expected, rtol=1e-5)


def test_readouts_of_concat_add_up_to_fused(missing, make_config):
    _, state, _, setup = first_step(missing, make_config("concat"))
    logits = setup_lib.predict_split(setup, state, missing.splits["val"])
    np.testing.assert_allclose(logits["sound"] + logits["image"], logits["fused"], atol=1e-5)


def test_late_fuses_by_the_mean_of_the_present_logits(missing, make_config):
    _, state, _, setup = first_step(missing, make_config("late"))
    val = missing.splits["val"]
    logits = setup_lib.predict_split(setup, state, val)
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
    logits = setup_lib.predict_split(setup, state, make_dataset().splits["val"])
    np.testing.assert_array_equal(logits["image"], logits["fused"])
    with pytest.raises(UserError, match="'smell'.*image, sound"):
        setup_lib.build(make_config(UnimodalConfig(modality="smell")), dataset=make_dataset())


def test_unknown_method_is_refused(make_dataset, make_config):
    with pytest.raises(UserError, match="'mlb'.*concat.*mla"):
        setup_lib.build(make_config("mlb"), dataset=make_dataset())


@pytest.mark.parametrize("name, encoder", [*((name, "mlp") for name in sorted(METHODS)),
                                           ("mla", "cnn"), ("samm", "cnn")])
def test_eight_devices_equal_one(name, encoder, make_dataset, make_config):
    """Five steps on the same global batches: parameters, own state, metrics, predictions agree."""
    dataset = make_dataset({"sound": (3,), "image": (4, 4)}, rows=(40, 16, 16), missing=True)
    optimizer = OptimizerConfig(learning_rate=0.02, schedule="constant")
    config = make_config(name, batch_size=16, optimizer=optimizer)
    config.encoders["image"] = EncoderConfig(name=encoder, width=2, depth=1, features=6)
    results = []
    for count in (1, 8):
        setup = setup_lib.build(config, dataset=dataset, devices=jax.devices()[:count])
        feed = setup.programs.feed(dataset.splits["train"], "device")
        state = setup_lib.init_state(setup)
        rng = np.random.default_rng(0)
        for _ in range(5):
            index = rng.permutation(40)[None, :16].astype(np.int32)
            state, metrics = setup.programs.steps(state, feed, index)
        logits = setup_lib.predict_split(setup, state, dataset.splits["test"])
        # Without the momentum, which is ten times as large as the parameters it moves.
        state = checkpoints.flatten(setup.programs.fetch(state)._replace(opt_state=()))
        params = {name: x for name, x in state.items() if name.startswith("params/")}
        results.append((params, (state, jax.device_get(metrics), logits)))
    (params, derived), (other_params, other_derived) = results
    chex.assert_trees_all_close(params, other_params, atol=1e-5)
    chex.assert_trees_all_close(derived, other_derived, rtol=1e-4, atol=1e-5)
