"""Compiles a method and maps it over runs and devices.

On one device the step is jitted, on several it is pmapped: the state is replicated, every device
takes its slice of the global batch, and the model reduces over the axis `AXIS`. Callers see whole
batches and need not know the number of devices or hosts. Each process holds the state of its local
devices, feeds them their slices, and gets the whole outputs.

Several runs of one program have a leading run axis S in their state. Every device computes all of
them; or, if their number is a multiple of the number of devices, the runs are spread over the devices,
each with its whole batch.

Scalar options, such as the learning rate, and the steps of each task enter what is compiled as arrays, so
that other values need no new compilation.
"""
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import jax_utils

from jaxmm.batch import Batch, check_batch, take
from jaxmm.config import MethodConfig
from jaxmm.data.feeding import is_streamed, read_ahead, read_all
from jaxmm.errors import UserError
from jaxmm.methods.common import Method, Progress, TrainState

AXIS = "devices"
CPU_OPTIONS = {
    # XLA's newer library takes convolutions but runs those of few channels on one core; it keeps products and sums.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    # What depends on parameters alone is made when it is needed, not at the start of a step, and kept no longer.
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}

Fed = tuple[Any, Any]           # (rows, positions in them): what compiled functions gather batches from
Options = Mapping[str, Any]     # values of scalar options by path: optimizer.learning_rate, ...; and arrays by name


class Feed(NamedTuple):
    """The rows of a split for the compiled functions: the same batches whether they lie in device
    memory or are streamed from the host.

    `through` yields the items of a sequence, whose first part is an index, each with the rows at that
    index. Streamed rows are read ahead, and the loop runs ahead of the devices, so copies to the devices
    overlap with steps.
    """
    at: Callable[[np.ndarray], Fed]     # the rows at an index, now
    through: Callable[[Sequence[tuple]], Iterator[tuple[tuple, Fed]]]


class Programs(NamedTuple):
    """A method, compiled over devices, for one run or for S of them.

    States in and out are placed on the devices; see `fetch`. For several runs, "one copy" of their
    state has a leading axis [S], index is [K, S, B], metrics are [K, S] and logits [B, S, C].
    """
    init: Callable[[int, Batch], TrainState]        # (seed, example batch) -> one copy of one run
    steps: Callable[..., tuple[TrainState, dict]] | None    # (state, rows at [K, B], phase="")
    memory: Callable[..., int]      # of the same arguments: bytes that `steps` takes on a device, its arguments
    # and results included; 0 if the compiler does not say
    predict: Callable[[TrainState, Fed], dict]              # rows at [B]
    features: Callable[[TrainState, Fed], dict]             # rows at [B]
    squeezes: Callable[[TrainState, Fed], dict] | None      # rows at [B]
    ready: Callable[[TrainState], TrainState]       # before predictions for many batches, see `Method`
    phase: Callable[[Progress], str]
    begin: Callable[[TrainState], TrainState] | None    # of one run's copy
    end_epoch: Callable[[TrainState, Callable], TrainState] | None  # features_of(split, share, run) -> Batch
    survey: Callable[[TrainState, Fed, np.ndarray], TrainState] | None
    visit: Callable[[TrainState, Fed, np.ndarray], TrainState] | None
    # (state, rows at [1, B], bool [1, B]: rows that count)
    end_task: Callable[[TrainState], TrainState]
    feed: Callable[..., Feed]       # (split, placement, workers=0, masks=False); with masks one program reads
    # splits whatever is missing in them, otherwise a mask that is True everywhere is a constant
    place: Callable[[TrainState], TrainState]       # one copy -> on the devices
    fetch: Callable[[TrainState], TrainState]       # on the devices -> one copy
    num_devices: int
    num_runs: int
    teachers: Mapping[str, MethodConfig]            # of the method
    teach: Callable[[TrainState, Mapping[str, TrainState]], TrainState] | None  # of one run's copies
    distils: bool                                   # see `Method`
    bind: Callable[[Sequence[Options]], "Programs"]     # these programs, not compiled again, for as many other runs


def make_programs(make_method: Callable[[str | None, Options], Method],
                  devices: Sequence[jax.Device] | None, options: Sequence[Options],
                  to_float32: Callable[[Batch], Batch]) -> Programs:
    """Compiles the method that `make_method(axis_name, options)` builds.

    Args:
      make_method: the options given to it replace those of its config.
      devices: to run on; None: all.
      options: of each run.
      to_float32: split -> the same with numbers that float32 holds, before rows go to the devices.
    """
    devices = list(devices or sorted(jax.devices(), key=lambda d: (d.process_index, d.id)))
    local = [d for d in devices if d.process_index == jax.process_index()]
    own = slice(devices.index(local[0]), devices.index(local[0]) + len(local))
    count, num_runs = len(devices), len(options)
    spread = len(local) == count > 1 and num_runs > 1 and num_runs % count == 0
    axis_name = AXIS if count > 1 and not spread else None
    mesh = jax.sharding.Mesh(np.array(devices), (AXIS,))
    map_runs = map_in_turn if devices[0].platform == "cpu" else jax.vmap

    def mapped(fn, run_axes, out_axes, **kwargs):
        """fn(state, rows, index, options) over the runs, if there are several, and the devices."""
        if num_runs > 1:
            fn = map_runs(fn, run_axes, out_axes)
        if count == 1:
            return jit_whole(fn, devices[0].platform, **kwargs)
        return jax.pmap(fn, axis_name=AXIS, devices=devices, **kwargs)

    def replicate(tree):
        if count == 1:
            return jax.device_put(tree, devices[0])
        # From the host: arrays of a device would be stacked there by a program for every shape.
        return jax_utils.replicate(jax.device_get(tree), local)

    def place(tree):
        if not spread:
            return replicate(tree)
        sharding = jax.NamedSharding(mesh, jax.P(AXIS))
        return jax.tree.map(lambda x: jax.device_put(
            x.reshape(count, -1, *x.shape[1:]), sharding), tree)

    def fetch(tree, run_axis=0):
        if count == 1:
            return tree
        return merge_runs(tree, run_axis) if spread else jax_utils.unreplicate(tree)

    parts = functools.partial(parts_of, count=count, own=own, spread=spread)

    def feed(split: Batch, placement: str, workers: int = 0, masks: bool = False) -> Feed:
        streamed = is_streamed(split, placement)
        split = to_float32(split) if masks else without_full_masks(to_float32(split))
        if not streamed:
            rows = replicate(read_all(split))

            def at(index):
                return rows, parts(index)

            return Feed(at, lambda order: ((item, at(item[0])) for item in order))

        def put(index, rows):
            if count == 1:
                return rows, np.arange(index.size, dtype=np.int32).reshape(index.shape)
            shape = parts(index).shape[1:]
            position = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
            rows = jax.tree.map(lambda x: x.reshape(len(local), -1, *x.shape[1:]), rows)
            return rows, np.stack([position] * len(local))

        def through(order):
            rows_of = functools.partial(first_parts, count=count, own=own, spread=spread)
            for item, rows in read_ahead(split, order, rows_of, workers):
                yield item, put(item[0], rows)

        return Feed(lambda index: put(index, take(split, parts(index).ravel())), through)

    def run_steps(phase, state, rows, index, options):
        step_fn = make_method(axis_name, options).step
        step_fn = step_fn[phase] if isinstance(step_fn, Mapping) else step_fn

        def step(state, index):
            return step_fn(state, gather(rows, index))

        # No loop around a single step: convolutions inside loops are slow on CPU.
        if index.shape[0] > 1:
            return jax.lax.scan(step, state, index)
        state, metrics = step(state, index[0])
        return state, jax.tree.map(lambda x: jnp.asarray(x)[None], metrics)

    @functools.cache
    def compiled_steps(phase):
        return mapped(functools.partial(run_steps, phase), (0, None, 1, 0), (0, 1),
                      donate_argnums=0)

    def visit(name, state, rows, index, counts, options):
        batch = gather(rows, index[0])
        present = {m: p & counts[0] for m, p in batch["present"].items()}
        return getattr(make_method(axis_name, options), name)(state, batch | {"present": present})

    def read(name, state, rows, index, options):
        outputs = getattr(make_method(axis_name, options), name)(state, gather(rows, index))
        if axis_name:
            outputs = jax.lax.all_gather(outputs, axis_name, tiled=True)
        return outputs

    compiled_visits = {name: mapped(functools.partial(visit, name), (0, None, 1, 1, 0), 0, donate_argnums=0)
                       for name in ("survey", "visit")}
    compiled_reads = {name: mapped(functools.partial(read, name), (0, None, None, 0), 1)
                      for name in ("predict", "features", "squeezes")}
    compiled_ready = mapped(lambda state, options: make_method(axis_name, options).ready(state), (0, 0), 0)
    compiled_init = jax.jit(lambda key, batch, options: make_method(axis_name, options).init(key, batch))

    def bind(options):
        methods = [make_method(axis_name, o) for o in options]
        method = methods[0]     # of the same functions as the others, with other options
        arrays = [{path: jnp.asarray(value) if isinstance(value, np.ndarray) else jnp.float32(value)
                   for path, value in o.items()} for o in options]
        values = place(stack(arrays))

        def steps_of(phase):
            step = method.step
            return compiled_steps(phase or (next(iter(step)) if isinstance(step, Mapping) else ""))

        def steps(state, fed, phase=""):
            state, metrics = steps_of(phase)(state, *fed, values)
            return state, fetch(metrics, run_axis=1)

        def memory(state, fed, phase=""):
            # What is compiled here is what `steps` calls then.
            found = steps_of(phase).lower(state, *fed, values).compile().memory_analysis()
            return found and (found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
                              + found.temp_size_in_bytes) or 0

        def visitor(name):
            return getattr(method, name) and (
                lambda state, fed, counts: compiled_visits[name](state, *fed, parts(counts), values))

        def reader(name):
            return getattr(method, name) and (
                lambda state, fed: fetch(compiled_reads[name](state, *fed, values), run_axis=1))

        def ready(state):
            return compiled_ready(state, values) if method.ready else state

        def on_copies(fn, state):
            """fn(method, copy of its run's state, number of the run), not compiled as a whole.

            What it returns is copied: the same array may stand in it twice, and steps donate their
            state.
            """
            copies = unstack(fetch(state), num_runs)
            new = [jax.tree.map(jnp.copy, fn(own_method, copy, i))
                   for i, (own_method, copy) in enumerate(zip(methods, copies))]
            return place(stack(new))

        def end_task(state):
            # It happens once a task, over a whole memory.
            if method.end_task is None:
                return state
            return on_copies(lambda method, copy, i: method.end_task(copy), state)

        def end_epoch(state, features_of):
            return on_copies(lambda method, copy, i: method.end_epoch(
                copy, lambda split, share=1.0: features_of(split, share, i)), state)

        def begin(state):
            return jax.tree.map(jnp.copy, method.begin(state))      # see `on_copies`

        def init(seed, batch):
            return compiled_init(jax.random.key(seed), batch, arrays[0])

        return Programs(
            init, steps if method.step else None, memory, reader("predict"), reader("features"), reader("squeezes"),
            ready, method.phase or (lambda progress: ""), method.begin and begin, method.end_epoch and end_epoch,
            visitor("survey"), visitor("visit"), end_task, feed, place, fetch, count, num_runs, method.teachers,
            method.teach, method.distils, bind)

    return bind(options)


def jit_whole(fn: Callable, platform: str, **kwargs) -> Callable:
    """`jax.jit` with the `compiler_options` of a platform; also within another program, which is compiled with its own.

    Like `jax.jit` it can be lowered.
    """
    options, part = compiler_options(platform), jax.jit(fn, **kwargs)
    if not options:
        return part
    whole = jax.jit(fn, compiler_options=options, **kwargs)

    def call(*args):
        # JAX refuses options for a part of a program.
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args))
        return (part if traced else whole)(*args)

    call.lower = whole.lower
    return call


@functools.cache
def compiler_options(platform: str) -> dict[str, str]:
    """What XLA is told to compile a step with, of `CPU_OPTIONS` what this version of it knows."""
    if platform != "cpu":
        return {}

    def known(name):
        try:
            jax.jit(lambda x: x, compiler_options={name: CPU_OPTIONS[name]}).lower(np.float32(0)).compile()
        except jax.errors.JaxRuntimeError:
            return False
        return True

    return {name: value for name, value in CPU_OPTIONS.items() if known(name)}


def map_in_turn(fn: Callable, in_axes: Sequence[int | None], out_axes: int | tuple[int, ...]):
    """Like `jax.vmap`, but one run after the other, so every run gets the same bits as alone.

    On CPU, where batched products of several runs gain nothing, this is as fast.
    """
    def mapped(*args):
        own = [jax.tree.map(lambda x, axis=axis: jnp.moveaxis(x, axis, 0), arg)
               for arg, axis in zip(args, in_axes) if axis is not None]

        def call(own):
            rest = iter(own)
            return fn(*[arg if axis is None else next(rest) for arg, axis in zip(args, in_axes)])

        def move(axis, outputs):
            return jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis), outputs)

        return jax.tree.map(move, out_axes, jax.lax.map(call, own))

    return mapped


def stack(states: Sequence[TrainState]) -> TrainState:
    """One copy of the state of several runs; that of a single run has no run axis."""
    return states[0] if len(states) == 1 else jax.tree.map(lambda *x: jnp.stack(x), *states)


def unstack(state: TrainState, num_runs: int) -> list[TrainState]:
    """The inverse of `stack`."""
    if num_runs == 1:
        return [state]
    return [jax.tree.map(lambda x, i=i: x[i], state) for i in range(num_runs)]


def merge_runs(tree, axis: int):
    """[D, ..., S / D, ...] -> [..., S, ...] with the runs at `axis`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, axis).reshape(
        *x.shape[1:axis + 1], -1, *x.shape[axis + 2:]), tree)


def parts_of(index: np.ndarray, count: int, own: slice, spread: bool) -> np.ndarray:
    """The parts of an index [..., B] for each of the D devices `own` among `count`.

    For one device it is unchanged; for several it is [D, ..., B / count]. If runs are spread over the
    devices, an index [K, S, B] is split by run instead, and an index [B] shared by them is repeated.
    """
    if count == 1:
        return index
    if spread and index.ndim == 1:
        return np.stack([index] * count)
    if spread:
        return np.moveaxis(index.reshape(len(index), count, -1, index.shape[-1]), 1, 0)
    if index.shape[-1] % count:
        raise UserError(f"a batch of {index.shape[-1]} does not divide over {count} devices; "
                        "choose a multiple of their number (--config.train.batch_size=...)")
    return np.moveaxis(index.reshape(*index.shape[:-1], count, -1), -2, 0)[own]


def first_parts(item: tuple, count: int, own: slice, spread: bool) -> np.ndarray:
    """`parts_of` an item's index, in one row; at module level because it is pickled for workers."""
    return parts_of(item[0], count, own, spread).ravel()


def without_full_masks(split: Batch) -> Batch:
    """The split without masks that are True everywhere; `gather` restores them as constants."""
    return split | {"present": {m: p for m, p in split["present"].items() if not p.all()}}


def gather(rows: Batch, index) -> Batch:
    """The batch of the rows at `index` [B], complete again."""
    batch = take(rows, index)
    everywhere = jnp.ones(index.shape, bool)
    batch |= {"present": {m: batch["present"].get(m, everywhere) for m in batch["inputs"]}}
    check_batch(batch, list(batch["inputs"]))
    return batch
