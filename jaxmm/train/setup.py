"""What a config decides, built and compiled: everything of a run but its history."""
import dataclasses
import functools
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmm import data
from jaxmm.batch import Batch, Logits, batch_size
from jaxmm.config import AugmentConfig, Config, EncoderConfig, replace
from jaxmm.data.dataset import Dataset, check_split, fingerprint, say
from jaxmm.data.feeding import is_streamed
from jaxmm.data.spec import DataSpec, check_same_form, coarse_map, example, make_spec
from jaxmm.data.streams import Stream, make_stream
from jaxmm.data.transform import Transform, make_transform, normalise, on_host
from jaxmm.encoders import NETWORKS, make_encoder, network_name
from jaxmm.errors import UserError, check_at_least, check_choice, of
from jaxmm.evaluate.predictions import read_rows, row_chunks, score
from jaxmm.evaluate.tasks import score_tasks
from jaxmm.methods import Method, TrainState, check_pairs, make_method, used_modalities
from jaxmm.model import Model
from jaxmm.task import Task, check_labels, make_task, need_classes
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
    dataset: Dataset                # without splits where a run is restored without its data
    spec: DataSpec                  # of the data that the run is, or was, trained on
    task: Task                      # what is predicted
    stream: Stream | None           # the tasks of a continual run
    tasks: list[np.ndarray]         # rows of the training split, by task that is learned
    programs: Programs
    steps_per_call: int
    make_method: Callable[[str | None, Options], Method]    # (axis_name, scalar options)
    obstacle: str                   # why it cannot share a program with other runs; "" if it can
    checksums: dict[str, str]       # by split that is there: `fingerprint` of it with its tasks
    to_float32: Callable[[Batch], Batch]    # rows as the data set has them -> as devices get them

    @property
    def total_steps(self) -> int:
        """Steps of the whole run; 0 for a method that only predicts."""
        return plan.total_steps(lengths(self.spec), self.config.train) if self.programs.steps else 0


class Run(NamedTuple):
    """A run, trained or restored."""
    setup: Setup
    state: TrainState               # on the devices
    history: list[dict[str, Any]]   # evaluations: step, epoch, task, split, scores by head
    changed: tuple[str, ...] = ()   # splits that have changed since; scored anew, see `validity`


def build(config: Config, *, dataset: Dataset | None = None, spec: DataSpec | None = None,
          devices: Sequence[jax.Device] | None = None) -> Setup:
    """Loads the data and compiles the method, touching no file of a run.

    Args:
      config: all options.
      dataset: used in place of the one that `config.data` names.
      spec: what a run has kept of its data, such as its statistics, in place of what `dataset` says.
      devices: to run on; all by default.

    Raises:
      UserError: whatever in the config cannot be run, in one line.
    """
    check_single(config)
    if dataset is None:
        dataset = data.load(config.data, spec and spec.vocabularies)
    elif dataset.splits or spec is None:
        dataset = data.check_dataset(dataset)
    if dataset.splits:
        dataset, stream, tasks = _make_tasks(config, dataset, spec)
        checksums = fingerprint(dataset, stream.tasks if stream else ())
        if spec:
            check_same_form(spec, dataset, stream)
        else:
            spec = make_spec(dataset, stream, tasks, checksums, config.data.preprocess)
    else:
        stream, tasks, checksums = spec.stream, [], {}
    task = make_task(config.task, spec.class_names, example(spec)["label"])
    for split, batch in dataset.splits.items():
        check_labels(split, task, batch["label"])
    for section in ("encoders", "augment"):
        unknown = set(getattr(config, section)) - set(spec.modalities)
        if unknown:
            raise UserError(f"{section}.{min(unknown)}: no such modality in {dataset.name}; "
                            f"expected one of {', '.join(spec.modalities)}")
    rows = lengths(spec)
    plan.check_batch_size(rows, config.train.batch_size)
    if (steps := plan.total_steps(rows, config.train)) > LARGEST:
        raise UserError(f"train.epochs={config.train.epochs} makes {steps} steps; expected at most "
                        f"{LARGEST}")
    if config.train.accumulate > steps:
        raise UserError(f"train.accumulate={config.train.accumulate} makes no update in the {steps} "
                        "steps of this run; expected at most these")
    streamed = bool(dataset.splits) and is_streamed(dataset.splits["train"], config.data.placement)
    if config.train.tensorboard:
        check_tensorboard()
    wide = on_host(spec.forms, spec.norms, config.data.preprocess)
    to_float32 = functools.partial(normalise, norms=wide)
    transform = make_transform({m: norm for m, norm in spec.norms.items() if m not in wide},
                               dict(config.augment), config.data.preprocess)
    ranks = example_ranks(example(spec), transform)
    for m, options in config.augment.items():
        check_augmentation(m, options, 0 if m in spec.num_tokens else ranks[m])
    encoder_configs = {m: config.encoders.get(m, EncoderConfig()) for m in spec.modalities}
    epoch = plan.make_epoch(rows, config.train)

    def make(axis_name, options):
        changed = replace(config, options)
        optimizer = accumulate(make_optimizer(changed.optimizer, config.train.epochs, epoch),
                               config.train.accumulate)
        encoders = {}
        for m, c in encoder_configs.items():
            with of(f"encoders.{m}"):
                encoders[m] = make_encoder(c, ranks[m], num_tokens=spec.num_tokens.get(m, 0),
                                           axis_name=axis_name)
        model = Model(encoders, task, transform, optimizer, epoch,
                      config.train.batch_size, spec.num_examples, axis_name)
        return make_method(changed.method, model)

    programs = make_programs(make, devices, [together.scalar_options(config)], to_float32)
    if stream and not programs.steps:
        raise UserError(f"{config.method.name} trains nothing itself and cannot learn a stream of "
                        "tasks; choose another method, or a config without a stream")
    if config.train.batch_size % programs.num_devices:
        raise UserError(f"train.batch_size={config.train.batch_size} does not divide over "
                        f"{programs.num_devices} devices; choose a multiple of their number")
    convolves = any(
        NETWORKS[network_name(c, ranks[m], spec.num_tokens.get(m, 0))].convolves
        for m, c in encoder_configs.items())
    slow_together = convolves and jax.default_backend() == "cpu"
    obstacle = ("their rows are streamed from the host" if streamed else
                "convolutions over several runs at once are slow on CPU" if slow_together else "")
    steps_per_call = config.train.steps_per_call or (1 if obstacle else SCANNED_STEPS)
    setup = Setup(config, dataset, spec, task, stream, tasks, programs, steps_per_call, make, obstacle,
                  checksums, to_float32)
    size, memory = state_size(setup), memory_size()    # finds shapes that do not fit, too
    if size > memory:
        raise UserError(f"the state of this model takes {size / 2**30:.1f} GiB, more than the "
                        f"{memory / 2**30:.1f} GiB of memory; lower the sizes of the encoders or "
                        "method.capacity")
    return setup


def _make_tasks(config: Config, dataset: Dataset, spec: DataSpec | None,
                ) -> tuple[Dataset, Stream | None, list[np.ndarray]]:
    """The data with the labels to learn, the stream if there is one, and the rows of its tasks."""
    used = used_modalities(config.method, dataset.modalities)
    check_pairs(config.method, dataset.name, dataset.splits["train"])
    if not config.stream.kind:
        tasks = [np.arange(batch_size(dataset.splits["train"]))]
        return dataset, None, rows_with(dataset, used, tasks)
    need_classes(make_task(config.task, dataset.class_names, dataset.splits["train"]["label"]),
                 "a stream of tasks", "use a config without a stream")
    dataset, stream = make_stream(config.stream, dataset, spec and coarse_map(spec))
    tasks = [task.indices["train"] for task in stream.tasks]
    return dataset, stream, rows_with(dataset, used, [np.concatenate(tasks)] if config.stream.joint else tasks)


def lengths(spec: DataSpec) -> list[range]:
    """Something as long as the rows of each task, for what asks for no more."""
    return [range(rows) for rows in spec.rows]


def rows_with(dataset: Dataset, modalities: Sequence[str], tasks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The rows of each task that have one of the modalities; of the rest of every split it is said.

    Raises:
      UserError: a task is left without rows.
    """
    has = {split: np.any([batch["present"][m] for m in modalities], axis=0)
           for split, batch in dataset.splits.items()}
    for split, found in has.items():
        if not found.all():
            say(f"{dataset.name}: {np.sum(~found)} of {len(found)} rows of {split} have none of "
                f"{', '.join(modalities)} and are left out")
    kept = [rows[has["train"][rows]] for rows in tasks]
    for number, rows in enumerate(kept, 1):
        if not len(rows):
            of = f"task {number} of {len(kept)} has" if len(kept) > 1 else f"{dataset.name} has"
            raise UserError(f"{of} no training row with {' or '.join(modalities)}; choose other "
                            "modalities, or fewer tasks")
    return kept


def state_size(setup: Setup) -> int:
    """Bytes of the state of one run on a device."""
    state = jax.eval_shape(lambda: _first_copy(setup))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def memory_size() -> int:
    """Bytes of memory of a device, as far as it tells, else of this machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def build_many(configs: Sequence[Config], *, dataset: Dataset | None = None,
               specs: Sequence[DataSpec | None] = (),
               devices: Sequence[jax.Device] | None = None) -> Iterator[Setup]:
    """`build` for every config; those that differ in their seed alone share what is compiled.

    `specs` are those that runs have kept, if any.
    """
    built = {}
    for config, spec in itertools.zip_longest(configs, specs):
        check_single(config)
        key = (json.dumps(to_dict(replace(config, {"train.seed": 0})), sort_keys=True),
               spec and spec.checksum)
        if key not in built:
            built[key] = build(config, dataset=dataset, spec=spec, devices=devices)
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


def example_ranks(batch: Batch, transform: Transform) -> dict[str, int]:
    """Rank of an example as its encoder gets it, by modality."""
    inputs = jax.eval_shape(lambda batch: transform(None, batch), batch)["inputs"]
    return {m: inputs[m].ndim - 1 for m in sorted(inputs)}


def init_state(setup: Setup) -> TrainState:
    """The state before the first step, on the devices."""
    return setup.programs.place(_first_copy(setup))


def _first_copy(setup):
    wide = on_host(setup.spec.forms, setup.spec.norms, setup.config.data.preprocess)
    return setup.programs.init(setup.config.train.seed,
                               example(setup.spec, dict.fromkeys(wide, np.float32)))


def predict_split(setup: Setup, state: TrainState, split: Batch) -> dict[str, np.ndarray]:
    """Logits [N, C] of every head for a whole split, of the data set or of its form.

    Raises:
      UserError: what is wrong with a split that is none of the data set's, as `check_split` does.
    """
    return _read(setup, state, setup.programs.predict, split)


def split_features(setup: Setup, state: TrainState, split: Batch) -> dict[str, np.ndarray]:
    """Encoder outputs [N, s] by modality for a whole split."""
    return _read(setup, state, setup.programs.features, split)


def split_squeezes(setup: Setup, state: TrainState, split: Batch) -> dict[str, np.ndarray]:
    """What each exchange between encoders hears of a whole split, [N, C] by "STAGE/MODALITY"."""
    return _read(setup, state, setup.programs.squeezes, split)


def predict_block(setup: Setup, state: TrainState, block: Batch, features: bool = False,
                  ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs of the heads and, if asked for, features, for some rows that were checked before.

    However many they are, the compiled programs are the same.
    """
    chunks = row_chunks(batch_size(block), setup.config.train.batch_size)
    feed = setup.programs.feed(block, "host")
    readers = [setup.programs.predict] + [setup.programs.features] * features
    found = [read_rows(lambda feed, index, read=read: read(state, feed, index), feed, batch_size(block),
                       chunks) for read in readers]
    return found[0], found[1] if features else {}


def make_weights(setup: Setup, state: TrainState) -> Callable[[Logits, Mapping], Logits]:
    """weights(outputs, present): what fusion at test time weighs each head with, [B] by head.

    It is empty for methods that fuse without such weights.
    """
    method = setup.make_method(None, together.scalar_options(setup.config))
    if method.weights is None:
        return lambda outputs, present: {}
    state = setup.programs.fetch(state)
    return lambda outputs, present: jax.device_get(method.weights(state, outputs, present))


def _read(setup, state, read, split):
    splits = setup.dataset.splits
    if not any(split is known for known in splits.values()):
        check_split("split", split, setup.spec.forms)
    chunks = row_chunks(batch_size(split), setup.config.train.batch_size)
    feed = setup.programs.feed(split, setup.config.data.placement, chunks)
    return read_rows(lambda feed, index: read(state, feed, index), feed, batch_size(split), chunks)


def score_split(setup: Setup, logits: Logits, split: str) -> dict[str, Any]:
    """"scores" of every head on a split and, on a stream, what `score_tasks` finds."""
    batch = setup.dataset.splits[split]
    scores = {"scores": score(logits, batch, setup.task.scores)}
    return scores | score_tasks(logits, batch, setup.stream, split) if setup.stream else scores
