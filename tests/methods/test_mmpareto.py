"""The Pareto direction by hand, its guards, and what a step does with it."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import OptimizerConfig
from jaxmm.errors import UserError
from jaxmm.methods.mmpareto import MMParetoConfig, pareto_gradient
from jaxmm.train import setup as setup_lib

RNG = np.random.default_rng(0)


def tree(*numbers):
    """The numbers as two leaves, of which norms and products are over both."""
    return {"a": jnp.float32(numbers[:1]), "b": jnp.float32(numbers[1:])}


def flat(grads):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(grads)])


@pytest.mark.parametrize("fused, alone, gamma, expected", [
    ((1, 0), (-1, 1), 1.5, (0.6708, 1.3416)),       # a 0.6, h (0.4, 0.8), ratio 1.1180
    ((1, 0), (0.5, 1), 1.0, (1.5, 1)),              # no conflict: the sum
    ((1, 0), (0, 0), 1.5, (1.5, 0)),                # nobody has the modality
    ((1, 0.3), (-1, -0.3), 1.5, (0, 0)),            # opposite: nothing that would not harm one of them
    ((0.1, 0.3), (-0.7, -2.1), 1.5, (0, 0)),        # of other lengths too, where h is rounding
    ((0, 0), (0, 0), 1.5, (0, 0))])
def test_direction_by_hand(fused, alone, gamma, expected):
    found = pareto_gradient(tree(*fused), tree(*alone), gamma)
    np.testing.assert_allclose(flat(found), expected, rtol=1e-4, atol=1e-6)


def test_it_harms_neither_loss_and_is_as_long_as_the_sum():
    for _ in range(20):
        fused, alone = (tree(*RNG.normal(size=5)) for _ in range(2))
        h, f, u = map(flat, (pareto_gradient(fused, alone, 2.0), fused, alone))
        assert h @ f > -1e-5 and h @ u > -1e-5
        np.testing.assert_allclose(np.linalg.norm(h), 2 * np.linalg.norm(f + u), rtol=1e-4)
        if f @ u < 0 and min(f @ f, u @ u) > -f @ u:
            np.testing.assert_allclose(h @ f, h @ u, rtol=1e-3)


def test_norms_of_tensors():
    """As released; the direction is still that of the whole encoder: h (0.4, 0.8), the sum (0, 1)."""
    found = pareto_gradient(tree(1, 0), tree(-1, 1), 1.5, "tensor")
    np.testing.assert_allclose(flat(found), [1.5 * 0.4, 1.5 * 1.0], rtol=1e-5)


def test_a_step_follows_it_in_each_encoder(make_dataset, make_config):
    """Beside the gradients of either loss alone, from `aux_ce` with two weights; heads get the sum."""
    dataset = make_dataset(rows=(8, 8, 8), missing=True)
    optimizer = OptimizerConfig(learning_rate=1.0, momentum=0.0, weight_decay=0.0, schedule="constant")
    batch = dataset.splits["train"]

    def build(method, **values):
        config = make_config(method, optimizer=optimizer)
        return setup_lib.build(config, dataset=dataset, devices=jax.devices()[:1]).make_method(None, values)

    def change(method, state):
        """What a step subtracts from the parameters, and its metrics."""
        after, metrics = method.step(state, batch)
        return jax.tree.map(jnp.subtract, state.params, after.params), metrics

    state = jax.jit(build("aux_ce").init)(jax.random.key(10), batch)
    of_either = jax.jit(lambda weight: change(build("aux_ce", **{"method.weight": weight}), state))
    (fused, _), (both, terms) = of_either(0.0), of_either(1.0)
    found, metrics = jax.jit(lambda: change(build(MMParetoConfig(gamma=2.0)), state))()
    chex.assert_trees_all_close(metrics, terms, rtol=1e-5)
    np.testing.assert_allclose(flat(found["head"]), flat(both["head"]), rtol=1e-4, atol=1e-5)
    conflicts = []
    for m in dataset.modalities:
        alone = jax.tree.map(jnp.subtract, both[m], fused[m])
        expected = flat(pareto_gradient(fused[m], alone, 2.0))
        np.testing.assert_allclose(flat(found[m]), expected, rtol=1e-3, atol=1e-4)
        conflicts.append(flat(fused[m]) @ flat(alone) < 0)
        if not conflicts[-1]:
            np.testing.assert_allclose(flat(found[m]), 2 * flat(both[m]), rtol=1e-3, atol=1e-4)
    assert sorted(conflicts) == [False, True]


def test_options_out_of_range(make_dataset, make_config):
    for options, said in (({"gamma": 0.0}, "method.gamma=0.0"),
                          ({"norm": "leaf"}, "method.norm='leaf'.*encoder, tensor")):
        with pytest.raises(UserError, match=said):
            setup_lib.build(make_config(MMParetoConfig(**options)), dataset=make_dataset())
