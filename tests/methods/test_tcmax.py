"""TCMax on its two kinds of heads, the second with tuples that are drawn."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import replace
from jaxmm.errors import UserError
from jaxmm.methods.tcmax import TCMaxConfig, draw_tuples
from jaxmm.train import setup as setup_lib

ONE = jax.devices()[:1]


def of_one_step(config, dataset):
    """Logits, features and parameters of the head of the first state, and the loss of all training rows."""
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)
    method, batch = setup.make_method(None, {}), dataset.splits["train"]

    @jax.jit
    def run(key):
        state = method.init(key, batch)
        return (method.predict(state, batch), method.features(state, batch), state.params["head"],
                method.step(state, batch)[1]["loss"])

    return jax.device_get(run(jax.random.key(0)))


@pytest.mark.parametrize("fusion", ["shared", "concat"])
def test_loss_of_an_additive_head(fusion, make_dataset, make_config):
    """In NumPy over all tuples of eight rows, those that lack a modality in no tuple."""
    dataset = make_dataset(rows=(8, 8, 8), missing=True)
    logits, _, _, loss = of_one_step(make_config(TCMaxConfig(fusion=fusion)), dataset)
    split = dataset.splits["train"]
    rows = [np.flatnonzero(split["present"][m]) for m in ("sound", "image")]
    pairs = [logits["sound"][i] + logits["image"][j] for i in rows[0] for j in rows[1]]
    fit = logits["fused"][np.arange(8), split["label"]].mean()
    np.testing.assert_allclose(loss, np.log(np.mean(np.exp(np.float64(pairs)))) - fit, rtol=1e-4, atol=1e-5)


def test_loss_of_another_head_is_over_tuples(make_dataset, make_config):
    """One row has sound and another the image: all tuples are of these two."""
    dataset = make_dataset(rows=(2, 8, 8))
    dataset.splits["train"]["present"].update(sound=np.array([True, False]), image=np.array([False, True]))
    config = make_config(TCMaxConfig(fusion="mlp", hidden=3, tuples=5), batch_size=2)
    config.data.missing_rate = 0.1      # rows of one modality are wanted
    config.data.missing_modality = "sound"
    logits, features, params, loss = of_one_step(config, dataset)
    hidden = np.concatenate([features["image"][1], features["sound"][0]]) @ params["hidden"]["kernel"]
    z = np.maximum(hidden + params["hidden"]["bias"], 0) @ params["out"]["kernel"] + params["out"]["bias"]
    fit = logits["fused"][np.arange(2), dataset.splits["train"]["label"]].mean()
    np.testing.assert_allclose(loss, np.log(np.mean(np.exp(z))) - fit, rtol=1e-4)


def test_tuples_are_drawn_of_each_modality_by_itself():
    features = {m: jnp.arange(6.0)[:, None] for m in "abc"}
    present = {"a": np.arange(6) % 2 == 0, "b": np.ones(6, bool), "c": np.zeros(6, bool)}
    tuples = draw_tuples(jax.random.key(0), features, present, 6000)
    drawn = {m: np.asarray(h)[:, 0] for m, h in tuples.items()}
    for m, values in (("a", [0, 2, 4]), ("b", range(6)), ("c", range(6))):
        found, counts = np.unique(drawn[m], return_counts=True)
        np.testing.assert_array_equal(found, values)
        np.testing.assert_allclose(counts / 6000, 1 / len(found), atol=0.03)
    assert max(abs(np.corrcoef([drawn[m] for m in "abc"])[np.triu_indices(3, 1)])) < 0.05
    few = draw_tuples(jax.random.key(0), {"b": features["b"]}, present, 6000)
    np.testing.assert_array_equal(few["b"][:, 0], drawn["b"])       # whatever else there is


@pytest.mark.parametrize("options, said", [
    ({"method.tuples": 0}, "method.tuples=0"),
    ({"task.label_smoothing": 0.1}, "tcmax has a loss of its own.*label_smoothing=0"),
    ({"train.class_weights": "balanced"}, "tcmax has a loss of its own.*class_weights=''")])
def test_what_the_loss_has_no_place_for_is_refused(options, said, make_dataset, make_config):
    with pytest.raises(UserError, match=said):
        setup_lib.build(replace(make_config("tcmax"), options), dataset=make_dataset())
