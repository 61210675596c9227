import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import EncoderConfig
from jaxmm.encoders import make_encoder
from jaxmm.errors import UserError
from jaxmm.methods.ogm_ge import OGMConfig, advantages, coefficients, modulate
from jaxmm.model import Model
from jaxmm.task import classification
from jaxmm.train import setup as setup_lib


MODEL = Model({}, classification("01"), None, None, None, 2, 2)   # only means over a batch are used


def logits_with(p):
    """Two classes; the probability of class 0 is p."""
    return jnp.log(jnp.array([[q, 1 - q] for q in p]))


def modulation(model, logits, batch, alpha):
    return coefficients(advantages(model, logits, batch), alpha)


def test_coefficients_by_hand():
    """Scores 0.6 and 0.3: rho 2 and 1/2. With a third of 0.92: rho 0.98, 0.4 and 2.04."""
    batch = make_batch({"a": np.zeros((2, 1)), "b": np.zeros((2, 1))}, [0, 0])
    logits = {"a": logits_with([0.5, 0.7]), "b": logits_with([0.2, 0.4])}
    k = modulation(MODEL, logits, batch, alpha=0.8)
    np.testing.assert_allclose([k["a"], k["b"]], [1 - np.tanh(1.6), 1], rtol=1e-5)
    batch = make_batch({m: np.zeros((2, 1)) for m in "abc"}, [0, 0],
                       present={"c": np.array([True, False])})
    k = modulation(MODEL, logits | {"c": logits_with([0.92, 0.1])}, batch, alpha=0.1)
    np.testing.assert_allclose([k["a"], k["b"], k["c"]], [1, 1, 1 - np.tanh(0.92 / 4.5)], rtol=1e-5)


def test_a_modality_that_nobody_has_is_not_compared():
    """Alone, "a" is not slowed down; with a third one, 0.6 stands against the 0.3 of b: rho 2, 1/2."""
    inputs, nobody = {m: np.zeros((2, 1)) for m in "abc"}, np.zeros(2, bool)
    logits = {"a": logits_with([0.5, 0.7]), "b": logits_with([0.2, 0.4]), "c": logits_with([0.9, 0.9])}
    batch = make_batch(inputs, [0, 0], present={"b": nobody, "c": nobody})
    assert all(float(k) == 1 for k in modulation(MODEL, logits, batch, alpha=0.8).values())
    batch = make_batch(inputs, [0, 0], present={"c": nobody})
    k = modulation(MODEL, logits, batch, alpha=0.8)
    np.testing.assert_allclose([k["a"], k["b"], k["c"]], [1 - np.tanh(1.6), 1, 1], rtol=1e-5)


@pytest.mark.parametrize("name, shape", [("cnn", (2, 8, 8)), ("mlp", (2, 5))])
def test_which_leaves_are_touched(name, shape):
    """Kernels of convolutions alone where there are any, otherwise every matrix."""
    encoder = make_encoder(EncoderConfig(name=name, width=2, depth=1, features=3), len(shape) - 1)
    grads = jax.tree.map(jnp.ones_like, encoder.init(jax.random.key(0), jnp.zeros(shape))[0])
    halved = modulate(jax.random.key(1), grads, 0.5, noise=False)
    kernels = [g.ndim for g in jax.tree.leaves(grads) if g.ndim >= (4 if name == "cnn" else 2)]
    touched = [g.ndim for g in jax.tree.leaves(halved) if (g == 0.5).all()]
    untouched = [g for g in jax.tree.leaves(halved) if (g == 1).all()]
    assert touched == kernels and kernels
    assert len(touched) + len(untouched) == len(jax.tree.leaves(grads)) and untouched


def test_an_encoder_like_a_transformer_is_modulated():
    """Attention kernels have rank 3, an embedding rank 2; only biases and scales stay."""
    grads = {"query": jnp.ones((4, 2, 2)), "embedding": jnp.ones((9, 4)), "scale": jnp.ones(4)}
    new = modulate(jax.random.key(0), grads, 0.25, noise=False)
    assert float(new["query"].max()) == float(new["embedding"].max()) == 0.25
    assert float(new["scale"].min()) == 1


def test_noise_has_the_deviation_of_the_gradient():
    g = 3 + 2 * jax.random.normal(jax.random.key(0), (200, 200))
    noise = modulate(jax.random.key(1), {"kernel": g}, 0.5, noise=True)["kernel"] - 0.5 * g
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 2], atol=0.05)
    assert abs(np.corrcoef(noise.ravel(), g.ravel())[0, 1]) < 0.02


def test_only_the_first_epochs_are_modulated(make_dataset, make_config):
    dataset = make_dataset()
    setup = setup_lib.build(make_config(OGMConfig(epochs=1), batch_size=16), dataset=dataset,
                            devices=jax.devices()[:1])
    feed = setup.programs.feed(dataset.splits["train"], "device")
    index = np.arange(16, dtype=np.int32)[None]
    state, seen = setup_lib.init_state(setup), []
    for _ in range(3):      # two steps an epoch
        state, metrics = setup.programs.steps(state, feed.at(index))
        seen.append([float(metrics[f"coefficient/{m}"][0]) for m in dataset.modalities])
    assert min(seen[0]) < 1 and min(seen[1]) < 1 and seen[2] == [1, 1]


def test_one_modality_has_nothing_to_balance(make_dataset, make_config):
    config = make_config("ogm_ge", modalities=("sound",))
    with pytest.raises(UserError, match="needs two or more; use unimodal"):
        setup_lib.build(config, dataset=make_dataset({"sound": (3,)}))
