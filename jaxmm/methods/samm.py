"""SAMM: semantic-aware multimodal continual learning (arXiv 2405.02766).

Its relational distance is in `jaxmm.losses.relational`, its dynamic inference in
`jaxmm.heads.fusion`.
"""
from dataclasses import dataclass

import chex
import jax.numpy as jnp
import optax

from jaxmm.config import dependent, scalar
from jaxmm.errors import check_at_least, check_choice
from jaxmm.heads.fusion import confidence_weighted, confidences
from jaxmm.losses.distillation import mean_squared_error
from jaxmm.losses.relational import angle_loss, distance_loss
from jaxmm.keys import named_key
from jaxmm.methods.common import (Method, finish_step, gradients, init_state, make_features, make_predict,
                                  only, split_gradients, step_key)
from jaxmm.methods.continual import (MemoryConfig, check_memory, concatenate, init_memory,
                                     over_memory, remember, sample_past, with_nme)
from jaxmm.methods.fusion import modality_loss, with_all_heads
from jaxmm.model import Model
from jaxmm.state import calibration, replay
from jaxmm.task import Task, likelihood, need_classes


@dataclass
class SAMMConfig(MemoryConfig):
    """Semantic-aware multimodal continual learning (arXiv 2405.02766)."""
    name: str = "samm"
    lambda_: float = scalar(0.01)   # weight of the unimodal terms, >= 0
    beta: float = scalar(25.0, alignment=("logits", "features"))    # weight of the alignment between
                                    # modalities, >= 0
    gamma: float = scalar(1.0)      # weight of the consistency with stored logits, >= 0
    alignment: str = "logits"       # what is aligned: "logits", "features", or "none"
    relation: str = dependent("distance", alignment=("logits", "features"))     # what alignment compares:
                                    # "distance" or "angle"
    consistency: bool = True        # add the consistency with stored logits
    dynamic: bool = True            # add the head "dynamic", calibrated on the memory
    gradient_ratios: bool = False   # record how the gradients of alignment and cross-entropy compare at each
                                    # encoder; steps take 2 to 4 times as long


RELATIONS = {"distance": distance_loss, "angle": angle_loss}


def make_samm(config: SAMMConfig, model: Model) -> Method:
    """Supervision, alignment and consistency on the current batch and on a replayed one.

    With z_m the logits of modality m's head and z_f those of the fused head::

        sup(z, y)   = CE(z_f, y) + lambda sum_m [CE(z_m, y) + beta mean_{k != m} D(z_m, sg(z_k))]
        cons(z, z*) = MSE(z_f, z*) + lambda sum_m MSE(z_m, z*)
        loss        = sup(current) + sup(replay) + gamma cons(replay)

    D compares the pairwise distances (or angles) between the examples of the batch. z* are stored
    logits, from the step in which the example entered the memory, of the head that is now the most
    confident (see `consistency_target`). The two batches go through the network one after the
    other, each with its own batch statistics, as in the released code. That code replays examples
    without augmentation by accident; here they are augmented afresh.

    At the end of a task one temperature per head is fitted on the memory, for the head "dynamic".

    Raises:
      UserError: an option that does not exist or is out of range, or a memory smaller than the
        batch.
    """
    check_options(config, model)
    model = with_all_heads(config, model)
    encoders = model.encoders
    all_heads = (*encoders, "fused")

    def init(key, batch):
        logits = {h: jnp.zeros(model.task.size) for h in all_heads}
        return init_state(model, key, batch, lambda key, _: {
            "memory": init_memory(config, model, key, batch, logits=logits),
            "temperature": {h: jnp.ones(()) for h in all_heads}})

    def supervised(out, batch, counts):
        """The terms of sup(z, y) over the rows that count."""
        terms = {"fused": model.mean(model.task.loss(out.outputs["fused"], batch["label"]), counts)}
        terms |= {m: config.lambda_ * modality_loss(model, out.outputs, batch, m) for m in encoders}
        if aligned := {"features": out.features, "logits": out.outputs}.get(config.alignment):
            terms["alignment"] = config.lambda_ * (config.beta * sum(
                alignment(m, aligned, batch["present"]) for m in encoders))
        return terms

    def alignment(m, aligned, present):
        """mean_{k != m} D(z_m, sg(z_k)) over the rows that have both, of the global batch.

        A modality k that shares no row with m is left out of the mean.
        """
        distances, count = 0.0, 0
        for k in encoders:
            if k != m:
                a, b, both = model.gather((aligned[m], aligned[k], present[m] & present[k]))
                distances += RELATIONS[config.relation](a, b, both)
                count += both.any().astype(jnp.int32)
        return distances / jnp.maximum(count, 1)

    def consistency(logits, past, counts):
        """cons(z, z*), against the stored logits of the head that is now the most confident."""
        target = consistency_target(model.task, logits, past["logits"], past["label"], past["present"])
        loss = model.mean(mean_squared_error(logits["fused"], target), counts)
        return loss + config.lambda_ * sum(model.mean(
            mean_squared_error(logits[m], target), past["present"][m]) for m in encoders)

    def step(state, batch):
        batch = only(batch, encoders)
        memory, stored, valid = sample_past(config, model, state.extra["memory"], batch)
        key = step_key(state)
        now = model.transform(key, batch)
        past = model.transform(named_key(key, "replayed"), stored)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, now, train=True)
            terms = supervised(out, now, None)
            again = model.run(params, out.batch_stats, past, train=True)
            terms |= {f"replayed/{name}": x for name, x in supervised(again, past, valid).items()}
            if config.consistency:
                terms["consistency"] = config.gamma * consistency(again.outputs, past, valid)
            return terms, out._replace(batch_stats=again.batch_stats)

        losses, out, grads = gradients(model, state.params, loss_fn)
        metrics = losses | (alignment_ratios(model, state.params, loss_fn, losses)
                            if config.gradient_ratios else {})
        memory = remember(model, memory, batch | {"logits": out.outputs})
        return finish_step(model, state, batch, metrics, out, grads,
                           extra=state.extra | {"memory": memory},
                           present=concatenate(now["present"], past["present"]))

    static_predict = make_predict(model)

    def predict(state, batch):
        logits = static_predict(state, batch)
        if not config.dynamic:
            return logits
        present = head_present(batch["present"], encoders)
        return logits | {"dynamic": confidence_weighted(logits, state.extra["temperature"], present)}

    def end_task(state):
        """Temperature by head, fitted on the filled part of the memory in evaluation mode."""
        memory = state.extra["memory"]
        logits = over_memory(static_predict, state, memory.storage, model.batch_size)
        present = head_present(memory.storage["present"], encoders)
        temperature = {h: calibration.fit_temperature(
            logits[h], memory.storage["label"], replay.filled(memory) & present[h])
            for h in all_heads}
        return state._replace(extra=state.extra | {"temperature": temperature})

    def weights(state, outputs, present):
        return confidences({h: outputs[h] for h in all_heads}, state.extra["temperature"],
                           head_present(present, encoders))

    return with_nme(config, model, Method(
        init, step, predict, make_features(model), weights=weights if config.dynamic else None,
        end_task=end_task if model.task.name == "classification" else None))


def alignment_ratios(model: Model, params, loss_fn, losses) -> dict[str, chex.Array]:
    """How strongly alignment pulls at each encoder beside cross-entropy: "gradient_ratio/MODALITY".

    It is the norm of the gradient of all alignment terms with respect to the encoder's parameters over that of
    all cross-entropies (of every head, current and replayed, with their weights); NaN where the latter is 0.

    Args:
      model: its batch may be spread over devices.
      params: by parameter group.
      loss_fn: params -> (terms of the loss by name, aux).
      losses: "loss" and its terms, as `gradients` gives them.
    """
    terms = [name.removeprefix("loss/") for name in losses if name.startswith("loss/")]
    aligned = [name for name in terms if name.endswith("alignment")]
    _, _, grads = split_gradients(model, params, loss_fn, {
        "alignment": aligned, "cross_entropy": [t for t in terms if t not in (*aligned, "consistency")]})
    ratios = {}
    for m in model.encoders:
        over, under = (optax.tree.norm(grads[part][m]) for part in ("alignment", "cross_entropy"))
        ratios[f"gradient_ratio/{m}"] = jnp.where(under > 0, over / jnp.where(under > 0, under, 1.0), jnp.nan)
    return ratios


def consistency_target(task: Task, outputs, stored, labels, present):
    """z* [B, K]: for each example, the stored output of the head that now gives y most probability.

    Args:
      task: defines the probability of the label, see `jaxmm.task.likelihood`.
      outputs: [B, K] by head, now.
      stored: [B, K] by head, kept when the examples entered the memory.
      labels: [B, ...].
      present: bool [B] by modality; a head without its modalities is not picked.
    """
    names = list(outputs)
    usable = head_present(present, [h for h in names if h != "fused"])
    confidence = jnp.stack([jnp.where(usable[h], likelihood(task, outputs[h], labels), -1.0)
                            for h in names])
    kept = jnp.stack([stored[h] for h in names])
    return jnp.take_along_axis(kept, confidence.argmax(0)[None, :, None], 0)[0]


def head_present(present, modalities):
    """bool [B] by head: an example that lacks a modality has neither its head nor the fused one."""
    own = {m: present[m] for m in modalities}
    return own | {"fused": jnp.stack(list(own.values())).all(0)}


def check_options(config: SAMMConfig, model: Model) -> None:
    """Raises UserError for an option that is unknown or out of range."""
    check_memory(config, model)
    if config.dynamic:
        need_classes(model.task, "the calibrated head \"dynamic\"",
                     "set --config.method.dynamic=false")
    check_choice("method.alignment", config.alignment, ("logits", "features", "none"))
    check_choice("method.relation", config.relation, RELATIONS)
    for option in ("lambda_", "beta", "gamma"):
        check_at_least(f"method.{option}", getattr(config, option), 0)
