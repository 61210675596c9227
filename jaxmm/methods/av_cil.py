"""AV-CIL: old and new classes apart, old groups distilled, modalities contrasted (Pian et al., ICCV 2023)."""
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmm import heads, task
from jaxmm.config import scalar
from jaxmm.errors import check_above, check_at_least
from jaxmm.keys import named_key
from jaxmm.losses import normalize
from jaxmm.losses.contrastive import contrast
from jaxmm.methods import common, continual
from jaxmm.state import seen


@dataclass
class AVCILConfig(continual.MemoryConfig):
    """Audio-visual class-incremental learning (AV-CIL), for any modalities."""
    name: str = "av_cil"
    balanced: bool = True
    temperature: float = 2.0        # T of the distillation, > 0
    tau: float = 0.05               # temperature of the contrast between modalities, > 0
    lam_i: float = scalar(0.5)      # weight of the contrast of examples, >= 0
    lam_c: float = scalar(1.0)      # weight of the contrast of classes, >= 0
    positives: bool = True          # the contrast of classes is a mean over positives, as in the paper; off: its
                                    # sum over them is divided by the number of rows, as released


def make_av_cil(config: AVCILConfig, model: common.Model) -> common.Method:
    """CE(z, y; side of y) + sum_t T^2 KL(z*[G_t] || z[G_t]) + lam_i I + lam_c K, on the current batch and on a
    replayed one together.

    The softmax of an example is over the classes of its label's side: those of earlier tasks, or those of this one.
    G_t are the classes that first came in the earlier task t, z* [B, C] the logits of the network as the last task
    left it, softened by T. With g_m the normalised features, for each pair of modalities m < k and the rows i that
    have both, I = mean_i -log softmax_j(g_m,i . g_k,j / tau)[i] and K = mean_i mean_{j: y_j = y_i} of the same; both
    are means over the pairs. In the first task there is the cross-entropy alone. With `config.lambda_`
    cross-entropy and distillation act on the head of each modality, too. What the paper distils of attention over
    patches is left out.

    Raises:
      UserError: an option out of range, a task without classes, or features of different widths.
    """
    task.need_classes(model.task, "av_cil, which tells old classes from new ones,", "use er or derpp")
    for option in ("temperature", "tau"):
        check_above(f"method.{option}", getattr(config, option), 0)
    for option in ("lam_i", "lam_c"):
        check_at_least(f"method.{option}", getattr(config, option), 0)
    model = continual.chosen_model(config, model)
    continual.check_memory(config, model)
    pairs = list(itertools.combinations(model.encoders, 2))

    def init(key, batch):
        def extra(key, widths):
            heads.common_width(widths, "av_cil contrasts modalities, which needs")
            return {"memory": continual.init_memory(config, model, key, batch)}

        state = common.init_state(model, key, batch, extra)
        return remember(state, seen.init(model.task.size))

    def remember(state, known):
        return state._replace(extra=state.extra | {"seen": known, "old": (state.params, state.batch_stats)})

    def step(state, batch):
        batch = common.only(batch, model.encoders)
        memory, past, valid = continual.sample_past(config, model, state.extra["memory"], batch)
        known = seen.update(state.extra["seen"], batch["label"], axis_name=model.axis_name)
        key = common.step_key(state)
        past = model.transform(named_key(key, "replayed"), past)
        both = continual.concatenate(model.transform(key, batch), past)
        rows = len(batch["label"])
        counts = jnp.concatenate([jnp.ones(rows, bool), valid])
        before = model.run(*state.extra["old"], both, train=False).outputs
        later = known.task > 0

        def loss_fn(params):
            out = model.run(params, state.batch_stats, both, train=True)
            terms = continual.by_head(config, model, lambda head: model.task.loss(
                seen.restrict(out.outputs[head], seen.own_side(known, both["label"])), both["label"]),
                both["present"], counts)
            terms |= continual.by_head(config, model, lambda head: jnp.where(later, group_divergence(
                out.outputs[head], before[head], known, config.temperature), 0.0),
                both["present"], counts, "distillation/")
            if pairs:
                examples, classes = (sum(x) / len(pairs) for x in zip(*(
                    contrasts(out.features, *pair) for pair in pairs)))
                terms |= {"examples": jnp.where(later, config.lam_i * examples, 0.0),
                          "classes": jnp.where(later, config.lam_c * classes, 0.0)}
            return terms, out

        def contrasts(features, m, k):
            """I and K of a pair of modalities."""
            pair = both["present"][m] & both["present"][k]      # which rows of an empty memory have not
            own, other = normalize(features[m]), normalize(features[k])
            theirs, labels, there = model.gather((other, both["label"], pair))
            place = model.first_row(len(pair)) + jnp.arange(len(pair))
            itself = place[:, None] == jnp.arange(len(labels))
            alike = both["label"][:, None] == labels
            divide = None if config.positives else jnp.maximum(there.sum(), 1)
            return (model.mean(contrast(own, theirs, itself, there, config.tau), pair),
                    model.mean(contrast(own, theirs, alike, there, config.tau, divide=divide), pair))

        losses, out, grads = common.gradients(model, state.params, loss_fn)
        out = out._replace(outputs=jax.tree.map(lambda z: z[:rows], out.outputs))
        return common.finish_step(
            model, state, batch, losses, out, grads, present=both["present"], extra=state.extra | {
                "memory": continual.remember(model, memory, batch), "seen": known})

    return continual.with_nme(config, model, common.Method(
        init, step, common.make_predict(model), common.make_features(model),
        end_task=lambda state: remember(state, seen.next_task(state.extra["seen"]))))


def group_divergence(logits, old_logits, known, temperature):
    """sum_t T^2 KL(softmax(z*[G_t] / T) || softmax(z[G_t] / T)) [B] over the groups G_t of old classes."""
    old_logits = jax.lax.stop_gradient(old_logits)
    new, old = (grouped_log_softmax(z / temperature, known.first) for z in (logits, old_logits))
    terms = jnp.where(seen.old(known), jnp.exp(old) * (old - new), 0.0)
    return temperature ** 2 * terms.sum(1)


def grouped_log_softmax(logits, group):
    """log softmax [B, C] of logits [B, C] among the classes of the same group, int [C]."""
    first = jnp.argmax(group[:, None] == group, axis=1)     # class of the group, which stands for it
    columns = logits.T
    top = jax.lax.stop_gradient(jax.ops.segment_max(columns, first, len(group)))
    total = jax.ops.segment_sum(jnp.exp(columns - top[first]), first, len(group))
    return (columns - top[first] - jnp.log(total[first])).T
