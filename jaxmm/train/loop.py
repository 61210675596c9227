"""The loop: from a config to a trained state in a run folder."""
import pathlib
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from jaxmm.config import Config
from jaxmm.data.dataset import Dataset, fingerprint
from jaxmm.errors import UserError
from jaxmm.train import checkpoints, plan
from jaxmm.train.runs import claim_folder, save_stream
from jaxmm.train.setup import Run, Setup, build, evaluate_split, init_state
from jaxmm.train.writers import open_writer

METRICS_EVERY = 32      # steps between two looks at the metrics; longer queues can deadlock on CPU


class Preempted(Exception):
    """The run was asked to stop; its state is saved, and the same command goes on from there."""


def train(config: Config, workdir, *, dataset: Dataset | None = None,
          devices: Sequence[jax.Device] | None = None, progress: bool = True) -> Run:
    """Trains in a run folder, or goes on where the folder's last checkpoint ends.

    Validation data is looked at every `train.eval_epochs`, test data once, at the end; what is
    reported is the last epoch. See `build` for the arguments.

    Raises:
      UserError: the config cannot be run, or the folder belongs to another one, or another process
        trains in it.
      WriteError: the disk is full; the last good checkpoint is kept.
      FloatingPointError: the loss is not finite; the last good checkpoint is kept.
      Preempted: SIGTERM or SIGINT came; the state was saved first.
    """
    workdir = pathlib.Path(workdir)
    setup = build(config, dataset=dataset, devices=devices)
    with claim_folder(workdir, config):
        return _resume(setup, workdir, progress)


def _resume(setup, workdir, progress):
    config = setup.config.train
    manager = checkpoints.open_manager(workdir)
    for name in checkpoints.remove_unfinished(manager):
        logging.warning("%s: removed %s, left by a save that was cut short", manager.directory, name)
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
    with (open_writer(workdir, step if restored else -1, config.tensorboard,
                      config.on_save_error) as write,
          checkpoints.open_saver(manager, config.keep_checkpoints, config.on_save_error) as save):
        state, history = _run(setup, state, history, step, data_print, save, write, progress)
    manager.close()
    return Run(setup, state, history)


def _run(setup, state, history, start, data_print, save, write, progress):
    config, programs = setup.config.train, setup.programs
    total = plan.total_steps(setup.tasks, config)
    feed = programs.feed(setup.dataset.splits["train"], setup.config.data.placement)
    pending, step = [], start

    def evaluate(split, task, epoch):
        record = {"step": step, "epoch": epoch, "task": task, "split": split,
                  **evaluate_split(setup, state, split)}
        history.append(record)
        write({"kind": "eval"} | record)

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
                save(step, programs.fetch(state), {"history": history, "data": data_print},
                     last=stop or step == total)
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


