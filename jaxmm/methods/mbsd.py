"""MBSD: on each example the modality that does worse imitates the one that does better."""
import itertools
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm.batch import Logits
from jaxmm.config import scalar
from jaxmm.errors import check_at_least
from jaxmm.losses import weighted_mean
from jaxmm.losses.distillation import kl_divergence, mean_squared_error
from jaxmm.methods.common import Method, check_several, make_joint
from jaxmm.methods.fusion import FusedConfig, aux_ce_loss, with_all_heads
from jaxmm.model import Model
from jaxmm.task import need_classes


@dataclass
class MBSDConfig(FusedConfig):
    """Losses and heads of `aux_ce`, and imitation between modalities (MBSD)."""
    name: str = "mbsd"
    weight: float = scalar(1.0)     # of distance and divergence between modalities, >= 0


def make_mbsd(config: MBSDConfig, model: Model) -> Method:
    """CE(z_f) + sum_m CE(z_m) + w mean over pairs of modalities of `imitation`.

    The mean over a pair is over the examples that have both. The code of BalanceBenchmark takes the
    divergence of two single probabilities, of which it forgets the logarithm; here it is of the predictions.

    Raises:
      UserError: fewer than two modalities, a negative weight, an unknown fusion, or a task that is not a
        classification.

    References:
      BalanceBenchmark, arXiv 2502.10816, which has it as a method of other authors.
    """
    check_at_least("method.weight", config.weight, 0)
    check_several(model, "mbsd compares modalities")
    need_classes(model.task, "imitation between modalities", "use aux_ce")
    model = with_all_heads(config, model)

    def loss_fn(logits: Logits, batch):
        pairs = [(logits[m], logits[n], batch["present"][m] & batch["present"][n])
                 for m, n in itertools.combinations(model.encoders, 2)]
        losses = [model.mean(imitation(a, b, batch["label"]), both) for a, b, both in pairs]
        counts = model.sum(jnp.stack([both.sum() for *_, both in pairs])) > 0
        return aux_ce_loss(model)(logits, batch) | {
            "imitation": config.weight * weighted_mean(jnp.stack(losses), counts)}

    return make_joint(model, loss_fn)


def imitation(a: chex.Array, b: chex.Array, label: chex.Array) -> chex.Array:
    """sg(|p_a[y] - p_b[y]|) (mean_c (p_a - p_b)^2 + KL(sg(better) || worse)) [B] of logits [B, C].

    The better one is the modality that gives the label int [B] more probability.
    """
    p, q = (jax.nn.softmax(z.astype(jnp.float32)) for z in (a, b))
    lead = jax.lax.stop_gradient(jnp.take_along_axis(p - q, label[:, None], axis=1)[:, 0])
    divergence = jnp.where(lead > 0, kl_divergence(b, a), kl_divergence(a, b))
    return jnp.abs(lead) * (mean_squared_error(p, q) + divergence)
