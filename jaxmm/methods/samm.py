"""SAMM: semantic-aware multimodal continual learning (arXiv 2405.02766).

The paper names no equations; `../losses/relational.py` and `../evaluate/fusion.py` hold its
relational distance and its dynamic inference.
"""
import jax
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.config import SAMMConfig
from jaxmm.errors import check_at_least, check_choice
from jaxmm.evaluate.fusion import confidence_weighted
from jaxmm.losses.classification import cross_entropy, mean_squared_error
from jaxmm.losses.relational import angle_loss, distance_loss
from jaxmm.methods.common import (Components, Method, apply_gradients, encode_all,
                                  head_accuracy, init_state, make_features, make_predict, only, pmean, select_modalities,
                                  step_key)
from jaxmm.methods.continual import check_capacity, fused_head, sample_past
from jaxmm.state import calibration, replay

RELATIONS = {"distance": distance_loss, "angle": angle_loss}


def make_samm(config: SAMMConfig, components: Components, *,
              axis_name: str | None = None) -> Method:
    """Supervision, alignment and consistency on the current batch and on a replayed one.

    With z_m the logits of modality m's head and z_f those of the fused head::

        sup(z, y)   = CE(z_f, y) + lambda sum_m [CE(z_m, y) + beta mean_{k != m} D(z_m, sg(z_k))]
        cons(z, z*) = MSE(z_f, z*) + lambda sum_m MSE(z_m, z*)
        loss        = sup(current) + sup(replay) + gamma cons(replay)

    D compares how the examples of the batch lie to each other. z* are the logits that the most
    confident head had when the example entered the memory. The two batches go through the network
    one after the other, each with batch statistics of its own, as in the released code. That code
    replays examples unaugmented by accident; here they are augmented afresh.

    At the end of a task one temperature per head is fitted on the memory, for the head "dynamic".

    Raises:
      UserError: an option that does not exist or is out of range, or a memory smaller than the
        batch.
    """
    components = select_modalities(components, config.modalities, "method.modalities")
    check_options(config, components)
    encoders = components.encoders
    head = heads.with_unimodal_heads(fused_head(config, components), components.num_classes)
    all_heads = (*encoders, "fused")

    def init(key, batch):
        example = jax.tree.map(lambda x: x[0], only(batch, encoders))
        example |= {"logits": {h: jnp.zeros(components.num_classes) for h in all_heads}}
        return init_state(components, head, key, batch, lambda key, _: {
            "memory": replay.init(config.capacity, example, key),
            "temperature": {h: jnp.ones(()) for h in all_heads}})

    def forward(params, batch_stats, batch):
        features, batch_stats = encode_all(encoders, params, batch_stats, batch, train=True)
        return features, head.apply(params["head"], features), batch_stats

    def supervised(features, logits, batch, weights):
        """sup(z, y): rows of weight 0 do not count."""
        loss = cross_entropy(logits["fused"], batch["label"], weights, axis_name)
        aligned = {"features": features, "logits": logits}.get(config.alignment)
        for m in encoders:
            unimodal = cross_entropy(logits[m], batch["label"], batch["present"][m], axis_name)
            if aligned:
                unimodal += config.beta * alignment(m, aligned, batch["present"])
            loss += config.lambda_ * unimodal
        return loss

    def alignment(m, aligned, present):
        """mean_{k != m} D(z_m, sg(z_k)) over the rows that have both, of the global batch."""
        others = [k for k in encoders if k != m]
        distances = [RELATIONS[config.relation](*gather_rows(
            (aligned[m], aligned[k], present[m] & present[k]), axis_name)) for k in others]
        return sum(distances) / max(len(others), 1)

    def consistency(logits, past, weights):
        """cons(z, z*), against the stored logits of the head that is now the most confident."""
        target = consistency_target(logits, past["logits"], past["label"], past["present"])
        loss = mean_squared_error(logits["fused"], target, weights, axis_name)
        return loss + config.lambda_ * sum(
            mean_squared_error(logits[m], target, past["present"][m], axis_name) for m in encoders)

    def step(state, batch):
        batch = only(batch, encoders)
        memory, stored, valid = sample_past(config, state.extra["memory"], batch, axis_name)
        now_key, past_key = jax.random.split(step_key(state))
        now = components.transform(now_key, batch)
        past = components.transform(past_key, stored)

        def loss(params):
            features, logits, batch_stats = forward(params, state.batch_stats, now)
            value = supervised(features, logits, now, jnp.ones(valid.shape))
            past_features, past_logits, batch_stats = forward(params, batch_stats, past)
            value += supervised(past_features, past_logits, past, valid)
            if config.consistency:
                value += config.gamma * consistency(past_logits, past, valid)
            return value, (logits, batch_stats)

        (value, (logits, batch_stats)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        metrics = {"loss": pmean(value, axis_name)} | head_accuracy(logits, batch, axis_name)
        state = apply_gradients(components, state, pmean(grads, axis_name))
        memory = replay.add(memory, batch | {"logits": logits}, axis_name=axis_name)
        return state._replace(batch_stats=batch_stats, step=state.step + 1,
                              extra=state.extra | {"memory": memory}), metrics

    static_predict = make_predict(components, head)

    def predict(state, batch):
        logits = static_predict(state, batch)
        if not config.dynamic:
            return logits
        present = head_present(batch["present"], encoders)
        return logits | {"dynamic": confidence_weighted(logits, state.extra["temperature"], present)}

    def end_task(state):
        """Temperature by head, fitted on the filled part of the memory in evaluation mode."""
        memory = state.extra["memory"]
        logits = predict_memory(static_predict, state, memory.storage, components.batch_size)
        present = head_present(memory.storage["present"], encoders)
        temperature = {h: calibration.fit_temperature(
            logits[h], memory.storage["label"], replay.filled(memory) & present[h])
            for h in all_heads}
        return state._replace(extra=state.extra | {"temperature": temperature})

    return Method(init, step, predict, make_features(components), end_task)


def gather_rows(tree, axis_name: str | None):
    """The rows [B, ...] of all devices: relations are those of the global batch."""
    return tree if axis_name is None else jax.lax.all_gather(tree, axis_name, tiled=True)


def consistency_target(logits, stored, labels, present):
    """z* [B, C]: by example, the stored logits of the head that now gives y most probability.

    Args:
      logits: [B, C] by head, now.
      stored: [B, C] by head, kept when the examples entered the memory.
      labels: [B].
      present: bool [B] by modality; a head without its modalities is not picked.
    """
    names = list(logits)
    usable = head_present(present, [h for h in names if h != "fused"])
    confidence = jnp.stack([jnp.where(usable[h], jnp.take_along_axis(
        jax.nn.softmax(logits[h]), labels[:, None], 1)[:, 0], -1.0) for h in names])
    kept = jnp.stack([stored[h] for h in names])
    return jnp.take_along_axis(kept, confidence.argmax(0)[None, :, None], 0)[0]


def head_present(present, modalities):
    """bool [B] by head: a missing modality drops its own head and the fused one."""
    own = {m: present[m] for m in modalities}
    return own | {"fused": jnp.stack(list(own.values())).all(0)}


def predict_memory(predict, state, storage, chunk: int):
    """Logits by head for every slot, chunk by chunk: all slots at once may not fit."""
    compiled = jax.jit(predict)
    slots = len(storage["label"])
    parts = []
    for start in range(0, slots, chunk):
        # One shape for all chunks; the overlap of the last one is cut off again.
        first = min(start, slots - chunk)
        part = compiled(state, jax.tree.map(lambda x, i=first: x[i:i + chunk], storage))
        parts.append(jax.tree.map(lambda z, skip=start - first: z[skip:], part))
    return jax.tree.map(lambda *z: jnp.concatenate(z), *parts)


def check_options(config: SAMMConfig, components: Components) -> None:
    """Raises UserError for an option that does not exist or is out of range."""
    check_capacity(config, components)
    check_choice("method.alignment", config.alignment, ("logits", "features", "none"))
    check_choice("method.relation", config.relation, RELATIONS)
    for option in ("lambda_", "beta", "gamma"):
        check_at_least(f"method.{option}", getattr(config, option), 0)
