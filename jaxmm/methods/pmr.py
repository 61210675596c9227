"""PMR: prototypical modal rebalance (Fan et al., CVPR 2023)."""
from collections.abc import Mapping
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm.config import dependent, scalar
from jaxmm.errors import UserError, check_at_least, check_choice, check_probability
from jaxmm.methods.common import (Method, anyone, check_several, finish_step, gradients, init_state, make_features,
                                  make_predict, step_key)
from jaxmm.methods.fusion import FusedConfig, with_fused_head
from jaxmm.model import Model
from jaxmm.state import prototypes
from jaxmm.task import need_classes


@dataclass
class PMRConfig(FusedConfig):
    """A fused head; slow modalities are drawn to prototypes, fast ones away (PMR, CVPR 2023)."""
    name: str = "pmr"
    alpha: float = scalar(1.0)      # weight of the prototypes' cross-entropy, >= 0
    mu: float = scalar(1e-2)        # weight of the fastest modality's entropy, >= 0; 0 as released
    entropy_epochs: int = 50        # first epochs, in which that entropy counts
    epsilon: float = scalar(0.2)    # share of the old prototypes in the new ones, in [0, 1)
    share: float = dependent(0.1, prototypes="epoch")     # of the training rows, in (0, 1], that prototypes are
                                    # means of
    weights: str = "ratio"          # of slow modalities, by how far they are behind, or "binary" as released
    prototypes: str = "epoch"       # made of these rows after each "epoch", or "running" over the batches


def make_pmr(config: PMRConfig, model: Model) -> Method:
    """CE(z_f) + alpha sum_m w_m CE(q_m) - mu sum_m v_m H(q_m), the last term in the first epochs alone.

    q_m = softmax_k(-|h_m - c_m,k|) says how near a feature is to the prototypes c_m,k of the classes k, see
    `jaxmm.state.prototypes`; for the weights see `rebalance`. Prototypes are made at the end of each epoch,
    in evaluation mode, of the same share of the task's training rows. With "running" every step moves them
    by the means of its batch instead. Examples of classes without a prototype do not count, so the terms are
    0 as long as there is none.

    Raises:
      UserError: fewer than two modalities, an option out of range, an unknown fusion, or a task that is not
        a classification.
    """
    for name in ("alpha", "mu", "entropy_epochs"):
        check_at_least(f"method.{name}", getattr(config, name), 0)
    check_probability("method.epsilon", config.epsilon)
    if not 0 < config.share <= 1:
        raise UserError(f"method.share={config.share}; expected a share of the training rows in (0, 1]")
    check_choice("method.weights", config.weights, ("ratio", "binary"))
    check_choice("method.prototypes", config.prototypes, ("epoch", "running"))
    check_several(model, "pmr balances modalities against each other")
    need_classes(model.task, "pmr, which has a prototype of each class,", "use ogm_ge")
    model = with_fused_head(config, model)

    def init(key, batch):
        return init_state(model, key, batch, lambda key, widths: {
            "prototypes": {m: prototypes.init(model.task.size, s) for m, s in widths.items()},
            "scores": {m: jnp.zeros(()) for m in widths}})

    def moved(state, batch, reduce=lambda sums: sums):
        """The prototypes after a batch, or rows, with features."""
        return {m: prototypes.update(c, batch["features"][m], batch["label"], batch["present"][m], config.epsilon,
                                     reduce) for m, c in state.extra["prototypes"].items()}

    def step(state, batch):
        batch = model.transform(step_key(state), batch)
        early = model.epoch(state.step).done < config.entropy_epochs
        known, label = state.extra["prototypes"], batch["label"]
        there = {m: batch["present"][m] & c.known[label] for m, c in known.items()}

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            log_q = {m: prototypes.log_similarities(c, out.features[m]) for m, c in known.items()}
            of_label = {m: jnp.take_along_axis(x, label[:, None], axis=-1)[:, 0] for m, x in log_q.items()}
            scores = {m: jnp.where(anyone(model, there[m]), model.mean(jnp.exp(x), there[m]), state.extra["scores"][m])
                      for m, x in of_label.items()}
            slow, fast = rebalance(scores, config.weights)
            near = sum(slow[m] * model.mean(-x, there[m]) for m, x in of_label.items())
            entropy = sum(fast[m] * model.mean(-jnp.sum(jnp.exp(x) * x, axis=-1), there[m])
                          for m, x in log_q.items())
            return {"fused": model.mean(model.task.loss(out.outputs["fused"], label)),
                    "prototypes": config.alpha * near,
                    "entropy": -config.mu * jnp.where(early, entropy, 0.0)}, (out, scores, slow)

        losses, (out, scores, slow), grads = gradients(model, state.params, loss_fn)
        extra = {"prototypes": known, "scores": scores}
        if config.prototypes == "running":
            extra["prototypes"] = moved(state, batch | {"features": out.features}, model.sum)
        state, metrics = finish_step(model, state, batch, losses, out, grads, extra=extra)
        return state, metrics | {f"weight/{m}": w for m, w in slow.items()}

    def end_epoch(state, features_of):
        return state._replace(extra=state.extra | {"prototypes": moved(state, features_of("train", config.share))})

    return Method(init, step, make_predict(model), make_features(model),
                  end_epoch=end_epoch if config.prototypes == "epoch" else None)


def rebalance(scores: Mapping[str, chex.Array], weights: str = "ratio"
              ) -> tuple[dict[str, chex.Array], dict[str, chex.Array]]:
    """(w_m, v_m) by modality from scores s_m = mean q_m[y] in [0, 1], 0 for one that has none yet.

    w_m = clip(max_k s_k / s_m - 1, 0, 1) or, if "binary", 1 where it is above 0. v_m is the largest of them
    for the modality of the largest score, 0 for the others. They carry no gradient.
    """
    s = jax.lax.stop_gradient(jnp.stack([*scores.values()]))
    ahead = jnp.where(s > 0, s.max() / jnp.where(s > 0, s, 1.0) - 1, 0.0)
    slow = jnp.where(ahead > 0, 1.0, 0.0) if weights == "binary" else jnp.clip(ahead, 0.0, 1.0)
    fast = jnp.where((s == s.max()) & (s > 0), slow.max(), 0.0)
    return dict(zip(scores, slow)), dict(zip(scores, fast))
