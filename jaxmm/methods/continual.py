"""Baselines of continual learning: fine-tuning and experience replay (SAMM, arXiv 2405.02766).

On a stream of one task `sgd` is the upper bound "joint".
"""
import jax
import jax.numpy as jnp

from jaxmm import heads
from jaxmm.config import ERConfig, SGDConfig
from jaxmm.errors import UserError, check_choice
from jaxmm.losses.classification import cross_entropy
from jaxmm.methods.common import (Components, Method, apply_gradients, encode_all, head_accuracy,
                                  identity, init_state, make_features, make_joint,
                                  make_predict, only, pmean, select_modalities, step_key)
from jaxmm.methods.fusion import fused_cross_entropy
from jaxmm.state import replay


def fused_head(config: SGDConfig, components: Components) -> heads.Head:
    """The head `config.fusion`; one linear layer if there is only one modality."""
    check_choice("method.fusion", config.fusion, heads.FUSIONS)
    fusion = "concat" if len(components.encoders) == 1 else config.fusion
    return heads.FUSIONS[fusion](components.num_classes)


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

        def loss(params):
            features, batch_stats = encode_all(components.encoders, params, state.batch_stats,
                                               both, train=True)
            logits = head.apply(params["head"], features)
            value = cross_entropy(logits["fused"], both["label"], weights, axis_name)
            return value, (logits, batch_stats)

        (value, (logits, batch_stats)), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        now = jax.tree.map(lambda z: z[:len(valid)], logits)
        metrics = {"loss": pmean(value, axis_name)} | head_accuracy(now, batch, axis_name)
        state = apply_gradients(components, state, pmean(grads, axis_name))
        return state._replace(batch_stats=batch_stats, step=state.step + 1, extra={
            "memory": replay.add(memory, batch, axis_name=axis_name)}), metrics

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
