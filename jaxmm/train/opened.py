"""Runs whose folders are open: locked, read, and ready to be written to."""
import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from absl import logging

from jaxmm.config import Config
from jaxmm.data.spec import to_json
from jaxmm.methods.common import TrainState
from jaxmm.train import checkpoints, hosts, validity, writers
from jaxmm.train.folder import (FILE as CONFIG_FILE, MODEL_FILE, as_noted, check_folder, claim_folder,
                                read_spec, save_stream, write_spec)
from jaxmm.train.options import to_dict
from jaxmm.train.restore import kept_step, read_history
from jaxmm.train.setup import Setup, init_state, is_finished, state_shapes
from jaxmm.train.teaching import check_same_teachers, check_teachers, teacher_checksums
from jaxmm.train.weights import read_pretrained
from jaxmm.train.writers import Write, open_writer


class Opened(NamedTuple):
    """A run and its folder, at the step to which it was trained."""
    setup: Setup
    workdir: pathlib.Path
    save: Callable[..., None]       # (step, state, history, last=, spare=)
    write: Write
    state: TrainState               # one copy; its shapes before the folder was read
    history: list[dict[str, Any]]
    step: int
    changed: tuple[str, ...] = ()   # splits that have changed since it was scored on them
    load: Callable[[int], TrainState] | None = None     # step of a checkpoint -> one copy


def kept(config: Config, workdir: pathlib.Path, extend: bool = False) -> dict[str, Any]:
    """What a run of this config has noted of its "encoders" and of its data, the "spec", as JSON."""
    if not (workdir / CONFIG_FILE).exists():
        return {"encoders": {}, "spec": None}
    config = as_noted(config, workdir)
    check_folder(workdir, config, extend)
    spec = read_spec(workdir)
    return {"encoders": to_dict(config)["encoders"], "spec": spec and to_json(spec)}


def check_start(setup: Setup, workdir: pathlib.Path, extend: bool = False) -> None:
    """Raises UserError if a run cannot start or resume in this folder; changes nothing."""
    checkpoints.check_path(workdir)
    writers.check_installed(setup.config.train.tensorboard, setup.config.train.wandb)
    check_folder(workdir, setup.config, extend)
    meta = None
    if not (workdir / CONFIG_FILE).exists():
        check_teachers(setup)
    else:
        meta = checkpoints.last_meta(workdir)
        check_meta(setup, workdir, meta or {"data": setup.spec.checksums, "history": []})
    if not meta:
        read_pretrained(setup)


def check_meta(setup: Setup, workdir: pathlib.Path, meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Raises UserError if the data or the teachers of a run have changed; see `validity.check`."""
    read_history(workdir, meta, setup.task.scores)
    check_same_teachers(workdir, setup, meta.get("teachers", {}))
    validity.check_spec(workdir, setup, meta)
    return validity.check(workdir, setup, meta)


@contextmanager
def open_run(setup: Setup, workdir: pathlib.Path, extend: bool = False) -> Iterator[Opened]:
    """The run of a folder, at its last checkpoint or before the first step.

    The main process locks the folder and writes to it; the others get what it finds there.
    """
    with contextlib.ExitStack() as stack:
        def claim():
            stack.enter_context(claim_folder(workdir, setup.config, extend))

        def open_folder():
            nonlocal run
            run = stack.enter_context(_open_folder(run))
            return {"step": run.step, "history": run.history, "changed": run.changed}

        hosts.from_main(claim)
        run = Opened(setup, workdir, nothing, nothing, state_shapes(setup), [], 0)
        found = hosts.from_main(open_folder)
        if not hosts.is_main():     # the form of what it is given
            run = run._replace(state=setup.programs.fetch(init_state(setup)))
        run = run._replace(**found | {"changed": tuple(found["changed"])},
                           state=share_state(run.state))
        if run.changed:
            run = run._replace(history=rescored(run))
        hosts.from_main(lambda: writers.set_evaluations(workdir, run.history))
        yield run


def rescored(run: Opened) -> list[dict[str, Any]]:
    """The history of a run; the model that it keeps is scored again on splits that have changed."""
    step, state = kept_model(run)
    return validity.rescore(run.setup, run.setup.programs.place(state), run.history, step, run.changed)


def kept_model(run: Opened) -> tuple[int, TrainState]:
    """(step, one copy) of the model that a run keeps: as it is now, or the best so far on validation."""
    step = kept_step(run.setup, run.history, run.step)
    if step == run.step:
        return step, run.state
    return step, state_from_main(run.state, lambda _: run.load(step))


@contextmanager
def _open_folder(run: Opened) -> Iterator[Opened]:
    setup, config, workdir = run.setup, run.setup.config.train, run.workdir
    manager = checkpoints.open_manager(workdir)
    for name in checkpoints.remove_unfinished(manager):
        logging.warning("%s: removed %s, left by a save that was cut short", manager.directory,
                        name)
    if setup.stream:
        save_stream(workdir, setup.stream)
    step, restored = -1, checkpoints.restore(manager, run.state)
    if not restored:
        run = run._replace(state=setup.programs.fetch(init_state(setup)))
    else:
        step, state, meta = restored
        history = read_history(workdir, meta, setup.task.scores)
        # Earlier versions did not write how many epochs a run was to have.
        epochs = meta.get("epochs", max((record["epoch"] for record in history), default=config.epochs))
        if is_finished(setup, history) and not setup.stream and epochs < config.epochs:
            logging.warning("%s: continues from %d to %d epochs, and is tested at their end", workdir,
                            epochs, config.epochs)
            history = [record for record in history if record["split"] != "test"]
        run = run._replace(state=state, history=history, step=step,
                           changed=check_meta(setup, workdir, meta))
        validity.warn(workdir, setup, meta, run.changed)
        checkpoints.set_aside(manager, step)
    if not (workdir / MODEL_FILE).exists():
        write_spec(workdir, setup.spec)
    known = {"data": setup.checksums, "rows": validity.row_checksum(setup), "model": setup.spec.checksum,
             "epochs": config.epochs, "teachers": meta.get("teachers", {}) if restored else teacher_checksums(setup)}
    with (open_writer(workdir, step, config.tensorboard, config.on_save_error,
                      to_dict(setup.config) if config.wandb else None) as write,
          checkpoints.open_saver(manager, config.keep_checkpoints,
                                 config.on_save_error) as save):
        def save_run(step, state, history, *, last, spare):
            save(step, state, {"history": history} | known, last=last, spare=spare)

        yield run._replace(save=save_run, write=write,
                           load=lambda step: checkpoints.restore(manager, run.state, step)[1])
    manager.close()


def nothing(*args, **kwargs) -> None:
    """Stands for writing in processes that do not write."""


def state_from_main(state: TrainState, fn: Callable[[TrainState], TrainState]) -> TrainState:
    """fn(state), in every process; only the main one calls fn, as only it reads folders."""
    def call():
        nonlocal state
        state = fn(state)

    hosts.from_main(call)
    return share_state(state)


def share_state(state: TrainState) -> TrainState:
    """The state of the main process, in every process; `state` gives shapes and types in the others."""
    if jax.process_count() == 1:
        return state
    return checkpoints.unflatten(state, hosts.share(checkpoints.flatten(state)))
