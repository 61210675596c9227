"""CML: confidence must not grow when modalities are taken away (arXiv 2306.01265)."""
from collections.abc import Mapping
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm import shapley
from jaxmm.config import scalar
from jaxmm.errors import check_at_least
from jaxmm.heads import logits_by_subset
from jaxmm.methods.common import (Method, check_several, finish_step, gradients, init_state, make_features,
                                  make_predict, step_key)
from jaxmm.methods.fusion import FusedConfig, fused_loss, with_fused_head
from jaxmm.model import Model
from jaxmm.task import need_classes


@dataclass
class CMLConfig(FusedConfig):
    """A fused head whose confidence must not grow when modalities are taken away (CML)."""
    name: str = "cml"
    weight: float = scalar(0.1)     # of the confidence that fewer modalities have more of, >= 0


def make_cml(config: CMLConfig, model: Model) -> Method:
    """CE(z_f) + w mean over subsets S < T of the modalities of max(0, conf(S) - conf(T)).

    conf(S) is the largest probability that the fused head gives where it has the modalities in S alone. The
    mean is over the pairs of an example, see `overconfidence`, and then over the examples that have any.

    Raises:
      UserError: fewer than two modalities or more than `jaxmm.shapley.MAX_PLAYERS`, a negative weight, an
        unknown fusion, or a task that is not a classification.
    """
    check_at_least("method.weight", config.weight, 0)
    check_several(model, "cml takes modalities away")
    need_classes(model.task, "confidence of cml", "use concat")
    subsets = shapley.subsets(list(model.encoders))[1:]
    model = with_fused_head(config, model)

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        batch = model.transform(step_key(state), batch)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            logits = logits_by_subset(model.head, params["head"], out.features)
            confidence = {s: jax.nn.softmax(logits(s).astype(jnp.float32)).max(-1) for s in subsets}
            values, counts = overconfidence(confidence, batch["present"])
            return {"fused": fused_loss(model)(out.outputs, batch),
                    "overconfidence": config.weight * model.mean(values, counts)}, out

        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn))

    return Method(init, step, make_predict(model), make_features(model))


def overconfidence(confidence: Mapping[shapley.Subset, chex.Array], present: Mapping[str, chex.Array],
                   ) -> tuple[chex.Array, chex.Array]:
    """(mean of max(0, conf(S) - conf(T)) [B], whether there is anything to compare bool [B]).

    The mean is over all pairs of subsets S < T of the modalities that an example has.

    Args:
      confidence: [B] by subset, without the empty one.
      present: bool [B] by modality.
    """
    subsets = list(confidence)
    small, large = np.array([(i, j) for i, s in enumerate(subsets) for j, t in enumerate(subsets)
                             if set(s) < set(t)]).T
    values = jnp.stack(list(confidence.values()))
    there = jnp.stack([jnp.stack([present[m] for m in s]).all(0) for s in subsets])[large]
    count = there.sum(0)
    gaps = jnp.where(there, jax.nn.relu(values[small] - values[large]), 0.0)
    return gaps.sum(0) / jnp.maximum(count, 1), count > 0
