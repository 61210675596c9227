"""AMCo: features of the modality that the prediction depends on are masked, more of them with every epoch."""
from collections.abc import Mapping
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm.batch import Logits
from jaxmm.config import scalar
from jaxmm.errors import check_at_least, check_probability
from jaxmm.heads import Features
from jaxmm.methods.common import (Method, check_several, finish_step, gradients, init_state,
                                  make_features, make_predict, own_key, step_key)
from jaxmm.methods.fusion import FusedConfig, aux_ce_loss, drop_features, with_fused_head
from jaxmm.model import Model
from jaxmm.task import need_classes


@dataclass
class AMCoConfig(FusedConfig):
    """Masks on the features of the modality that the prediction depends on (AMCo)."""
    name: str = "amco"
    threshold: float = scalar(0.5)  # share of the evidence from which on it depends on a modality
    rate: float = scalar(0.9)       # probability in [0, 1) of masking a feature of it, in the end
    epochs: int = 3                 # in which that rises from 0, by a sine


def make_amco(config: AMCoConfig, model: Model) -> Method:
    """CE(z_f) + sum_m CE(z_m), of the fused head and its readouts, on features some of which are masked.

    The prediction depends on the modality with the largest share of the evidence (see `shares`), before
    masks, if that reaches `config.threshold`. Then each of its features is 0 with probability p, and
    otherwise divided by 1 - p; p = rate sin(pi/2 min(1, e / epochs)) in epoch e. Examples that have no other
    modality keep it. The code of BalanceBenchmark has one mask for all examples of a batch, and reaches p = 1
    within an epoch.

    Raises:
      UserError: fewer than two modalities, an option out of range, an unknown fusion, or a task that is not a
        classification.

    References:
      Zhou et al., "Adaptive mask co-optimization for modal dependence in multimodal learning", ICASSP 2023;
      BalanceBenchmark, arXiv 2502.10816, whose code says what the abstract does not.
    """
    check_at_least("method.threshold", config.threshold, 0)
    check_probability("method.rate", config.rate)
    check_at_least("method.epochs", config.epochs, 1)
    check_several(model, "amco masks modalities in favour of others")
    need_classes(model.task, "evidence of amco", "use dropout")
    model = with_fused_head(config, model)
    loss_of = aux_ce_loss(model)

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        key, done = step_key(state), model.epoch(state.step).done
        batch = model.transform(key, batch)
        rate = config.rate * jnp.sin(jnp.pi / 2 * jnp.minimum(1.0, done / config.epochs))

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            rates = masked(shares(model, out.outputs, batch["present"]), config.threshold, rate)
            outputs = model.head.apply(params["head"], mask(own_key(key), out.features, rates, batch))
            return loss_of(outputs, batch), (out._replace(outputs=outputs), rates)

        losses, (out, rates), grads = gradients(model, state.params, loss_fn)
        state, metrics = finish_step(model, state, batch, losses, out, grads)
        return state, metrics | {f"masked/{m}": x for m, x in rates.items()}

    return Method(init, step, make_predict(model), make_features(model))


def shares(model: Model, logits: Logits, present: Mapping[str, chex.Array]) -> dict[str, chex.Array]:
    """The share of the evidence by modality: sum_c exp z_m,c over that of all modalities of an example.

    It is the mean over the examples of the global batch that have the modality; 0 if none has.
    """
    evidence = {m: jnp.where(present[m], jax.nn.logsumexp(logits[m].astype(jnp.float32), axis=-1), -jnp.inf)
                for m in model.encoders}
    stacked = jnp.stack(list(evidence.values()))
    some = jnp.isfinite(stacked).any(0)
    part = jax.nn.softmax(jnp.where(some, stacked, 0.0), axis=0)
    return {m: jax.lax.stop_gradient(model.mean(part[i], present[m])) for i, m in enumerate(evidence)}


def masked(share: Mapping[str, chex.Array], threshold: chex.Numeric,
           rate: chex.Array) -> dict[str, chex.Array]:
    """The rate for the modality with the largest share, if that reaches the threshold; 0 for the others."""
    largest = jnp.max(jnp.stack(list(share.values())))
    return {m: jnp.where((x == largest) & (x >= threshold), rate, 0.0) for m, x in share.items()}


def mask(key: chex.PRNGKey, features: Features, rates: Mapping[str, chex.Array], batch) -> Features:
    """Features [B, s] of which each is 0 with the rate of its modality, see `drop_features`.

    Examples with one modality keep it as it is.
    """
    several = sum(batch["present"][m].astype(jnp.int32) for m in features)[:, None] > 1
    dropped = {m: drop_features(rates[m], key, {m: h}, batch)[m] for m, h in features.items()}
    return {m: jnp.where(several, dropped[m], h) for m, h in features.items()}
