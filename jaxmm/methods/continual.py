"""Baselines of continual learning: fine-tuning and experience replay (SAMM, arXiv 2405.02766).

On a stream that learns all tasks at once (`stream.joint`) `sgd` is the upper bound "joint".
"""
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmm.errors import UserError, check_at_least
from jaxmm.keys import named_key
from jaxmm.methods.common import (Method, finish_step, first_of_each, gradients, init_state,
                                  make_features, make_joint, make_predict, only, step_key)
from jaxmm.methods.fusion import FusedConfig, fused_loss, with_fused_head
from jaxmm.model import Model, select_modalities
from jaxmm.state import replay
from jaxmm.task import need_classes


@dataclass
class SGDConfig(FusedConfig):
    """Cross-entropy of a fused head; on a stream of tasks, fine-tuning."""
    name: str = "sgd"
    fusion: str = "film"
    modalities: str = ""            # names separated by commas; "": all


@dataclass
class ERConfig(SGDConfig):
    """Experience replay: `sgd` on the current batch and on a batch from a memory."""
    name: str = "er"
    capacity: int = 500             # examples the memory holds
    balanced: bool = False          # replay all classes equally often; off: all examples
    replay_batch: int = 0           # examples replayed in a step; 0: as many as new ones


def make_sgd(config: SGDConfig, model: Model) -> Method:
    """Cross-entropy of the fused head on the current batch alone: the lower bound of the benchmark.

    Raises:
      UserError: an unknown modality or fusion.
    """
    model = chosen_model(config, model)
    return make_joint(model, fused_loss(model))


def make_er(config: ERConfig, model: Model) -> Method:
    """Experience replay: CE(z_f, y) over the current batch and a replay batch from memory.

    Both go through the network in one pass. The memory holds examples before augmentation, and
    replayed ones are augmented afresh. The replay batch has `config.replay_batch` examples over all
    devices, by default as many as the current one.

    Raises:
      UserError: an unknown modality or fusion, or a memory smaller than the replay batch.
    """
    model = chosen_model(config, model)
    check_memory(config, model)

    def init(key, batch):
        return init_state(model, key, batch, lambda key, _: {
            "memory": init_memory(config, model, key, batch)})

    def step(state, batch):
        batch = only(batch, model.encoders)
        memory, past, valid = sample_past(config, model, state.extra["memory"], batch)
        key = step_key(state)
        both = concatenate(model.transform(key, batch),
                           model.transform(named_key(key, "replayed"), past))
        rows = len(batch["label"])
        counts = jnp.concatenate([jnp.ones(rows, bool), valid])

        def loss_fn(params):
            out = model.run(params, state.batch_stats, both, train=True)
            return model.mean(model.task.loss(out.outputs["fused"], both["label"]), counts), out

        losses, out, grads = gradients(model, state.params, loss_fn)
        now = jax.tree.map(lambda z: z[:rows], out.outputs)
        memory = remember(model, memory, batch)
        return finish_step(model, state, batch, losses, out._replace(outputs=now), grads,
                           extra={"memory": memory}, present=both["present"])

    return Method(init, step, make_predict(model), make_features(model))


def chosen_model(config: SGDConfig, model: Model) -> Model:
    """The model with the modalities and the fused head that the config names."""
    return with_fused_head(config, select_modalities(model, config.modalities, "method.modalities"))


def init_memory(config: ERConfig, model: Model, key, batch, **stored) -> replay.ReplayState:
    """An empty memory for examples before augmentation, with an array like each of `stored` per row."""
    example = jax.tree.map(lambda x: x[0], only(batch, model.encoders))
    return replay.init(config.capacity, example | stored, key)


def check_memory(config: ERConfig, model: Model) -> None:
    """Raises UserError if the memory cannot hold one replay batch, or cannot be balanced by class."""
    check_at_least("method.replay_batch", config.replay_batch, 0)
    rows = config.replay_batch or model.batch_size
    if config.capacity < rows:
        raise UserError(f"method.capacity={config.capacity} is smaller than the replay batch of "
                        f"{rows}; raise it, or lower train.batch_size or method.replay_batch")
    if config.balanced:
        need_classes(model.task, "replay balanced over the classes",
                     "set --config.method.balanced=false")


def sample_past(config: ERConfig, model: Model, memory: replay.ReplayState, batch):
    """(memory, replay batch, valid bool [B]); rows that the memory cannot fill have no modality present.

    B is this device's part of the replay batch.

    Raises:
      UserError: the replay batch does not divide over the devices.
    """
    devices = model.batch_size // len(batch["label"])
    rows = config.replay_batch or model.batch_size
    if rows % devices:
        raise UserError(f"method.replay_batch={rows} does not divide over {devices} devices; choose "
                        "a multiple of their number")
    memory, past, valid = replay.sample(memory, rows // devices, balanced=config.balanced,
                                        axis_name=model.axis_name)
    present = {m: p & valid for m, p in past["present"].items()}
    return memory, past | {"present": present}, valid


def remember(model: Model, memory: replay.ReplayState, batch) -> replay.ReplayState:
    """The memory after a batch was added, without rows that repeat another one."""
    return replay.add(memory, batch, first_of_each(model, batch["id"]), axis_name=model.axis_name)


def concatenate(a, b):
    """Two batches in one."""
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), a, b)
