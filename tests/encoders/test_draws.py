import functools

from flax import linen as nn
from flax.errors import ScopeParamShapeError
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.encoders import NETWORKS, draws

KEY = jax.random.key(3)
OF_FLAX = [(draws.he_normal, nn.initializers.he_normal()), (draws.lecun_normal, nn.initializers.lecun_normal()),
           (draws.he_fan_out, nn.initializers.variance_scaling(2.0, "fan_out", "normal")),
           (draws.fan_in_uniform, nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")),
           (draws.small_normal, nn.initializers.normal(0.02)),
           (draws.fan_in_bias(9), lambda key, shape, dtype=float: jax.random.uniform(key, shape, dtype, -1 / 3, 1 / 3))]
# Shorter than a row, of a row, of several, and with a part of one.
SHAPES = ((3, 5), (draws.ROW // 2, 2), (3, draws.ROW), (3, 3, 5, 7))


def arrays(initializers):
    return {f"{i}/{j}": init(jax.random.fold_in(KEY, 10 * i + j), shape)
            for i, init in enumerate(initializers) for j, shape in enumerate(SHAPES)}


def alone(tree):
    """What `jax.random` draws for each note by itself."""
    def drawn(note):
        if not isinstance(note, draws.Note):
            return note
        return note.draw(note.key, note.value.shape, note.value.dtype)

    return jax.tree.map(drawn, tree, is_leaf=lambda x: isinstance(x, draws.Note))


def assert_same(found, expected):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-6, atol=1e-7), found, expected)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == jax.tree.map(lambda x: (x.shape, x.dtype), expected)


@pytest.mark.parametrize("rows", [draws.ROWS, 4])
def test_all_that_is_drawn_together_is_what_flax_draws_array_by_array(rows, monkeypatch):
    """Whether it all fits into what is drawn at a time or not."""
    monkeypatch.setattr(draws, "ROWS", rows)
    ours, theirs = zip(*OF_FLAX)
    tree = arrays(ours) | {"other": jnp.ones(3)}
    found = jax.jit(draws.draw)(tree)
    np.testing.assert_array_equal(found.pop("other"), 1)
    assert_same(found, arrays(theirs))


@pytest.mark.parametrize("change", ["rbg", "not partitionable", "float64"])
def test_where_bits_do_not_follow_from_positions_each_array_is_drawn_by_itself(change):
    ours, theirs = zip(*OF_FLAX)
    with jax.threefry_partitionable(change != "not partitionable"), jax.enable_x64(change == "float64"):
        key = jax.random.key(3, impl="rbg" if change == "rbg" else None)
        dtype = jnp.float64 if change == "float64" else jnp.float32
        found, expected = ({i: init(key, (draws.ROW, 2), dtype) for i, init in enumerate(x)} for x in (ours, theirs))
        assert_same(draws.draw(found), expected)


@pytest.mark.parametrize("name, remat", [("cnn", True), ("transformer", False), ("esanet18", False)])
def test_weights_of_a_network_are_those_drawn_one_by_one(name, remat):
    """Nothing that a program is to draw is left to flax."""
    net = NETWORKS[name].make(EncoderConfig(name=name, width=4, depth=1, remat=remat), 0, None)
    x = jnp.zeros((1, 8, 8, 3))
    noted = net.init(KEY, x, train=False)
    found = jax.jit(functools.partial(draws.init_net, net), static_argnames="train")(KEY, x, train=False)
    assert_same(found, alone(noted))
    kernels = [noted for path, noted in jax.tree_util.tree_leaves_with_path(
        noted["params"], is_leaf=lambda x: isinstance(x, draws.Note)) if "kernel" in jax.tree_util.keystr(path)]
    assert kernels and all(isinstance(kernel, draws.Note) for kernel in kernels)


def test_parameters_of_another_shape_are_refused_as_ever():
    net = NETWORKS["mlp"].make(EncoderConfig(name="mlp", width=4, depth=1), 0, None)
    params = draws.init_net(net, KEY, jnp.zeros((1, 3)), train=False)
    with pytest.raises(ScopeParamShapeError, match="shape"):
        net.apply(params, jnp.zeros((1, 5)), train=False)
