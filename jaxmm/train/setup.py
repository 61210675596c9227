"""Everything that a config decides about a run, built and compiled."""
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmm import data
from jaxmm.batch import Batch, batch_size
from jaxmm.config import Config, EncoderConfig, PreprocessConfig, TextConfig, replace, scalar_options
from jaxmm.data.dataset import Dataset, fingerprint, say
from jaxmm.data.feeding import check_streaming, count_pixels, device_memory, is_streamed, place_training
from jaxmm.data.spec import DataSpec, check_same_form, coarse_map, example, make_spec, to_json
from jaxmm.data.streams import Stream, balanced_rows, make_stream
from jaxmm.data.text import check_encoder
from jaxmm.data.transform import Dense, Transform, make_transform, normalise, on_host
from jaxmm.encoders import NETWORKS, make_encoder, network_name
from jaxmm.encoders.transformer import STYLES
from jaxmm.errors import UserError, check_choice, of, suggest
from jaxmm.methods import METHODS, check_pairs, check_rows, make_method, say_idle, used_modalities
from jaxmm.methods.common import Method, TrainState
from jaxmm.model import Model
from jaxmm.pretrained import load
from jaxmm.task import (DENSE, Task, check_labels, make_task, median_frequency, need_classes, with_smoothing,
                        with_weights)
from jaxmm.train import experts, plan
from jaxmm.train.optimizers import PLATEAU, accumulate, by_encoder, make_optimizer, make_schedule
from jaxmm.train.options import LARGEST, check_augmentation, check_single
from jaxmm.train.programs import Options, Programs, make_programs
from jaxmm.train.scores import waits_in_vain
from jaxmm.train.views import make_views, over_views

MEDIAN_FREQUENCY = "median_frequency"
TIMES = "times"         # name of the steps of each task among the options of programs, see `plan.timetable`
SCANNED_STEPS = 32      # longest chunk of scanned steps; a signal takes effect at its end


class Setup(NamedTuple):
    """A run without its state and history."""
    config: Config
    dataset: Dataset                # without splits where a run is restored without its data
    spec: DataSpec                  # of the data that the run is, or was, trained on
    task: Task                      # what is predicted
    stream: Stream | None           # the tasks of a continual run
    tasks: list[np.ndarray]         # rows of the training split, by task that is learned
    programs: Programs
    steps_per_call: int
    make_model: Callable[[str | None, Options], Model]      # (axis_name, scalar options) -> without a head
    make_method: Callable[[str | None, Options], Method]    # of the same
    obstacle: str                   # why it cannot share a program with other runs; "" if it can
    checksums: dict[str, str]       # by available split: its `fingerprint`, tasks included
    shapes: dict[str, tuple[int, ...]]      # of an example as its encoder gets it, by modality
    to_float32: Callable[[Batch], Batch]    # rows as the data set has them -> as devices get them
    learning_rate: Callable[[int], Any]     # by number of steps, without the factor of "plateau"

    @property
    def total_steps(self) -> int:
        """Steps of the whole run; 0 for a method that only predicts."""
        return plan.total_steps(lengths(self.spec), self.config.train) if self.programs.steps else 0

    @property
    def options(self) -> Options:
        """The values that enter its programs as arrays."""
        return _options(self.config, self.spec)


class Run(NamedTuple):
    """A run, trained or restored."""
    setup: Setup
    state: TrainState               # on the devices
    history: list[dict[str, Any]]   # evaluations: step, epoch, task, split, scores by head
    changed: tuple[str, ...] = ()   # splits that have changed since; scored again, see `validity`

    @property
    def finished(self) -> bool:
        """Whether it has been trained to the end."""
        return is_finished(self.setup, self.history)


def is_finished(setup: Setup, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run with this history is finished: the test evaluation comes last."""
    if setup.stream or "test" not in setup.spec.checksums:
        return bool(history) and (history[-1]["step"] >= setup.total_steps or
                                  waits_in_vain(history, setup.config.train, setup.task))
    return any(record["split"] == "test" for record in history)


def build(config: Config, *, dataset: Dataset | None = None, spec: DataSpec | None = None,
          devices: Sequence[jax.Device] | None = None, like: Setup | None = None) -> Setup:
    """Loads the data and compiles the method, without changing any file of a run.

    Args:
      config: all options.
      dataset: used in place of the one that `config.data` names.
      spec: what a run has kept of its data, such as its statistics, in place of what `dataset` says.
      devices: to run on; all by default.
      like: a setup of a config that differs in seeds alone, on the same devices. What it has compiled is used
        again if the data have the same form.

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
    say_idle(config.method, config.train.epochs)
    config = load.complete(config, kinds(config, spec))
    task = make_task(config.task, spec.class_names, example(spec)["label"], target=spec.target)
    check_dense(config, task)
    for split, batch in dataset.splits.items():
        check_labels(split, task, batch["label"])
    learned = _learned_task(config, task, dataset, tasks)
    experts.check(config, task)
    prior = experts.log_prior(config, task, dataset) if config.train.experts else None
    for section in ("encoders", "augment"):
        unknown = set(getattr(config, section)) - set(spec.modalities)
        if unknown:
            raise UserError(f"{section}.{min(unknown)}: no such modality in {dataset.name}"
                            f"{suggest(min(unknown), spec.modalities)}")
    rows = lengths(spec)
    plan.check_batch_size(rows, config.train.batch_size)
    if (steps := plan.total_steps(rows, config.train)) > LARGEST:
        raise UserError(f"train.epochs={config.train.epochs} makes {steps} steps; expected at most "
                        f"{LARGEST}")
    if config.train.accumulate > steps:
        raise UserError(f"train.accumulate={config.train.accumulate} makes no update in the {steps} "
                        "steps of this run; expected at most these")
    train = dataset.splits.get("train")
    streamed = bool(train) and is_streamed(train, config.data.placement)
    if streamed:
        check_streaming()
        streamed = is_streamed(train, place_training(train, config.data.placement))
    wide = on_host(spec.forms, spec.norms, config.data.preprocess)
    to_float32 = functools.partial(normalise, norms=wide)
    transform = make_transform({m: norm for m, norm in spec.norms.items() if m not in wide},
                               dict(config.augment), config.data.preprocess,
                               Dense(spec.target, config.data.zoom) if spec.target else None)
    shapes = example_shapes(example(spec), transform)
    ranks = {m: len(shape) for m, shape in shapes.items()}
    for m, options in config.augment.items():
        check_augmentation(m, options, 0 if m in spec.num_tokens else ranks[m])
    encoder_configs = {m: config.encoders.get(m, EncoderConfig()) for m in spec.modalities}
    for m, vocabulary in spec.vocabularies.items() if dataset.splits else ():
        c = encoder_configs[m]
        style = STYLES.get((network_name(c, 1, spec.num_tokens[m]), True), STYLES["transformer", True])
        check_encoder(m, config.data.preprocess.get(m, TextConfig()), vocabulary, c.pool or style.pool)
    times, schedule = plan.timetable(rows, config.train), make_schedule(config.optimizer, config.train.epochs)
    views = make_views(config.data)

    def with_scalars(options):
        return replace(config, {path: value for path, value in options.items() if path != TIMES})

    def make_model(axis_name, options):
        changed, epoch = with_scalars(options), plan.epoch_by(options.get(TIMES, times), config.train.epochs)
        optimizer = by_encoder(accumulate(make_optimizer(changed.optimizer, config.train.epochs, epoch),
                                          config.train.accumulate), encoder_configs)
        encoders, made = {}, {}     # what is alike is one object, see `draw_by_name`
        for m, c in encoder_configs.items():
            kind = repr(c), ranks[m], spec.num_tokens.get(m, 0)
            with of(f"encoders.{m}"):
                made[kind] = made.get(kind) or make_encoder(c, ranks[m], num_tokens=spec.num_tokens.get(m, 0),
                                                            axis_name=axis_name)
            encoders[m] = made[kind]
        return Model(encoders, learned, transform, optimizer, epoch,
                     config.train.batch_size, spec.num_examples, config.train.gradient_norm, axis_name)

    def make(axis_name, options):
        method = make_method(with_scalars(options).method, make_model(axis_name, options))
        method, kind = over_views(method, views, task), config.train.experts
        return experts.with_experts(method, kind, prior, spec.modalities) if kind else method

    options = [_options(config, spec)]
    programs = (like.programs.bind(options) if like and _form(like.spec) == _form(spec) else
                make_programs(make, devices, options, to_float32))
    if stream and not programs.steps:
        raise UserError(f"{config.method.name} trains nothing itself and cannot learn a stream of "
                        "tasks; choose another method, or a config without a stream")
    if config.train.batch_size % programs.num_devices:
        raise UserError(f"train.batch_size={config.train.batch_size} does not divide over "
                        f"{programs.num_devices} devices; choose a multiple of their number")
    convolves = METHODS[config.method.name].encodes and any(
        NETWORKS[network_name(c, ranks[m], spec.num_tokens.get(m, 0))].convolves
        for m, c in encoder_configs.items())
    slow_together = convolves and jax.default_backend() == "cpu"
    obstacle = ("train.patience may end each at another epoch" if config.train.patience else
                "their rows are streamed from the host" if streamed else
                "convolutions over several runs at once are slow on CPU" if slow_together else "")
    steps_per_call = config.train.steps_per_call or (1 if obstacle else SCANNED_STEPS)
    if programs.survey:
        obstacle = obstacle or "each chooses its phases by what it finds before its first step"
    setup = Setup(config, dataset, spec, task, stream, tasks, programs, steps_per_call, make_model, make,
                  obstacle, checksums, shapes, to_float32,
                  lambda step: schedule(plan.epoch_by(times, config.train.epochs)(step)))
    check_selection(setup)
    size, memory = state_size(setup), memory_size()    # finds shapes that do not fit, too
    if size > memory:
        raise UserError(f"the state of this model takes {size / 2**30:.1f} GiB, more than the "
                        f"{memory / 2**30:.1f} GiB of memory; lower the sizes of the encoders or "
                        "method.capacity")
    return setup


def _options(config: Config, spec: DataSpec) -> Options:
    """The values of a run that enter its programs as arrays: scalar options, and how long its tasks are."""
    return scalar_options(config) | {TIMES: plan.timetable(lengths(spec), config.train)}


def _form(spec: DataSpec) -> str:
    """What programs of one config depend on of the data, but for `_options`, as JSON.

    Where seeds decide on the data, on streams, neither weights nor a prior of the classes are allowed.
    """
    values = to_json(spec)
    parts = {name: values[name] for name in ("label", "modalities", "num_examples", "target") if name in values}
    return json.dumps(parts | {"classes": len(spec.class_names), "tasks": len(spec.rows)}, sort_keys=True)


def _learned_task(config: Config, task: Task, dataset: Dataset, tasks: Sequence[np.ndarray]) -> Task:
    """The task with the loss that is trained on: smoothed labels, weighted classes."""
    check_choice("train.class_weights", config.train.class_weights, ("", "balanced", MEDIAN_FREQUENCY))
    chosen = ["task.label_smoothing"] * bool(config.task.label_smoothing) + (
        ["train.class_weights"] * bool(config.train.class_weights))
    if chosen and config.stream.kind:
        raise UserError(f"{chosen[0]}: it takes all classes into account, which a stream does not know before "
                        "its end; leave it out, or choose a config without a stream")
    if config.task.label_smoothing:
        task = with_smoothing(task, config.task.label_smoothing)
    if config.train.class_weights and dataset.splits:       # without data nothing is trained
        train = dataset.splits["train"]
        if config.train.class_weights == MEDIAN_FREQUENCY:
            return task._replace(class_weights=jnp.asarray(median_frequency(*count_pixels(
                train["inputs"][dataset.target], tasks[0], task.size))))
        task = with_weights(task, train["label"][tasks[0]])
    return task


def check_dense(config: Config, task: Task) -> None:
    """Raises UserError for options of a segmentation that do not go with it, or are not for other tasks."""
    dense, weights = task.name == DENSE, config.train.class_weights
    if not dense and (config.data.zoom or weights == MEDIAN_FREQUENCY):
        option = f"data.zoom={config.data.zoom}" if config.data.zoom else f"train.class_weights={weights}"
        raise UserError(f"{option} is for a {DENSE}; the task is {task.name}: leave it out")
    if not dense:
        return
    if weights == "balanced":
        raise UserError(f"train.class_weights=balanced counts examples by class, and those of a {DENSE} have many; "
                        f"set --config.train.class_weights={MEDIAN_FREQUENCY}")
    if config.data.zoom and not config.data.zoom >= 1:
        raise UserError(f"data.zoom={config.data.zoom}; expected a factor of at least 1, or 0 for none")
    changed = [f"augment.{m}.{name}" for m, options in config.augment.items()
               for name, value in vars(options).items() if value and name != "noise"]
    if changed:
        raise UserError(f"{changed[0]}: the inputs of a {DENSE} are changed together with its class maps; set "
                        "--config.data.zoom=1.4, and leave this out")


def check_selection(setup: Setup) -> None:
    """Raises UserError for options that select by validation scores where that is not possible."""
    config, stream = setup.config.train, setup.stream
    check_choice("train.keep", config.keep, ("last", "best"))
    by_validation = (["train.keep=best"] * (config.keep == "best") + ["train.patience"] * bool(config.patience)
                     + ["optimizer.schedule=plateau"] * (setup.config.optimizer.schedule == PLATEAU))
    if by_validation and stream:
        raise UserError(f"{by_validation[0]}: the tasks of a stream are trained to their ends, whatever "
                        "validation says; leave it out, or choose a config without a stream")
    if not config.score:
        return
    head, _, score = config.score.rpartition("/")
    method = setup.make_method(None, scalar_options(setup.config))
    heads = jax.eval_shape(lambda: method.predict(_first_copy(setup), _example(setup)))
    if head not in heads or score not in setup.task.scores:
        raise UserError(f"train.score={config.score}; expected HEAD/SCORE, a head of {', '.join(heads)} and "
                        f"a score of {', '.join(setup.task.scores)}")


def _make_tasks(config: Config, dataset: Dataset, spec: DataSpec | None,
                ) -> tuple[Dataset, Stream | None, list[np.ndarray]]:
    """The data with the labels to learn, the stream if there is one, and the rows of its tasks."""
    used = used_modalities(config.method, dataset.modalities)
    if not config.data.missing_rate:    # which may leave each row one modality, as was asked for
        check_pairs(config.method, dataset.name, dataset.splits["train"])
    check_rows(config.method, dataset.name, dataset.splits["train"], config.train.batch_size)
    if not config.stream.kind:
        tasks = [np.arange(batch_size(dataset.splits["train"]))]
        return dataset, None, rows_with(dataset, used, tasks)
    need_classes(make_task(config.task, dataset.class_names, dataset.splits["train"]["label"], target=dataset.target),
                 "a stream of tasks", "use a config without a stream")
    dataset, stream = make_stream(config.stream, dataset, spec and coarse_map(spec))
    tasks = [task.indices["train"] for task in stream.tasks]
    if not config.stream.joint:
        if config.stream.budget:
            raise UserError(f"stream.budget={config.stream.budget} is for a stream that is learned at once; set "
                            "--config.stream.joint, or leave it out")
        return dataset, stream, rows_with(dataset, used, tasks)
    rows, = rows_with(dataset, used, [np.concatenate(tasks)])
    if config.stream.budget:
        rows = balanced_rows(dataset.splits["train"]["label"], rows, config.stream.budget, config.stream.seed)
    return dataset, stream, [rows]


def kinds(config: Config, spec: DataSpec) -> dict[str, str]:
    """"text", "audio" or "image" by modality, as pretrained encoders take them.

    Raises:
      UserError: texts of a pretrained encoder are numbered by a vocabulary made of them.
    """
    found = {}
    for m in spec.modalities:
        section = config.data.preprocess.get(m, PreprocessConfig())
        found[m] = "text" if m in spec.num_tokens else "audio" if section.kind == "spectrogram" else "image"
        if m in config.encoders and config.encoders[m].weights and getattr(section, "vocabulary", None) == "":
            raise UserError(f"encoders.{m}.weights: the vocabulary of {m} is made of the training texts, whose "
                            "numbers mean other words to a pretrained encoder; name that of the encoder by "
                            f"--config.data.preprocess.{m}.vocabulary=FILE")
    return found


def lengths(spec: DataSpec) -> list[range]:
    """Ranges as long as the rows of each task, where only the lengths matter."""
    return [range(rows) for rows in spec.rows]


def rows_with(dataset: Dataset, modalities: Sequence[str], tasks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The rows of each task that have one of the modalities; warns of rows left out, in every split.

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
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state_shapes(setup)))


def state_shapes(setup: Setup) -> TrainState:
    """Shapes and types of the state of one run."""
    return jax.eval_shape(lambda: _first_copy(setup))


def memory_size() -> int:
    """Bytes of memory of a device if it reports them, otherwise of this machine."""
    return device_memory() or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def example_shapes(batch: Batch, transform: Transform) -> dict[str, tuple[int, ...]]:
    """Shape of an example as its encoder gets it, by modality."""
    inputs = jax.eval_shape(lambda batch: transform(None, batch), batch)["inputs"]
    return {m: inputs[m].shape[1:] for m in sorted(inputs)}


def init_state(setup: Setup) -> TrainState:
    """The state before the first step, on the devices."""
    return setup.programs.place(_first_copy(setup))


def _first_copy(setup):
    return setup.programs.init(setup.config.train.seed, _example(setup))


def _example(setup):
    wide = on_host(setup.spec.forms, setup.spec.norms, setup.config.data.preprocess)
    return example(setup.spec, dict.fromkeys(wide, np.float32))
