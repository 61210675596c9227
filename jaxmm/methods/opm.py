"""OPM: on-the-fly prediction modulation, or features that are dropped by lead (Wei et al., TPAMI 2024)."""
from collections.abc import Mapping
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm.batch import Batch
from jaxmm.config import dependent, scalar
from jaxmm.errors import check_at_least, check_share
from jaxmm.heads import Features
from jaxmm.keys import named_key
from jaxmm.methods import ogm_ge
from jaxmm.methods.common import (Method, check_several, finish_step, gradients, init_state,
                                  make_features, make_predict, own_key, step_key)
from jaxmm.methods.fusion import FusedConfig, with_fused_head
from jaxmm.model import Model


@dataclass
class OPMConfig(FusedConfig):
    """On-the-fly prediction modulation (OPM, Wei et al., 2024)."""
    name: str = "opm"
    base: float = scalar(0.5)       # q_0, least probability with which the modality that is ahead is dropped
    slope: float = scalar(0.5)      # lambda, how much its lead adds to that, >= 0
    rate: float = scalar(0.7)       # share of the batches that are dropped from, in [0, 1]
    warmup_epochs: int = 5          # epochs before the first is dropped
    ogm: bool = False               # also modulates gradients as ogm_ge does, by the next three options
    alpha: float = scalar(0.8, ogm=True)       # of ogm: strength of the modulation, >= 0
    noise: bool = dependent(True, ogm=True)   # of ogm: noise on the encoders' gradients
    epochs: int = dependent(50, ogm=True)     # of ogm: first epochs, in which gradients are modulated


def make_opm(config: OPMConfig, model: Model) -> Method:
    """A fused head from which the features of the modality that is ahead are dropped more often.

    A modality's lead is that of `ogm_ge`, from the readouts before anything is dropped; see `probabilities`
    and `drop`. With `config.ogm`, the gradients of the encoders are those of `ogm_ge` besides.

    Raises:
      UserError: fewer than two modalities, an option out of range, or an unknown fusion.

    References:
      Wei et al., "On-the-fly modulation for balanced multimodal learning", TPAMI 2024, arXiv 2410.11582.
    """
    for option in ("base", "rate"):
        check_share(f"method.{option}", getattr(config, option))
    for option in ("slope", "warmup_epochs", "alpha", "epochs"):
        check_at_least(f"method.{option}", getattr(config, option), 0)
    check_several(model, "opm balances modalities against each other")
    model = with_fused_head(config, model)

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        key, done = step_key(state), model.epoch(state.step).done
        batch = model.transform(key, batch)
        key = own_key(key)
        due = jax.random.bernoulli(named_key(key, "batch"), config.rate) & (done >= config.warmup_epochs)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            rho = jax.lax.stop_gradient(ogm_ge.advantages(model, out.outputs, batch))
            q = {m: jnp.where(due, x, 0.0) for m, x in probabilities(rho, config.base, config.slope).items()}
            kept = drop(named_key(key, "drop"), out.features, q, batch)
            outputs = out.outputs | {"fused": model.head.apply(params["head"], kept)["fused"]}
            return model.mean(model.task.loss(outputs["fused"], batch["label"])), (
                out._replace(outputs=outputs), rho, q)

        losses, (out, rho, q), grads = gradients(model, state.params, loss_fn)
        metrics = {f"dropped/{m}": x for m, x in q.items()}
        if config.ogm:
            k = {m: jnp.where(done < config.epochs, x, 1.0)
                 for m, x in ogm_ge.coefficients(rho, config.alpha).items()}
            grads = ogm_ge.modulate_encoders(key, grads, k, done < config.epochs, noise=config.noise)
            metrics |= {f"coefficient/{m}": x for m, x in k.items()}
        state, progress = finish_step(model, state, batch, losses, out, grads)
        return state, progress | metrics

    return Method(init, step, make_predict(model), make_features(model))


def probabilities(rho: Mapping[str, chex.Array], base: chex.Numeric, slope: chex.Numeric,
                  ) -> dict[str, chex.Array]:
    """q_m = clip(q_0 (1 + lambda tanh(rho_m - 1)), 0, 1) by modality where rho_m > 1, otherwise 0."""
    return {m: jnp.where(x > 1, jnp.clip(base * (1 + slope * jnp.tanh(x - 1)), 0.0, 1.0), 0.0)
            for m, x in rho.items()}


def drop(key: chex.PRNGKey, features: Features, q: Mapping[str, chex.Array], batch: Batch) -> Features:
    """Features [B, s] by modality, those of m 0 with probability q_m and the others divided by 1 - theta.

    theta is the mean of q, weighted by the widths of the features: the share of them that is dropped. An
    example keeps at least one of the modalities that it has: the one that was nearest to being kept. What an
    example loses depends on the key, the modality and the example's id, not on its position in the batch.
    """
    def draw(m):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(named_key(key, m), batch["id"])
        return jax.vmap(jax.random.uniform)(keys)

    margins = {m: jnp.where(batch["present"][m], draw(m) - q[m], -jnp.inf) for m in features}
    best = jnp.max(jnp.stack(list(margins.values())), axis=0)
    widths = {m: h.shape[-1] for m, h in features.items()}
    theta = sum(widths[m] * q[m] for m in features) / sum(widths.values())
    return {m: jnp.where(((margins[m] >= 0) | (margins[m] == best))[:, None], h / (1 - theta), 0.0)
            for m, h in features.items()}
