import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm import heads
from jaxmm.batch import make_batch
from jaxmm.errors import UserError
from jaxmm.methods import agm
from jaxmm.methods.agm import AGMConfig, Scores, coefficients, ratios, update
from jaxmm.methods.common import scale_gradient
from jaxmm.methods.fusion import FusedConfig
from jaxmm.model import Model
from jaxmm.task import classification
from jaxmm.train import setup as setup_lib

MODEL = Model({}, classification("01"), None, None, None, 2, 2)   # only means over a batch are used


def scores(*values, steps=1):
    by_name = dict(zip("abc", map(jnp.float32, values)))
    return Scores(by_name, by_name, {m: jnp.int32(steps) for m in by_name})


def test_coefficients_by_hand():
    """s = (.5, 1) at the first step, where the usual ratio is 1; after means of (.5, 1); three of them."""
    first = coefficients(scores(0.5, 1), agm.init_scores("ab"), 3.0)
    np.testing.assert_allclose(list(first.values()), [0.1428, 3.256], rtol=3e-4)
    later = coefficients(scores(1, 1), scores(0.5, 1), 2.0)
    np.testing.assert_allclose(list(later.values()), np.exp(2 * (np.exp([0.5, -0.5]) - 1)), rtol=1e-5)
    three = ratios(scores(0.5, 1, 3).last, scores(0, 0, 0).steps)
    np.testing.assert_allclose(list(three.values()), np.exp([1.5, 0.75, -2.25]), rtol=1e-5)
    assert list(coefficients(scores(0.5, 1), scores(2, 0), 0.0).values()) == [1, 1]


def test_losses_far_apart_leave_numbers():
    """The usual ratio of the second is e^1000, but its excess is cut off at 10; e^-1000 is nothing."""
    found = coefficients(scores(0, 0), scores(0, -1000), 3.0)
    np.testing.assert_allclose(list(found.values()), [np.exp(-3), np.exp(30)], rtol=1e-4)
    found = coefficients(scores(0, 1000), scores(0, 1000), 3.0)
    np.testing.assert_allclose(list(found.values()), [1, 1])


def logits_with(p):
    """Two classes; the probability of class 0 is p."""
    return jnp.log(jnp.array([[q, 1 - q] for q in p]))


def test_scores_are_means_over_steps_that_have_the_modality():
    inputs = {m: np.zeros((2, 1)) for m in "abc"}
    full = make_batch(inputs, [0, 0], present={"c": np.zeros(2, bool)})
    part = make_batch(inputs, [0, 0], present={"b": np.zeros(2, bool), "c": np.array([True, False])})
    phi = {"a": logits_with([0.5, 0.25]), "b": logits_with([0.1, 0.1]), "c": logits_with([0.2, 0.9])}
    first = update(MODEL, agm.init_scores("abc"), phi, full)
    np.testing.assert_allclose([first.last["a"], first.mean["b"]], np.log([8**0.5, 10]), rtol=1e-5)
    assert {m: int(n) for m, n in first.steps.items()} == {"a": 1, "b": 1, "c": 0}
    # c is not compared yet: its coefficient is 1, and a and b are compared with each other alone.
    now = ratios(first.last, first.steps)
    np.testing.assert_allclose([now["a"], now["b"], now["c"]], [10 / 8**0.5, 8**0.5 / 10, 1], rtol=1e-5)
    second = update(MODEL, first, phi | {"a": logits_with([0.5, 0.5])}, part)
    np.testing.assert_allclose([second.last["a"], second.mean["a"]], np.log([2, 2**1.25]), rtol=1e-5)
    np.testing.assert_allclose([second.last["b"], second.mean["b"], second.mean["c"]], np.log([10, 10, 5]),
                               rtol=1e-5)
    assert {m: int(n) for m, n in second.steps.items()} == {"a": 2, "b": 1, "c": 1}


def test_the_value_stays_and_the_gradient_is_scaled():
    x = jnp.array([3.3e-3, 1e7])
    np.testing.assert_array_equal(scale_gradient(x, 1e13), x)
    value, grad = jax.value_and_grad(lambda x: scale_gradient(x, 4 * x)**2)(jnp.float32(3))
    assert (value, grad) == (9, 6 * 12)


@pytest.mark.parametrize("fusion, widths", [
    ("concat", dict(zip("abcde", (3, 4, 2, 3, 5)))), ("mlp", {"sound": 3, "image": 4, "text": 2})])
def test_gradients_of_the_base_times_the_coefficients(fusion, widths, step_of):
    """All are 1 with alpha = 0 and after the first epochs; in `concat` they scale encoder and slice."""
    base = step_of(lambda: FusedConfig("concat", fusion=fusion, hidden=5), widths)[1]()
    _, run = step_of(lambda alpha: AGMConfig(fusion=fusion, hidden=5, alpha=alpha, epochs=2), widths)
    for alpha, done in ((0.0, 0), (3.0, 2)):
        found = run(alpha, steps_done=done)
        assert all(found.metrics[f"coefficient/{m}"] == 1 for m in widths)
        chex.assert_trees_all_close(found.after.params, base.after.params, rtol=1e-4, atol=1e-6)
    found = run(3.0, steps_done=1)
    assert np.ptp([found.metrics[f"coefficient/{m}"] for m in widths]) > 0.1

    def changes(step, m):
        return jax.tree.map(np.subtract, *((state.params[m], state.params["head"]["kernel"][m])
                                           for state in (step.after, step.before)))

    for m in widths if fusion == "concat" else ():
        factor = found.metrics[f"coefficient/{m}"]
        expected = jax.tree.map(lambda x, k=factor: k * x, changes(base, m))
        chex.assert_trees_all_close(changes(found, m), expected, rtol=1e-3, atol=1e-6)


def test_what_does_not_suit_it_is_refused(make_dataset, make_config):
    with pytest.raises(UserError, match="agm.*needs two or more; use unimodal"):
        setup_lib.build(make_config("agm", modalities=("sound",)), dataset=make_dataset({"sound": (3,)}))
    with pytest.raises(UserError, match="11 modalities have 2048 subsets"):
        agm.make_agm(AGMConfig(), MODEL._replace(encoders=dict.fromkeys("abcdefghijk"), head=heads.concat(2)))
