"""G-Blending: losses weighted by how well the heads generalise (Wang et al., 2020).

It is a baseline of UMT (arXiv 2305.01233, table 1).
"""
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm.config import dependent
from jaxmm.errors import UserError, check_at_least, check_choice
from jaxmm.methods.common import (Method, finish_step, gradients, init_state,
                                  make_features, make_predict, step_key)
from jaxmm.methods.fusion import with_all_heads
from jaxmm.methods.taught import TaughtConfig
from jaxmm.model import Model


@dataclass
class GBlendingConfig(TaughtConfig):
    """Losses of all heads, weighted by how they generalise (G-Blending, Wang et al., 2020)."""
    name: str = "g_blending"
    weighting: str = "offline"      # "offline": measured in a first run with equal weights; "online":
                                    # updated after every window; "equal"
    window: int = dependent(5, weighting="online")    # epochs of a window, >= 2; used by "online"
    holdout: float = 0.1            # share of the training data, in (0, 1), that is only measured


TRAIN, HELD = 0, 1      # rows of the measured losses


def make_g_blending(config: GBlendingConfig, model: Model) -> Method:
    """A fused head and one linear head per modality; the loss is sum_k w_k CE_k over all of them.

    A share of the training data is held out and only measured. The weights follow from the losses
    of each head on both parts in the first and the last epoch of a window (see `blend`). With
    "offline" they come from a run with equal weights, where the window is the whole run; with
    "online" they are updated after every `config.window` epochs. Both losses are taken in the
    training steps, on augmented inputs.

    Raises:
      UserError: an option out of range, or an unknown fusion.
    """
    check_choice("method.weighting", config.weighting, ("offline", "online", "equal"))
    check_at_least("method.window", config.window, 2)
    if not 0 < config.holdout < 1:
        raise UserError(f"method.holdout={config.holdout}; expected a share in (0, 1)")
    model = with_all_heads(config, model)
    names = (*model.encoders, "fused")

    def init(key, batch):
        zeros = jnp.zeros((2, len(names)))
        return init_state(model, key, batch, lambda key, _: {
            "key": key, "weights": jnp.full(len(names), 1 / len(names), jnp.float32),
            "sum": zeros, "count": zeros, "first": zeros, "last": zeros})

    def is_held(key, ids):
        """bool [B]: held out, for the whole run."""
        return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(
            ids) < config.holdout

    def step(state, batch):
        batch = model.transform(step_key(state), batch)
        held = is_held(state.extra["key"], batch["id"])
        everyone = jnp.ones_like(held)
        count = jnp.stack([batch["present"].get(k, everyone) & (held == part)
                           for part in (False, True) for k in names]).reshape(2, len(names), -1)

        def by_head(out):
            """CE [K, B] by head."""
            return jnp.stack([model.task.loss(out.outputs[k], batch["label"]) for k in names])

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            return {k: weight * model.mean(values, rows) for k, weight, values, rows in zip(
                names, state.extra["weights"], by_head(out), count[TRAIN])}, out

        losses, out, grads = gradients(model, state.params, loss_fn)
        extra = measure(state, *model.sum((jnp.sum(count * by_head(out), -1),
                                           count.sum(-1).astype(jnp.float32))))
        state, metrics = finish_step(model, state, batch, losses, out, grads, extra=extra)
        return state, metrics | {f"weight/{k}": w for k, w in zip(names, extra["weights"])}

    def measure(state, sums, count):
        """The method's own state after a step with these sums of losses and counts [2, K]."""
        extra = state.extra
        sums, count = extra["sum"] + sums, extra["count"] + count
        epoch = model.epoch(state.step)
        ends = epoch.step == epoch.steps - 1
        means = sums / jnp.maximum(count, 1.0)
        place = epoch.done % config.window if config.weighting == "online" else epoch.done
        first = jnp.where(ends & (place == 0), means, extra["first"])
        last = jnp.where(ends, means, extra["last"])
        due = ends & (place == config.window - 1) & (config.weighting == "online")
        return {"key": extra["key"],
                "weights": jnp.where(due, blend(first, last), extra["weights"]),
                "sum": jnp.where(ends, 0.0, sums), "count": jnp.where(ends, 0.0, count),
                "first": first, "last": last}

    def teach(state, models):
        (measured,) = models.values()
        weights = blend(measured.extra["first"], measured.extra["last"])
        return state._replace(extra=state.extra | {"weights": weights})

    teachers = {}
    if config.weighting == "offline":
        teachers = {"g_blending+weighting=equal": GBlendingConfig(
            fusion=config.fusion, hidden=config.hidden, scale=config.scale, weighting="equal",
            holdout=config.holdout)}
    return Method(init, step, make_predict(model), make_features(model),
                  teachers=teachers, teach=teach if teachers else None)


def blend(first: chex.Array, last: chex.Array) -> chex.Array:
    """Weights [K] that sum to 1, in proportion to G / O^2 of each head.

    G is how much the held-out loss fell over the window, O how much its distance from the training
    loss grew. A head that did not improve gets 0; if none improved, all are equal. |O| below 0.01
    counts as 0.01.

    Args:
      first: losses [2, K], of training and held-out data, at the start of the window.
      last: the same at its end.

    References:
      Wang, Tran and Feiszli, "What makes training multi-modal classification networks hard?", CVPR
      2020.
    """
    chex.assert_equal_shape([first, last])
    gain = jnp.maximum(first[HELD] - last[HELD], 0.0)
    growth = (last[HELD] - last[TRAIN]) - (first[HELD] - first[TRAIN])
    ratio = gain / jnp.maximum(growth ** 2, 1e-4)
    total = ratio.sum()
    return jnp.where(total > 0, ratio / jnp.where(total > 0, total, 1.0), 1 / len(ratio))
