"""MMPareto: encoders follow a Pareto direction of the fused and their own loss (arXiv 2405.17730)."""
from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax

from jaxmm.config import scalar
from jaxmm.errors import check_above, check_choice
from jaxmm.methods.common import (Method, finish_step, init_state, make_features, make_predict,
                                  split_gradients, step_key)
from jaxmm.methods.fusion import FusedConfig, aux_ce_loss, with_all_heads
from jaxmm.model import Model

VANISHING = 1e-5        # norm of h, as a share of those of its parts, below which it is rounding


@dataclass
class MMParetoConfig(FusedConfig):
    """Losses and heads of `aux_ce`; encoders follow a direction that harms neither loss (MMPareto)."""
    name: str = "mmpareto"
    gamma: float = scalar(1.5)      # factor on the gradients of the encoders, > 0
    norm: str = "encoder"           # whose norms are restored: a whole "encoder"'s, or each "tensor"'s, as
                                    # released


def make_mmpareto(config: MMParetoConfig, model: Model) -> Method:
    """CE(z_f) + sum_m CE(z_m), whose gradients in each encoder are combined by `pareto_gradient`.

    The heads get the plain sum. There is one forward pass, and a backward pass for either gradient.

    Raises:
      UserError: gamma <= 0, an unknown norm, or an unknown fusion.
    """
    check_above("method.gamma", config.gamma, 0)
    check_choice("method.norm", config.norm, ("encoder", "tensor"))
    model = with_all_heads(config, model)
    losses_of = aux_ce_loss(model)

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        batch = model.transform(step_key(state), batch)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            return losses_of(out.outputs, batch), out

        losses, out, grads = split_gradients(model, state.params, loss_fn, {
            "fused": ["fused"], "alone": list(model.encoders)})
        summed = {"head": add(grads["fused"]["head"], grads["alone"]["head"])}
        combined = {m: pareto_gradient(grads["fused"][m], grads["alone"][m], config.gamma, config.norm)
                    for m in model.encoders}
        return finish_step(model, state, batch, losses, out, summed | combined)

    return Method(init, step, make_predict(model), make_features(model))


def pareto_gradient(fused: Any, alone: Any, gamma: chex.Numeric, norm: str = "encoder") -> Any:
    """gamma max(1, |g_f + g_u| / |h|) h of the gradients g_f and g_u of one encoder, trees of one structure.

    h = 2 a g_f + 2 (1 - a) g_u, where a in [0, 1] makes h shortest if g_f and g_u conflict (their product is
    negative) and is 1/2 otherwise. Where h vanishes, as for opposite gradients, the result is 0.

    Args:
      fused: g_f, of the multimodal loss.
      alone: g_u, of the unimodal one.
      gamma: > 0.
      norm: "encoder": the norms are of whole trees; "tensor": of each leaf, which turns h.
    """
    dot = optax.tree.vdot(fused, alone)
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, fused, alone), squared=True)
    conflict = dot < 0
    closest = (optax.tree.norm(alone, squared=True) - dot) / jnp.where(conflict, apart, 1.0)
    a = jnp.where(conflict, jnp.clip(closest, 0.0, 1.0), 0.5)
    h = jax.tree.map(lambda x, y: 2 * a * x + 2 * (1 - a) * y, fused, alone)
    total = add(fused, alone)

    def restored(h, total, fused, alone):
        length = optax.tree.norm(h)
        there = length > VANISHING * (optax.tree.norm(fused) + optax.tree.norm(alone))
        ratio = jnp.maximum(1.0, optax.tree.norm(total) / jnp.where(there, length, 1.0))
        return jax.tree.map(lambda x: jnp.where(there, gamma * ratio * x, 0.0), h)

    if norm == "tensor":
        return jax.tree.map(restored, h, total, fused, alone)
    return restored(h, total, fused, alone)


def add(x: Any, y: Any) -> Any:
    """Sum of two trees."""
    return jax.tree.map(jnp.add, x, y)
