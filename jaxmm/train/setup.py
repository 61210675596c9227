"""What a config decides, built and compiled: everything of a run but its history."""
import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmm import data
from jaxmm.batch import Batch, Logits, batch_size, take
from jaxmm.config import AugmentConfig, Config, EncoderConfig, replace
from jaxmm.data.dataset import Dataset, check_split, fingerprint
from jaxmm.data.feeding import is_streamed
from jaxmm.data.streams import Stream, make_stream
from jaxmm.data.transform import (Transform, make_transform, normalisation, normalise,
                                  on_host)
from jaxmm.encoders import CONVOLUTIONAL, make_encoder
from jaxmm.errors import UserError, check_at_least, check_choice, of
from jaxmm.evaluate.predictions import read_rows, row_chunks, score
from jaxmm.evaluate.tasks import score_tasks
from jaxmm.methods import Components, Method, TrainState, make_method
from jaxmm.train import plan, together
from jaxmm.train.devices import Options, Programs, make_programs
from jaxmm.train.optimizers import accumulate, make_optimizer
from jaxmm.train.runs import to_dict
from jaxmm.train.writers import check_tensorboard

LARGEST = 2**31 - 1     # whole number: steps, rows and seeds are int32 on the devices
FLOAT32 = np.finfo(np.float32)
MOST = {"seeds": 1000, "workers": 1024, "depth": 100}      # more is taken for a mistake
MOST_PREPROCESS = {"rate": 10**6, "seconds": 86400, "n_fft": 2**20, "mels": 2**14, "columns": 10**6,
                   "frames": 10**5, "height": 2**14, "width": 2**14, "size": 2**14, "length": 10**6}
SCANNED_STEPS = 32      # longest chunk where steps are scanned; a signal waits for its end


class Setup(NamedTuple):
    """Everything that a config decides, built and compiled."""
    config: Config
    dataset: Dataset
    stream: Stream | None           # the tasks of a continual run
    tasks: list[np.ndarray]         # rows of the training split, by task that is learned
    programs: Programs
    steps_per_call: int
    make_method: Callable[[str | None, Options], Method]    # (axis_name, scalar options)
    obstacle: str                   # why it cannot share a program with other runs; "" if it can
    checksums: dict[str, str]       # by split: `fingerprint` of the data set with its tasks
    to_float32: Callable[[Batch], Batch]    # rows as the data set has them -> as devices get them

    @property
    def total_steps(self) -> int:
        """Steps of the whole run; 0 for a method that only predicts."""
        return plan.total_steps(self.tasks, self.config.train) if self.programs.steps else 0


class Run(NamedTuple):
    """A run, trained or restored."""
    setup: Setup
    state: TrainState               # on the devices
    history: list[dict[str, Any]]   # evaluations: step, epoch, task, split, scores by head
    changed: tuple[str, ...] = ()   # splits that have changed since; scored anew, see `validity`


def build(config: Config, *, dataset: Dataset | None = None,
          devices: Sequence[jax.Device] | None = None) -> Setup:
    """Loads the data and compiles the method, touching no file of a run.

    Args:
      config: all options.
      dataset: used in place of the one that `config.data` names.
      devices: to run on; all by default.

    Raises:
      UserError: whatever in the config cannot be run, in one line.
    """
    check_single(config)
    dataset = data.load(config.data) if dataset is None else data.check_dataset(dataset)
    stream = None
    if config.stream.kind:
        dataset, stream = make_stream(config.stream, dataset)
    train = dataset.splits["train"]
    for section in ("encoders", "augment"):
        unknown = set(getattr(config, section)) - set(dataset.modalities)
        if unknown:
            raise UserError(f"{section}.{min(unknown)}: no such modality in {dataset.name}; "
                            f"expected one of {', '.join(dataset.modalities)}")
    tasks = [task.indices["train"] for task in stream.tasks] if stream else []
    if config.stream.joint or not tasks:
        tasks = [np.concatenate(tasks) if tasks else np.arange(batch_size(train))]
    plan.check_batch_size(tasks, config.train.batch_size)
    if (steps := plan.total_steps(tasks, config.train)) > LARGEST:
        raise UserError(f"train.epochs={config.train.epochs} makes {steps} steps; expected at most "
                        f"{LARGEST}")
    if config.train.accumulate > steps:
        raise UserError(f"train.accumulate={config.train.accumulate} makes no update in the {steps} "
                        "steps of this run; expected at most these")
    streamed = is_streamed(train, config.data.placement)
    if config.train.tensorboard:
        check_tensorboard()
    norms = normalisation(train, config.data.preprocess)
    wide = on_host(train, norms, config.data.preprocess)
    to_float32 = functools.partial(normalise, norms=wide)
    transform = make_transform({m: norm for m, norm in norms.items() if m not in wide},
                               dict(config.augment), config.data.preprocess)
    ranks = example_ranks(to_float32(take(train, np.zeros(1, int))), transform)
    for m, options in config.augment.items():
        check_augmentation(m, options, 0 if m in dataset.num_tokens else ranks[m])
    encoder_configs = {m: config.encoders.get(m, EncoderConfig()) for m in dataset.modalities}
    epoch = plan.make_epoch(tasks, config.train)

    def make(axis_name, options):
        changed = replace(config, options)
        optimizer = accumulate(make_optimizer(changed.optimizer, config.train.epochs, epoch),
                               config.train.accumulate)
        encoders = {}
        for m, c in encoder_configs.items():
            with of(f"encoders.{m}"):
                encoders[m] = make_encoder(c, ranks[m], num_tokens=dataset.num_tokens.get(m, 0),
                                           axis_name=axis_name)
        components = Components(encoders, dataset.num_classes, transform, optimizer, epoch,
                                config.train.batch_size, int(train["id"].max()) + 1)
        return make_method(changed.method, components, axis_name=axis_name)

    programs = make_programs(make, devices, [together.scalar_options(config)], to_float32)
    if stream and not programs.steps:
        raise UserError(f"{config.method.name} trains nothing itself and cannot learn a stream of "
                        "tasks; choose another method, or a config without a stream")
    if config.train.batch_size % programs.num_devices:
        raise UserError(f"train.batch_size={config.train.batch_size} does not divide over "
                        f"{programs.num_devices} devices; choose a multiple of their number")
    convolves = any(c.name in CONVOLUTIONAL or (c.name == "auto" and ranks[m] > 1)
                    for m, c in encoder_configs.items())
    slow_together = convolves and jax.default_backend() == "cpu"
    obstacle = ("their rows are streamed from the host" if streamed else
                "convolutions over several runs at once are slow on CPU" if slow_together else "")
    steps_per_call = config.train.steps_per_call or (1 if obstacle else SCANNED_STEPS)
    checksums = fingerprint(dataset, stream.tasks if stream else ())
    setup = Setup(config, dataset, stream, tasks, programs, steps_per_call, make, obstacle,
                  checksums, to_float32)
    size, memory = state_size(setup), memory_size()    # finds shapes that do not fit, too
    if size > memory:
        raise UserError(f"the state of this model takes {size / 2**30:.1f} GiB, more than the "
                        f"{memory / 2**30:.1f} GiB of memory; lower the sizes of the encoders or "
                        "method.capacity")
    return setup


def state_size(setup: Setup) -> int:
    """Bytes of the state of one run on a device."""
    state = jax.eval_shape(lambda: _first_copy(setup))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def memory_size() -> int:
    """Bytes of memory of a device, as far as it tells, else of this machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def build_many(configs: Sequence[Config], *, dataset: Dataset | None = None,
               devices: Sequence[jax.Device] | None = None) -> Iterator[Setup]:
    """`build` for every config; those that differ in their seed alone share what is compiled."""
    built = {}
    for config in configs:
        check_single(config)
        key = json.dumps(to_dict(replace(config, {"train.seed": 0})), sort_keys=True)
        if key not in built:
            built[key] = build(config, dataset=dataset, devices=devices)
        yield built[key]._replace(config=config)


def find_obstacle(setups: Sequence[Setup]) -> str:
    """Why one program cannot train these runs; "" if it can."""
    obstacle = together.obstacle([setup.config for setup in setups]) or setups[0].obstacle
    steps = {tuple(plan.steps_per_epoch(task, setup.config.train.batch_size)
                   for task in setup.tasks) for setup in setups}
    if len(setups) > 1 and len(setups) * state_size(setups[0]) > memory_size():
        obstacle = obstacle or "the memory does not hold all at once"
    return obstacle or ("their tasks take different numbers of steps" if len(steps) > 1 else "")


def join(setups: Sequence[Setup], devices: Sequence[jax.Device] | None = None) -> Setup:
    """The setup of the first run, with programs that train all of them at once."""
    options = [together.scalar_options(setup.config) for setup in setups]
    programs = make_programs(setups[0].make_method, devices, options, setups[0].to_float32)
    return setups[0]._replace(programs=programs)


def check_augmentation(modality: str, options: AugmentConfig, rank: int) -> None:
    """Raises UserError for augmentation out of range, or that examples of this rank cannot take.

    Vectors (rank 1) take only noise, and texts (rank 0) nothing.
    """
    for name, value in dataclasses.asdict(options).items():
        check_at_least(f"augment.{modality}.{name}", value, 0)
        if value and (rank == 0 or (rank == 1 and name != "noise")):
            takes = "vectors, which take only noise" if rank else "texts, which take none of it"
            raise UserError(f"augment.{modality}.{name}={value}: {modality} has {takes}")


def check_counts(config: Config) -> None:
    """Raises UserError for seeds, counts and choices that are out of range, and numbers that are none."""
    _check_numbers("", to_dict(config))
    for section, name, least in (("data", "seed", 0), ("data", "workers", 0), ("stream", "seed", 0),
                                 ("train", "seed", 0), ("train", "epochs", 1), ("train", "batch_size", 1),
                                 ("train", "steps_per_call", 0), ("train", "seeds", 1),
                                 ("train", "eval_epochs", 1),
                                 ("train", "checkpoint_epochs", 1), ("train", "keep_checkpoints", 1)):
        check_at_least(f"{section}.{name}", getattr(getattr(config, section), name), least)
    last = config.train.seed + config.train.seeds - 1
    if last > LARGEST:
        raise UserError(f"train.seeds={config.train.seeds} reaches the seed {last}; expected at most "
                        f"{LARGEST}")
    check_choice("train.on_save_error", config.train.on_save_error, ("stop", "continue"))


def _check_numbers(path: str, value: Any) -> None:
    """Raises UserError for a number in nested options that is not finite, or absurd."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            _check_numbers(f"{path}.{name}" if path else name, part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            _check_numbers(path, part)
    elif isinstance(value, (int, float)):
        name = path.rpartition(".")[2]
        most = MOST.get(name, LARGEST if isinstance(value, int) else float(FLOAT32.max))
        if path.startswith("data.preprocess."):
            most = MOST_PREPROCESS.get(name, most)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path}={value}; expected a finite number")
        if value > most:
            raise UserError(f"{path}={value}; expected at most {most}")
        if 0 < abs(value) < FLOAT32.tiny:
            raise UserError(f"{path}={value} is 0 in float32; expected 0, or at least "
                            f"{FLOAT32.tiny:.2g}")


def check_single(config: Config) -> None:
    """Raises UserError for what `check_counts` finds, and for the config of several runs."""
    check_counts(config)
    if config.train.seeds > 1:
        raise UserError(f"train.seeds={config.train.seeds} is for launch.train; give "
                        "launch.compare --seeds, and functions a config for each seed")


def example_ranks(example: Batch, transform: Transform) -> dict[str, int]:
    """Rank of an example as its encoder gets it, by modality; of a batch as devices get it."""
    inputs = jax.eval_shape(lambda batch: transform(None, batch), example)["inputs"]
    return {m: inputs[m].ndim - 1 for m in sorted(inputs)}


def init_state(setup: Setup) -> TrainState:
    """The state before the first step, on the devices."""
    return setup.programs.place(_first_copy(setup))


def _first_copy(setup):
    example = setup.to_float32(take(setup.dataset.splits["train"], np.zeros(2, int)))
    return setup.programs.init(setup.config.train.seed, example)


def predict_split(setup: Setup, state: TrainState, split: Batch) -> dict[str, np.ndarray]:
    """Logits [N, C] of every head for a whole split, of the data set or of its form.

    Raises:
      UserError: what is wrong with a split that is none of the data set's, as `check_split` does.
    """
    return _read(setup, state, setup.programs.predict, split)


def split_features(setup: Setup, state: TrainState, split: Batch) -> dict[str, np.ndarray]:
    """Encoder outputs [N, s] by modality for a whole split."""
    return _read(setup, state, setup.programs.features, split)


def _read(setup, state, read, split):
    splits = setup.dataset.splits
    if not any(split is known for known in splits.values()):
        check_split("split", split, splits["train"])
    chunks = row_chunks(batch_size(split), setup.config.train.batch_size)
    feed = setup.programs.feed(split, setup.config.data.placement, chunks)
    return read_rows(lambda feed, index: read(state, feed, index), feed, batch_size(split), chunks)


def score_split(setup: Setup, logits: Logits, split: str) -> dict[str, Any]:
    """"scores" of every head on a split and, on a stream, what `score_tasks` finds."""
    batch = setup.dataset.splits[split]
    scores = {"scores": score(logits, batch)}
    return scores | score_tasks(logits, batch, setup.stream, split) if setup.stream else scores
