"""The global batch: losses and gradients on eight devices are those of one."""
import jax
import numpy as np
import pytest

from jaxmm import task
from jaxmm.losses import distillation
from jaxmm.losses.ranking import ranking_loss
from jaxmm.methods.common import gradients
from jaxmm.model import Model

ONE = Model({}, None, None, None, None, 16, 16)
EIGHT = ONE._replace(axis_name="devices")


def value_and_gradient(model, params, x, labels, weights):
    """A loss of every kind, of a linear model: one number, and the gradients of the parameters."""

    def loss_fn(params):
        logits = x @ params["head"]
        loss = (model.mean(task.cross_entropy(logits, labels), weights)
                + model.mean(distillation.mean_squared_error(logits, x[:, :3]), weights) ** 2
                + model.mean(distillation.kl_divergence(logits, x[:, 1:], 2.0), weights))
        confidence, difficulty, counts = model.gather((logits[:, 0], x[:, 1], weights > 0))
        return loss + ranking_loss(confidence, difficulty, counts), logits

    losses, _, grads = gradients(model, params, loss_fn)
    return losses["loss"], grads


one_device = jax.jit(lambda *args: value_and_gradient(ONE, *args))
eight_devices = jax.pmap(lambda *args: value_and_gradient(EIGHT, *args), axis_name="devices",
                         in_axes=(None, 0, 0, 0))


@pytest.mark.parametrize("rows", ["some", "one", "none"])
def test_eight_devices_equal_one(rows):
    rng = np.random.default_rng(0)
    params = {"head": rng.normal(size=(4, 3)).astype(np.float32)}
    x = rng.normal(size=(16, 4)).astype(np.float32)
    labels = rng.integers(0, 3, 16)
    row = np.arange(16)
    counts = {"some": (row > 6) & (row != 12), "one": row == 5, "none": row < 0}[rows]
    weights = counts * rng.uniform(0.5, 2.0, 16).astype(np.float32)

    loss, grads = one_device(params, x, labels, weights)
    split = lambda a: a.reshape(8, 2, *a.shape[1:])
    losses, their_grads = eight_devices(params, split(x), split(labels), split(weights))
    np.testing.assert_allclose(losses, np.full(8, loss), rtol=1e-5)
    for device in (0, 3):
        np.testing.assert_allclose(their_grads["head"][device], grads["head"], rtol=1e-4, atol=1e-6)

    if rows == "none":
        assert loss == 0 and not grads["head"].any()
    else:       # what stands in rows that do not count makes no difference
        changed = np.where(counts[:, None], x, 5.0)
        np.testing.assert_allclose(one_device(params, changed, labels, weights)[0], loss, rtol=1e-6)
