"""Baselines of continual learning: fine-tuning and experience replay (SAMM, arXiv 2405.02766).

On a stream of one task `sgd` is the upper bound "joint".
"""
import jax
import jax.numpy as jnp

from jaxmm.config import ERConfig, SGDConfig
from jaxmm.errors import UserError
from jaxmm.losses.classification import cross_entropy
from jaxmm.methods.common import (Components, Method, finish_step, gradients, identity, init_state,
                                  make_features, make_joint, make_predict, only, select_modalities,
                                  step_key)
from jaxmm.methods.fusion import fused_cross_entropy, fused_head
from jaxmm.state import replay


def make_sgd(config: SGDConfig, components: Components, *,
             axis_name: str | None = None) -> Method:
    """Cross-entropy of the fused head on the current batch alone: what forgets most."""
    components = select_modalities(components, config.modalities, "method.modalities")
    return make_joint(components, fused_head(config, components), fused_cross_entropy(axis_name),
                      axis_name=axis_name)


def make_er(config: ERConfig, components: Components, *, axis_name: str | None = None) -> Method:
    """Experience replay: CE(z_f, y) over the current batch and one of the same size from memory.

    Both go through the network in one pass. The memory holds examples as they come, before
    augmentation, and replayed ones are augmented afresh. Their `id` says which task they came with.

    Raises:
      UserError: a modality or fusion that does not exist, or a memory smaller than the batch.
    """
    components = select_modalities(components, config.modalities, "method.modalities")
    head = fused_head(config, components)
    check_capacity(config, components)

    def init(key, batch):
        return init_state(components, head, key, batch, lambda key, _: {
            "memory": replay.init(config.capacity, example(batch), key)})

    def example(batch):
        return jax.tree.map(lambda x: x[0], only(batch, components.encoders))

    def step(state, batch):
        batch = only(batch, components.encoders)
        memory, past, valid = sample_past(config, state.extra["memory"], batch, axis_name)
        now_key, past_key = jax.random.split(step_key(state))
        both = concatenate(components.transform(now_key, batch),
                           components.transform(past_key, past))
        weights = jnp.concatenate([jnp.ones_like(valid), valid])

        loss, out, grads = gradients(
            components, head, state, both,
            lambda out: cross_entropy(out.logits["fused"], both["label"], weights, axis_name),
            axis_name=axis_name)
        now = jax.tree.map(lambda z: z[:len(valid)], out.logits)
        return finish_step(components, state, batch, loss, out._replace(logits=now), grads,
                           extra={"memory": replay.add(memory, batch, axis_name=axis_name)},
                           axis_name=axis_name)

    return Method(init, step, make_predict(components, head), make_features(components), identity)


def check_capacity(config: ERConfig, components: Components) -> None:
    """Raises UserError if the memory cannot hold one replay batch."""
    if config.capacity < components.batch_size:
        raise UserError(f"method.capacity={config.capacity} is smaller than the replay batch of "
                        f"{components.batch_size}; raise it, or lower train.batch_size")


def sample_past(config: ERConfig, memory: replay.ReplayState, batch, axis_name: str | None):
    """(memory, replay batch, valid bool [B]): rows that the memory does not fill are not present."""
    memory, past, valid = replay.sample(memory, len(batch["label"]), balanced=config.balanced,
                                        axis_name=axis_name)
    present = {m: p & valid for m, p in past["present"].items()}
    return memory, past | {"present": present}, valid


def concatenate(a, b):
    """Two batches in one."""
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), a, b)
