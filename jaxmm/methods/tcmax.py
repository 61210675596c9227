"""TCMax: maximises a bound on the total correlation of the modalities and the label (arXiv 2602.13015)."""
from collections.abc import Mapping
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm.config import dependent
from jaxmm.errors import UserError, check_at_least
from jaxmm.heads import Features
from jaxmm.keys import named_key
from jaxmm.losses.total_correlation import log_mean_exp, log_mean_exp_of_sums, true_logits
from jaxmm.methods.common import (Method, finish_step, gradients, init_state, make_features, make_predict,
                                  own_key, step_key)
from jaxmm.methods.fusion import FusedConfig, with_fused_head
from jaxmm.model import Model
from jaxmm.task import cross_entropy, need_classes


@dataclass
class TCMaxConfig(FusedConfig):
    """A bound on total correlation in place of cross-entropy (TCMax)."""
    name: str = "tcmax"
    fusion: str = "shared"
    tuples: int = dependent(1024, fusion=("film", "gated", "mlp", "attention"))      # drawn in a step where the
                                    # fused logits are no sum over modalities, >= 1


def make_tcmax(config: TCMaxConfig, model: Model) -> Method:
    """-mean z_f[y] + log mean exp z_f[c], the latter over tuples of examples, one by modality, and classes c.

    It is at least minus the total correlation of the modalities and the label, and at its minimum
    softmax(z_f) is p(y | x_1, ..., x_M). Where the fused logits are a sum over modalities the mean is over
    all tuples of the global batch, otherwise over `config.tuples` of them, drawn at random. Only examples
    that have a modality are in its place.

    Raises:
      UserError: an unknown fusion, or one that does not fit these encoders, fewer tuples than 1, a task that
        is not a classification, or one with smoothed labels or weighted classes.
    """
    check_at_least("method.tuples", config.tuples, 1)
    need_classes(model.task, "the bound of tcmax", "use concat")
    if model.task.loss is not cross_entropy:
        raise UserError("tcmax has a loss of its own, without smoothed labels and weighted classes; set "
                        "--config.task.label_smoothing=0 --config.train.class_weights=''")
    model = with_fused_head(config, model)
    head = model.head
    assert head

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        key = step_key(state)
        batch = model.transform(key, batch)
        present = model.gather(batch["present"])

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            fit = model.mean(true_logits(out.outputs["fused"], batch["label"]))
            if head.parts:
                parts = model.gather(head.parts(params["head"], out.features))
                return log_mean_exp_of_sums(parts, present) - fit, out
            drawn = draw_tuples(own_key(key), model.gather(out.features), present, config.tuples)
            return log_mean_exp(head.apply(params["head"], drawn)["fused"]) - fit, out

        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn))

    return Method(init, step, make_predict(model), make_features(model))


def draw_tuples(key: chex.PRNGKey, features: Features, present: Mapping[str, chex.Array],
                count: int) -> dict[str, chex.Array]:
    """Features [count, s] by modality, each row of which is drawn from the rows [B, s] that have it.

    The draws for a modality depend on the key and its name. If no row has it all are drawn from.
    """

    def draw(m, h):
        counts = present[m] | ~present[m].any()
        rows = jnp.argsort(~counts, stable=True)       # those that count come first
        return h[rows[jax.random.randint(named_key(key, m), (count,), 0, counts.sum())]]

    return {m: draw(m, h) for m, h in features.items()}
