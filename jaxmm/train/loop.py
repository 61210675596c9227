"""The loop: from a config to a trained state in a run folder."""
import dataclasses
import pathlib
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from jaxmm import data
from jaxmm.batch import Batch, batch_size, take
from jaxmm.config import AugmentConfig, Config, EncoderConfig
from jaxmm.data.dataset import Dataset, fingerprint, statistics
from jaxmm.data.streams import Stream, make_stream
from jaxmm.data.transform import make_transform
from jaxmm.encoders import make_encoder
from jaxmm.errors import UserError, check_at_least
from jaxmm.evaluate.predictions import read_rows, score
from jaxmm.evaluate.tasks import score_tasks
from jaxmm.methods import Components, TrainState, make_method
from jaxmm.train import checkpoints, plan
from jaxmm.train.devices import Programs, is_streamed, make_programs
from jaxmm.train.optimizers import make_optimizer
from jaxmm.train.runs import claim_folder, save_stream
from jaxmm.train.writers import check_tensorboard, open_writer

SCANNED_STEPS = 256     # longest chunk where steps are scanned
METRICS_EVERY = 32      # steps between two looks at the metrics; longer queues can deadlock on CPU


class Setup(NamedTuple):
    """Everything that a config decides, built and compiled."""
    config: Config
    dataset: Dataset
    stream: Stream | None           # the tasks of a continual run
    tasks: list[np.ndarray]         # rows of the training split, by task that is learned
    programs: Programs
    steps_per_call: int


class Run(NamedTuple):
    """A run, trained or restored."""
    setup: Setup
    state: TrainState               # on the devices
    history: list[dict[str, Any]]   # evaluations: step, epoch, task, split, scores by head


class Preempted(Exception):
    """The run was asked to stop; its state is saved, and the same command goes on from there."""


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
    check_counts(config)
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
    streamed = is_streamed(train, config.data.placement)
    if config.train.tensorboard:
        check_tensorboard()
    ranks = {m: train["inputs"][m].ndim - 1 for m in dataset.modalities}
    for m, options in config.augment.items():
        check_augmentation(m, options, ranks[m])
    encoder_configs = {m: config.encoders.get(m, EncoderConfig()) for m in dataset.modalities}
    epoch = plan.make_epoch(tasks, config.train)
    optimizer = make_optimizer(config.optimizer, config.train.epochs, epoch)
    transform = make_transform(statistics(train), dict(config.augment))

    def make(axis_name):
        encoders = {m: make_encoder(c, ranks[m], axis_name=axis_name)
                    for m, c in encoder_configs.items()}
        components = Components(encoders, dataset.num_classes, transform, optimizer, epoch,
                                config.train.batch_size)
        return make_method(config.method, components, axis_name=axis_name)

    programs = make_programs(make, devices)
    if config.train.batch_size % programs.num_devices:
        raise UserError(f"train.batch_size={config.train.batch_size} does not divide over "
                        f"{programs.num_devices} devices; choose a multiple of their number")
    convolves = any(c.name not in ("auto", "mlp") or (c.name == "auto" and ranks[m] > 1)
                    for m, c in encoder_configs.items())
    one_by_one = streamed or (convolves and jax.default_backend() == "cpu")
    steps_per_call = config.train.steps_per_call or (1 if one_by_one else SCANNED_STEPS)
    setup = Setup(config, dataset, stream, tasks, programs, steps_per_call)
    jax.eval_shape(lambda: init_state(setup))       # finds shapes that do not fit
    return setup


def check_augmentation(modality: str, options: AugmentConfig, rank: int) -> None:
    """Raises UserError for augmentation out of range, or of images asked for on vectors."""
    for name, value in dataclasses.asdict(options).items():
        check_at_least(f"augment.{modality}.{name}", value, 0)
        if value and rank == 1 and name != "noise":
            raise UserError(f"augment.{modality}.{name}={value}: {modality} has vectors, which "
                            "take only noise")


def check_counts(config: Config) -> None:
    """Raises UserError for seeds and counts that are out of range."""
    for section, name, least in (("data", "seed", 0), ("stream", "seed", 0), ("train", "seed", 0),
                                 ("train", "epochs", 1), ("train", "batch_size", 1),
                                 ("train", "steps_per_call", 0), ("train", "eval_epochs", 1),
                                 ("train", "checkpoint_epochs", 1), ("train", "keep_checkpoints", 1)):
        check_at_least(f"{section}.{name}", getattr(getattr(config, section), name), least)


def init_state(setup: Setup) -> TrainState:
    """The state before the first step, on the devices."""
    example = take(setup.dataset.splits["train"], np.zeros(2, int))
    return setup.programs.init(setup.config.train.seed, example)


def train(config: Config, workdir, *, dataset: Dataset | None = None,
          devices: Sequence[jax.Device] | None = None, progress: bool = True) -> Run:
    """Trains in a run folder, or goes on where the folder's last checkpoint ends.

    Validation data is looked at every `train.eval_epochs`, test data once, at the end; what is
    reported is the last epoch. See `build` for the arguments.

    Raises:
      UserError: the config cannot be run, or the folder belongs to another one.
      FloatingPointError: the loss is not finite; the last good checkpoint is kept.
      Preempted: SIGTERM or SIGINT came; the state was saved first.
    """
    workdir = pathlib.Path(workdir)
    setup = build(config, dataset=dataset, devices=devices)
    claim_folder(workdir, config)
    manager = checkpoints.open_manager(workdir, config.train.keep_checkpoints)
    if setup.stream:
        save_stream(workdir, setup.stream)
    state, history, step = init_state(setup), [], 0
    data_print = fingerprint(setup.dataset)
    restored = checkpoints.restore(manager, setup.programs.fetch(state))
    if restored:
        step, state, meta = restored
        if meta["data"] != data_print:
            raise UserError(f"{workdir}: {setup.dataset.name} is not the data this run was trained "
                            "on; restore that data, or name another --workdir")
        state, history = setup.programs.place(state), meta["history"]
        checkpoints.set_aside(manager, step)
    with open_writer(workdir, step if restored else -1, config.train.tensorboard) as write:
        state, history = _run(setup, state, history, step, data_print, manager, write,
                              progress)
    manager.close()
    return Run(setup, state, history)


def _run(setup, state, history, start, data_print, manager, write, progress):
    config, programs = setup.config.train, setup.programs
    total = plan.total_steps(setup.tasks, config)
    feed = programs.feed(setup.dataset.splits["train"], setup.config.data.placement)
    pending, step = [], start

    def evaluate(split, task, epoch):
        record = {"step": step, "epoch": epoch, "task": task, "split": split,
                  **evaluate_split(setup, state, split)}
        history.append(record)
        write({"kind": "eval"} | record)

    def save():
        checkpoints.save(manager, step, programs.fetch(state), {"history": history, "data": data_print})

    with stop_signals() as stopped, tqdm(total=total, initial=start, unit="step", disable=not progress,
                                         mininterval=0.5) as bar:
        if setup.stream and step == 0:
            evaluate("test", -1, 0)     # what forward transfer is measured against
        begin = time.perf_counter()
        for chunk in plan.chunks(setup.tasks, config, setup.steps_per_call, start):
            state, metrics = programs.steps(state, feed, chunk.index)
            step, stop = chunk.end, stopped()
            pending.append(metrics)
            waiting = sum(len(m["loss"]) for m in pending)
            if waiting >= METRICS_EVERY or chunk.ends_epoch or stop:
                means = mean_metrics(pending, step)
                seconds = time.perf_counter() - begin
                rate = waiting * config.batch_size / seconds
                write({"kind": "train", "step": step, "epoch": chunk.epoch + 1, "task": chunk.task,
                       "examples_per_second": rate} | means)
                bar.set_description(f"epoch {chunk.epoch + 1}/{config.epochs}", refresh=False)
                bar.set_postfix({k.removeprefix("accuracy/"): f"{v:.3f}" for k, v in means.items()}
                                | {"examples/s": f"{rate:.0f}"}, refresh=False)
                bar.update(step - bar.n)
                pending, begin = [], time.perf_counter()
            if chunk.ends_task:
                state = programs.end_task(state)
            if chunk.ends_epoch:
                for split in splits_to_evaluate(setup, chunk, step == total):
                    evaluate(split, chunk.task, chunk.epoch + 1)
            if stop or chunk.ends_task or (
                    chunk.ends_epoch and (chunk.epoch + 1) % config.checkpoint_epochs == 0):
                save()
            if stop and step < total:
                raise Preempted(f"stopped by a signal after step {step} of {total}; the state is "
                                "saved, and the same command goes on from there")
            if not pending:
                begin = time.perf_counter()     # evaluating and saving are not training
    return state, history


def splits_to_evaluate(setup: Setup, chunk: plan.Chunk, last: bool) -> list[str]:
    """Splits to look at after an epoch.

    A stream is evaluated at the end of each task, which is what its matrix of accuracies is made
    of; nothing is chosen by them. Otherwise test data is used once, at the end.
    """
    if setup.stream:
        return ["val", "test"] if chunk.ends_task else []
    due = last or (chunk.epoch + 1) % setup.config.train.eval_epochs == 0
    return ["val"] * due + ["test"] * last


def mean_metrics(pending: list[Mapping[str, Any]], step: int) -> dict[str, float]:
    """Means over the steps since the last look.

    Raises:
      FloatingPointError: one of their losses is not finite.
    """
    values = {name: np.concatenate([np.asarray(m[name]) for m in pending]) for name in pending[0]}
    finite = np.isfinite(values["loss"])
    if not finite.all():
        first = step - len(finite) + int(np.argmin(finite)) + 1
        raise FloatingPointError(
            f"the loss of step {first} is {values['loss'][np.argmin(finite)]}; the last good "
            f"checkpoint is kept; {checkpoints.REMEDY}")
    return {name: float(x.mean(dtype=np.float64)) for name, x in values.items()}


def predict_split(setup: Setup, state: TrainState, split: Batch) -> dict[str, np.ndarray]:
    """Logits [N, C] of every head for a whole split."""
    return _read(setup, state, setup.programs.predict, split)


def split_features(setup: Setup, state: TrainState, split: Batch) -> dict[str, np.ndarray]:
    """Encoder outputs [N, s] by modality for a whole split."""
    return _read(setup, state, setup.programs.features, split)


def _read(setup, state, read, split):
    feed = setup.programs.feed(split, setup.config.data.placement)
    return read_rows(lambda feed, index: read(state, feed, index), feed, batch_size(split),
                     setup.config.train.batch_size)


def evaluate_split(setup: Setup, state: TrainState, split: str) -> dict[str, Any]:
    """"scores" of every head on a split and, on a stream, what `score_tasks` finds."""
    batch = setup.dataset.splits[split]
    logits = predict_split(setup, state, batch)
    scores = {"scores": score(logits, batch)}
    return scores | score_tasks(logits, batch, setup.stream, split) if setup.stream else scores


@contextmanager
def stop_signals():
    """stopped(): whether SIGTERM or SIGINT came. A second signal ends the process at once.

    One that came too late to stop anything is raised again when all is done.
    """
    received = []

    def handler(number, frame):
        del frame
        if received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(number)

    try:
        old = {s: signal.signal(s, handler) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:      # not in the main thread, where signals cannot be handled
        old = {}
    try:
        yield lambda: bool(received)
        late = received[:1]
    except BaseException:
        late = []
        raise
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
    for number in late:
        signal.raise_signal(number)


