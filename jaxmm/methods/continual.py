"""Baselines of continual learning: fine-tuning and experience replay (SAMM, arXiv 2405.02766).

On a stream that learns all tasks at once (`stream.joint`) `sgd` is the upper bound "joint".
"""
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import chex
import jax
import jax.numpy as jnp

from jaxmm.errors import UserError, check_at_least
from jaxmm.heads import concatenate as concatenate_features
from jaxmm.keys import named_key
from jaxmm.methods.common import (Method, TrainState, finish_step, first_of_each, gradients, init_state,
                                  make_features, make_joint, make_predict, only, step_key)
from jaxmm.methods.fusion import FusedConfig, with_all_heads, with_fused_head
from jaxmm.model import Model
from jaxmm.state import class_means, replay, seen
from jaxmm.task import need_classes


@dataclass
class SGDConfig(FusedConfig):
    """Cross-entropy of a fused head; on a stream of tasks, fine-tuning."""
    name: str = "sgd"
    fusion: str = "film"
    lambda_: float = 0.0            # weight of the same loss on a linear head of each modality; 0: none


@dataclass
class MemoryConfig(SGDConfig):
    """What methods with a replay memory share."""
    capacity: int = 500             # examples the memory holds
    capacity_bytes: int = 0         # bytes the memory takes at most, in place of capacity; 0: capacity counts
    balanced: bool = False          # replay all classes equally often; off: all examples
    replay_batch: int = 0           # examples replayed in a step; 0: as many as new ones
    nme: bool = False               # add the head "nme": the nearest mean of the classes in the memory


@dataclass
class ERConfig(MemoryConfig):
    """Experience replay: `sgd` on the current batch and on a batch from a memory."""
    name: str = "er"
    align: bool = False             # when a task ends its classes get weights as large as the old ones (WA)


def make_sgd(config: SGDConfig, model: Model) -> Method:
    """Cross-entropy of the fused head on the current batch alone: the lower bound of the benchmark.

    Raises:
      UserError: an unknown fusion, or an option out of range.
    """
    model = chosen_model(config, model)
    return make_joint(model, lambda outputs, batch: by_head(
        config, model, lambda head: model.task.loss(outputs[head], batch["label"]), batch["present"]))


def make_er(config: ERConfig, model: Model) -> Method:
    """Experience replay: CE(z_f, y) over the current batch and a replay batch from memory.

    Both go through the network in one pass. The memory holds examples before augmentation, and
    replayed ones are augmented afresh. The replay batch has `config.replay_batch` examples over all
    devices, by default as many as the current one. With `config.align` see `align_head`.

    Raises:
      UserError: an unknown fusion, an option out of range, or a memory smaller than the
        replay batch.
    """
    model = chosen_model(config, model)
    check_memory(config, model)
    if config.align:
        check_align(config.fusion, model)

    def init(key, batch):
        known = {"seen": seen.init(model.task.size)} if config.align else {}
        return init_state(model, key, batch, lambda key, _: {
            "memory": init_memory(config, model, key, batch)} | known)

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
            return by_head(config, model, lambda head: model.task.loss(out.outputs[head], both["label"]),
                           both["present"], counts), out

        losses, out, grads = gradients(model, state.params, loss_fn)
        now = jax.tree.map(lambda z: z[:rows], out.outputs)
        extra = state.extra | {"memory": remember(model, memory, batch)}
        if config.align:
            extra |= {"seen": seen.update(extra["seen"], batch["label"], axis_name=model.axis_name)}
        return finish_step(model, state, batch, losses, out._replace(outputs=now), grads,
                           extra=extra, present=both["present"])

    def end_task(state):
        state = align_head(model, state)
        return state._replace(extra=state.extra | {"seen": seen.next_task(state.extra["seen"])})

    return with_nme(config, model, Method(init, step, make_predict(model), make_features(model),
                                          end_task=end_task if config.align else None))


def chosen_model(config: SGDConfig, model: Model) -> Model:
    """The model with the fused head that the config names; with a linear head for each modality if their losses
    count.

    Raises:
      UserError: an unknown fusion, or a weight of these losses below 0.
    """
    check_at_least("method.lambda_", config.lambda_, 0)
    return (with_all_heads if config.lambda_ else with_fused_head)(config, model)


def heads_of(config: SGDConfig, model: Model) -> tuple[str, ...]:
    """The heads that a loss acts on."""
    return ("fused", *(model.encoders if config.lambda_ else ()))


def by_head(config: SGDConfig, model: Model, loss: Callable[[str], chex.Array],
            present: Mapping[str, chex.Array], counts: chex.Array | None = None, prefix: str = "",
            ) -> dict[str, chex.Array]:
    """The terms of a loss by prefix and head: of the fused head and, times lambda, of each modality's.

    Args:
      config: has lambda.
      model: has the modalities.
      loss: head -> [B], of the examples.
      present: bool [B] by modality, the examples that count for its head.
      counts: bool [B], those that count for the fused head; all by default.
      prefix: of the names.
    """
    terms = {f"{prefix}fused": model.mean(loss("fused"), counts)}
    return terms | {f"{prefix}{m}": config.lambda_ * model.mean(loss(m), present[m])
                    for m in heads_of(config, model)[1:]}


def init_memory(config: MemoryConfig, model: Model, key, batch, **stored) -> replay.ReplayState:
    """An empty memory for examples before augmentation, with an array like each of `stored` per row.

    Raises:
      UserError: its bytes do not hold one replay batch.
    """
    example = jax.tree.map(lambda x: x[0], only(batch, model.encoders)) | stored
    if not config.capacity_bytes:
        return replay.init(config.capacity, example, key)
    size = sum(prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(example))
    capacity = config.capacity_bytes // size
    if capacity < replay_rows(config, model):
        raise UserError(f"method.capacity_bytes={config.capacity_bytes} holds {capacity} examples of {size} "
                        f"bytes, and the replay batch has {replay_rows(config, model)}; raise it, or lower "
                        "train.batch_size or method.replay_batch")
    return replay.init(capacity, example, key)


def replay_rows(config: MemoryConfig, model: Model) -> int:
    """Examples that are replayed in a step, over all devices."""
    return config.replay_batch or model.batch_size


def check_memory(config: MemoryConfig, model: Model) -> None:
    """Raises UserError if the memory cannot hold one replay batch, or cannot be balanced by class."""
    check_at_least("method.replay_batch", config.replay_batch, 0)
    check_at_least("method.capacity_bytes", config.capacity_bytes, 0)
    rows = replay_rows(config, model)
    if config.capacity < rows and not config.capacity_bytes:
        raise UserError(f"method.capacity={config.capacity} is smaller than the replay batch of "
                        f"{rows}; raise it, or lower train.batch_size or method.replay_batch")
    if config.balanced:
        need_classes(model.task, "replay balanced over the classes",
                     "set --config.method.balanced=false")


def sample_past(config: MemoryConfig, model: Model, memory: replay.ReplayState, batch):
    """(memory, replay batch, valid bool [B]); rows that the memory cannot fill have no modality present.

    B is this device's part of the replay batch.

    Raises:
      UserError: the replay batch does not divide over the devices.
    """
    devices = model.batch_size // len(batch["label"])
    rows = replay_rows(config, model)
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


def check_align(fusion: str, model: Model) -> None:
    """Raises UserError if weights to be aligned belong to no class, or their size counts for nothing."""
    need_classes(model.task, "alignment of the classes' weights", "set --config.method.align=false")
    if fusion == "cosine":
        raise UserError("method.align=True gives weights of new classes the size of old ones, which counts for "
                        "nothing with method.fusion=cosine; set --config.method.align=false or another fusion")


def align_head(model: Model, state: TrainState) -> TrainState:
    """The state at the end of a task, its new classes' weights as large as those of the old ones (weight aligning).

    In every linear layer that puts out logits, the kernel's columns of the classes that came first in this task are
    multiplied by the mean norm of the old classes' columns over their own. Biases stay.

    References:
      Zhao et al., "Maintaining discrimination and fairness in class incremental learning", CVPR 2020.
    """
    known, head = state.extra["seen"], state.params["head"]
    for path in model.head.last(head):
        head = changed(head, (*path, "kernel"), functools.partial(
            align_columns, seen.old(known), known.first == known.task))
    return state._replace(params=state.params | {"head": head})


def align_columns(old: chex.Array, new: chex.Array, kernel):
    """A kernel [s, C], or its slices by modality, with columns of `new` classes in the mean size of `old` ones."""
    norms = jnp.sqrt(sum(jnp.sum(x ** 2, axis=0) for x in jax.tree.leaves(kernel)))
    sizes = [jnp.sum(norms * rows) / jnp.maximum(rows.sum(), 1) for rows in (old, new)]
    factor = jnp.where((sizes[0] > 0) & (sizes[1] > 0), sizes[0] / jnp.where(sizes[1] > 0, sizes[1], 1.0), 1.0)
    return jax.tree.map(lambda x: x * jnp.where(new, factor, 1.0), kernel)


def changed(tree, path: tuple[str, ...], fn: Callable):
    """The nested dictionary with fn(part) in place of the part at `path`."""
    return tree | {path[0]: changed(tree[path[0]], path[1:], fn)} if path else fn(tree)


def with_nme(config: MemoryConfig, model: Model, method: Method) -> Method:
    """The method, with the head "nme" if the config asks for it: the class of the nearest mean, see
    `jaxmm.state.class_means`.

    The means are those of the memory at the end of each task, of all features together, in evaluation mode.
    """
    if not config.nme:
        return method
    need_classes(model.task, "the head \"nme\"", "set --config.method.nme=false")

    def init(key, batch):
        state = method.init(key, batch)
        size = sum(h.shape[-1] for h in jax.eval_shape(method.features, state, batch).values())
        return state._replace(extra=state.extra | {"means": class_means.init(model.task.size, size)})

    def predict(state, batch):
        features = concatenate_features(method.features(state, batch))
        return method.predict(state, batch) | {"nme": class_means.outputs(state.extra["means"], features)}

    def end_task(state):
        state = method.end_task(state) if method.end_task else state
        memory = state.extra["memory"]
        features = concatenate_features(over_memory(method.features, state, memory.storage, model.batch_size))
        means = class_means.fit(features, memory.storage["label"], replay.filled(memory), model.task.size)
        return state._replace(extra=state.extra | {"means": means})

    return method._replace(init=init, predict=predict, end_task=end_task)


def over_memory(fn: Callable, state, storage, chunk: int):
    """fn(state, batch) of all slots, computed in chunks: all at once may not fit in memory."""
    compiled = jax.jit(fn)
    slots = len(storage["label"])
    chunk = min(chunk, slots)
    parts = []
    for start in range(0, slots, chunk):
        # All chunks have one shape; the rows that the last one repeats are dropped.
        first = min(start, slots - chunk)
        part = compiled(state, jax.tree.map(lambda x, i=first: x[i:i + chunk], storage))
        parts.append(jax.tree.map(lambda z, skip=start - first: z[skip:], part))
    return jax.tree.map(lambda *z: jnp.concatenate(z), *parts)


def counted(batch) -> chex.Array:
    """bool [B]: the rows of a visit that count, which are those with a modality."""
    return jnp.stack(list(batch["present"].values())).any(0)


def concatenate(a, b):
    """Two batches in one."""
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), a, b)
