"""The one place that compiles a method and maps it over devices.

On one device the step is jitted, on several it is pmapped: the state is replicated, every device
takes its slice of the global batch, and methods reduce over the axis `AXIS`. Callers see whole
batches and do not know how many devices there are.
"""
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import jax_utils

from jaxmm.batch import Batch, check_batch, take
from jaxmm.errors import UserError, check_choice
from jaxmm.methods.common import Method, TrainState, identity

AXIS = "devices"
STREAM_ABOVE_BYTES = 2**31      # a split larger than this is streamed by placement="auto"

# feed(index [K, B]) -> (rows, positions in them): what the compiled functions gather batches from.
Feed = Callable[[np.ndarray], tuple[Any, Any]]


class Programs(NamedTuple):
    """A method, compiled over devices. States in and out are placed on them; see `fetch`."""
    init: Callable[[int, Batch], TrainState]        # (seed, example batch)
    steps: Callable[[TrainState, Feed, np.ndarray], tuple[TrainState, dict]]  # index [K, B]
    predict: Callable[[TrainState, Feed, np.ndarray], dict]                   # index [B]
    features: Callable[[TrainState, Feed, np.ndarray], dict]                  # index [B]
    end_task: Callable[[TrainState], TrainState]
    feed: Callable[[Batch, str], Feed]              # (split, placement)
    place: Callable[[TrainState], TrainState]       # one copy -> on the devices
    fetch: Callable[[TrainState], TrainState]       # on the devices -> one copy
    num_devices: int


def make_programs(make_method: Callable[[str | None], Method],
                  devices: Sequence[jax.Device] | None = None) -> Programs:
    """Compiles the method that `make_method(axis_name)` builds, over `devices` (default: all)."""
    devices = list(devices or jax.local_devices())
    count = len(devices)
    method = make_method(AXIS if count > 1 else None)

    def mapped(fn, **kwargs):
        if count == 1:
            return jax.jit(fn, **kwargs)
        return jax.pmap(fn, axis_name=AXIS, devices=devices, **kwargs)

    def place(tree):
        return jax.device_put(tree, devices[0]) if count == 1 else jax_utils.replicate(tree, devices)

    def fetch(tree):
        return tree if count == 1 else jax_utils.unreplicate(tree)

    def split_batch(index):
        """[..., B] -> the same on one device, [D, ..., B / D] on several."""
        if index.shape[-1] % count:
            raise UserError(f"a batch of {index.shape[-1]} does not divide over {count} devices; "
                            "choose a multiple of their number (--config.train.batch_size=...)")
        if count == 1:
            return index
        return np.moveaxis(index.reshape(*index.shape[:-1], count, -1), -2, 0)

    def feed(split: Batch, placement: str) -> Feed:
        """Rows in device memory, or streamed from the host: the same batches either way."""
        split = without_full_masks(split)
        if not is_streamed(split, placement):
            rows = place(split)
            return lambda index: (rows, split_batch(index))

        def stream(index):
            index = split_batch(index)
            per_device = index.shape if count == 1 else index.shape[1:]
            position = np.arange(np.prod(per_device), dtype=np.int32).reshape(per_device)
            rows = take(split, index.reshape(-1) if count == 1 else index.reshape(count, -1))
            return rows, position if count == 1 else np.stack([position] * count)

        return stream

    @functools.partial(mapped, donate_argnums=0)
    def compiled_steps(state, rows, index):
        def step(state, index):
            return method.step(state, gather(rows, index))

        # No loop around a single step: convolutions inside loops are slow on CPU.
        if index.shape[0] > 1:
            return jax.lax.scan(step, state, index)
        state, metrics = step(state, index[0])
        return state, jax.tree.map(lambda x: jnp.asarray(x)[None], metrics)

    def steps(state, feed, index):
        state, metrics = compiled_steps(state, *feed(index))
        return state, fetch(metrics)

    def reader(fn):
        compiled = mapped(lambda state, rows, index: fn(state, gather(rows, index)))

        def read(state, feed, index):
            outputs = compiled(state, *feed(index))
            return {name: np.asarray(x).reshape(-1, x.shape[-1]) for name, x in outputs.items()}

        return read

    def end_task(state):
        # On one copy and not compiled as a whole: it happens once a task, over the whole memory.
        return state if method.end_task is identity else place(method.end_task(fetch(state)))

    def init(seed, batch):
        return place(jax.jit(method.init)(jax.random.key(seed), batch))

    return Programs(init, steps, reader(method.predict), reader(method.features),
                    end_task, feed, place, fetch, count)


def is_streamed(split: Batch, placement: str) -> bool:
    """Whether the rows of a split stay on the host: placement "host", or "auto" above 2 GiB.

    Raises:
      UserError: there is no such placement.
    """
    check_choice("data.placement", placement, ("auto", "device", "host"))
    size = sum(x.nbytes for x in jax.tree.leaves(split))
    return placement == "host" or (placement == "auto" and size > STREAM_ABOVE_BYTES)


def without_full_masks(split: Batch) -> Batch:
    """The split without masks that are True everywhere, which `gather` puts back as constants."""
    return split | {"present": {m: p for m, p in split["present"].items() if not p.all()}}


def gather(rows: Batch, index) -> Batch:
    """The batch of the rows at `index` [B], complete again."""
    batch = take(rows, index)
    everywhere = jnp.ones(index.shape, bool)
    batch |= {"present": {m: batch["present"].get(m, everywhere) for m in batch["inputs"]}}
    check_batch(batch, list(batch["inputs"]))
    return batch
