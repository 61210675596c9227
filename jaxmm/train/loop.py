"""The loop: from a config to a trained state in a run folder."""
import contextlib
import functools
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from jaxmm.config import Config
from jaxmm.data import feeding
from jaxmm.data.dataset import Dataset
from jaxmm.data.spec import from_json, to_json
from jaxmm.methods import TrainState
from jaxmm.methods.common import Progress
from jaxmm.train import checkpoints, hosts, plan, validity, writers
from jaxmm.train.devices import stack, unstack
from jaxmm.train.restore import read_history
from jaxmm.train.runs import (FILE as CONFIG_FILE, MODEL_FILE, check_folder, claim_folder, read_spec,
                              save_stream, write_spec)
from jaxmm.train.setup import (Run, Setup, build_many, find_obstacle, init_state, join,
                               predict_split, score_split, split_features)
from jaxmm.signals import Preempted, stop_signals
from jaxmm.train.teaching import (check_same_teachers, check_teachers, folder_of,
                                  restore_teachers, taught, teacher_checksums, teacher_config)
from jaxmm.train.writers import Write, open_writer

METRICS_EVERY = 32      # steps between two looks at the metrics; longer queues can deadlock on CPU


class Opened(NamedTuple):
    """A run and its folder, as far as it was trained."""
    setup: Setup
    workdir: pathlib.Path
    save: Callable[..., None]       # (step, state, history, last=)
    write: Write
    state: TrainState               # one copy
    history: list[dict[str, Any]]
    step: int
    changed: tuple[str, ...] = ()   # splits that have changed since it was scored on them


def train(config: Config, workdir, *, dataset: Dataset | None = None,
          devices: Sequence[jax.Device] | None = None, progress: bool = True,
          teachers: str = "") -> Run:
    """Trains in a run folder, or goes on where the folder's last checkpoint ends.

    Validation data is looked at every `train.eval_epochs`, test data once, at the end; what is
    reported is the last epoch.

    Args:
      config: all options.
      workdir: the run folder.
      dataset: see `build`.
      devices: see `build`.
      progress: whether to show a bar.
      teachers: folders for the models to be trained before, where the config names none; {teacher}
        stands for the name of each, {seed} for its seed. By default they lie in the run folder.

    Raises:
      UserError: the config cannot be run, or the folder belongs to another one, or another process
        trains in it.
      WriteError: the disk is full; the last good checkpoint is kept.
      FloatingPointError: the loss is not finite; the last good checkpoint is kept.
      Preempted: a signal asked to stop (see `signals`); the state was saved first.
    """
    result, = train_many([config], [workdir], dataset=dataset, devices=devices, progress=progress,
                         teachers=[teachers])
    if isinstance(result, FloatingPointError):
        raise result
    return result


def train_many(configs: Sequence[Config], workdirs: Sequence, *, dataset: Dataset | None = None,
               devices: Sequence[jax.Device] | None = None, progress: bool = True,
               teachers: Sequence[str] = ()) -> Iterator[Run | FloatingPointError]:
    """`train` for several configs: at once where one program can, else one after the other.

    One program trains runs that differ in seeds and in the scalars of `jaxmm.train.together`, if
    the tasks of their streams take equally many steps. Each has a folder of its own and the same
    results as alone: on CPU to the bit, elsewhere up to rounding. Runs that are resumed at other
    steps are trained apart.
    `teachers` has one value for each run, if any.

    Yields:
      In the order of the configs the run or, if its loss was not finite, the error in its place;
      the other runs are not touched by it.

    Raises:
      UserError, WriteError, Preempted: see `train`.
    """
    workdirs = [pathlib.Path(workdir) for workdir in workdirs]
    specs = hosts.from_main(lambda: [kept_spec(*run) for run in zip(configs, workdirs)])
    setups = list(build_many(configs, dataset=dataset, devices=devices,
                             specs=[spec and from_json(spec) for spec in specs]))

    def check():
        for setup, workdir in zip(setups, workdirs):
            check_start(setup, workdir)

    hosts.from_main(check)
    progress = progress and hosts.is_main()
    obstacle = find_obstacle(setups)
    if obstacle and len(configs) > 1 and progress:
        print(f"{len(configs)} runs one after the other: {obstacle}", file=sys.stderr)
    options = {"dataset": dataset, "devices": devices, "progress": progress}
    locations = [teachers[i] if i < len(teachers) and teachers[i] else
                 f"{workdir}/teachers/{{teacher}}" for i, workdir in enumerate(workdirs)]
    runs = list(zip(setups, workdirs, locations))
    for group in [[run] for run in runs] if obstacle else [runs]:
        yield from _train_group(group, options)


def kept_spec(config: Config, workdir: pathlib.Path) -> dict[str, Any] | None:
    """What a run of this config has kept of its data, as JSON; None of a new one."""
    if not (workdir / CONFIG_FILE).exists():
        return None
    check_folder(workdir, config)
    spec = read_spec(workdir)
    return spec and to_json(spec)


def check_start(setup: Setup, workdir: pathlib.Path) -> None:
    """Raises UserError if a run cannot begin, or go on, in this folder; touches nothing."""
    checkpoints.check_path(workdir)
    check_folder(workdir, setup.config)
    if not (workdir / CONFIG_FILE).exists():
        check_teachers(setup)
    else:
        check_meta(setup, workdir, checkpoints.last_meta(workdir) or {
            "data": setup.spec.checksums, "history": []})


def check_meta(setup: Setup, workdir: pathlib.Path, meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Raises UserError if the data or the teachers of a run have changed; see `validity.check`."""
    read_history(workdir, meta, setup.task.scores)
    check_same_teachers(workdir, setup, meta.get("teachers", {}))
    validity.check_spec(workdir, setup, meta)
    return validity.check(workdir, setup, meta)


def _train_group(group, options) -> list[Run | FloatingPointError]:
    """Trains runs that one program can train, those that stand at the same step together."""
    with contextlib.ExitStack() as stack:
        runs = [stack.enter_context(open_run(setup, workdir)) for setup, workdir, _ in group]
        runs, results = teach(runs, [location for _, _, location in group], options)
        devices, progress = options["devices"], options["progress"]
        for step in sorted({run.step for run in runs}):
            same = [run for run in runs if run.step == step]
            finished = step == same[0].setup.total_steps
            for part in [[run] for run in same] if finished else [same]:
                done = _run(part, devices, progress)
                results |= {run.workdir: result for run, result in zip(part, done)}
        return [results[workdir] for _, workdir, _ in group]


def teach(runs: Sequence[Opened], locations: Sequence[str], options
          ) -> tuple[list[Opened], dict[pathlib.Path, FloatingPointError]]:
    """The runs, those before their first step with what their teachers know.

    Those with a teacher that diverged are left out; their errors come second, by folder.

    Teachers are restored if the config names their folders, otherwise trained first, those of all
    runs together; the ones that are there already are used as they are.

    Args:
      runs: of one method.
      locations: of the folders of each run's teachers, with {teacher} for their names.
      options: dataset, devices, progress of `train_many`.
    """
    places = {run.workdir: location for run, location in zip(runs, locations)
              if run.setup.programs.teachers and not run.step and not run.history}
    new, errors = [run for run in runs if run.workdir in places], {}
    if new and new[0].setup.config.method.teachers:
        states = {run.workdir: learn(run, options) for run in new}
    else:
        models, errors = train_teachers(new, places, options)
        states = {run.workdir: taught(run.setup, run.state, models[run.workdir])
                  for run in new if run.workdir not in errors}
    return [run._replace(state=states.get(run.workdir, run.state)) for run in runs
            if run.workdir not in errors], errors


def learn(run: Opened, options) -> TrainState:
    """The first state of a run with what the teachers know that its config names.

    Their folders are read by the main process alone, as all others.
    """
    state = run.state

    def restore():
        nonlocal state
        state = taught(run.setup, state, restore_teachers(
            run.setup, dataset=options["dataset"], devices=options["devices"]))

    hosts.from_main(restore)
    return share_state(state)


def train_teachers(runs: Sequence[Opened], places: Mapping[pathlib.Path, str], options) -> tuple[
        dict[pathlib.Path, dict[str, TrainState]], dict[pathlib.Path, FloatingPointError]]:
    """By the folder of each run, the last states of its teachers, and what stopped one of them.

    `places` is where the teachers lie.
    """
    models, errors = {run.workdir: {} for run in runs}, {}
    for name, method in runs[0].setup.programs.teachers.items() if runs else ():
        folders = {run.workdir: folder_of(name, places[run.workdir], run.setup) for run in runs}
        # Runs may share a teacher.
        jobs = {folders[run.workdir]: run for run in runs}
        if options["progress"]:
            tqdm.write(f"{runs[0].setup.config.method.name} starts from {name}: "
                       f"{', '.join(map(str, jobs))}")
        trained = train_many([teacher_config(run.setup, method) for run in jobs.values()],
                             list(jobs), **options,
                             teachers=[places[run.workdir] for run in jobs.values()])
        results = dict(zip(jobs, trained))
        for workdir, folder in folders.items():
            result = results[folder]
            if isinstance(result, FloatingPointError):
                errors.setdefault(workdir, FloatingPointError(
                    f"{workdir} starts from {name}: {result}"))
            else:
                models[workdir][name] = result.setup.programs.fetch(result.state)
    return models, errors


def share_state(state: TrainState) -> TrainState:
    """The state of the main process, in every one; those of the others give shapes and types."""
    if jax.process_count() == 1:
        return state
    return checkpoints.unflatten(state, hosts.share(checkpoints.flatten(state)))


@contextmanager
def open_run(setup: Setup, workdir: pathlib.Path) -> Iterator[Opened]:
    """The run of a folder, at its last checkpoint or before the first step.

    The main process locks the folder and writes to it; the others get what it finds there.
    """
    with contextlib.ExitStack() as stack:
        def claim():
            stack.enter_context(claim_folder(workdir, setup.config))

        def open_folder():
            nonlocal run
            run = stack.enter_context(_open_folder(run))
            return {"step": run.step, "history": run.history, "changed": run.changed}

        hosts.from_main(claim)
        initial = setup.programs.fetch(init_state(setup))
        run = Opened(setup, workdir, nothing, nothing, initial, [], 0)
        found = hosts.from_main(open_folder)
        run = run._replace(**found | {"changed": tuple(found["changed"])},
                           state=share_state(run.state))
        if run.changed:
            run = run._replace(history=validity.rescore(
                setup, setup.programs.place(run.state), run.history, run.step, run.changed))
        hosts.from_main(lambda: writers.set_evaluations(workdir, run.history))
        yield run


def nothing(*args, **kwargs) -> None:
    """What processes do that do not write."""


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
    if restored:
        step, state, meta = restored
        history = read_history(workdir, meta, setup.task.scores)
        run = run._replace(state=state, history=history, step=step,
                           changed=check_meta(setup, workdir, meta))
        validity.warn(workdir, setup, meta, run.changed)
        checkpoints.set_aside(manager, step)
    if not (workdir / MODEL_FILE).exists():
        write_spec(workdir, setup.spec)
    known = {"data": setup.checksums, "model": setup.spec.checksum,
             "teachers": meta.get("teachers", {}) if restored else teacher_checksums(setup)}
    with (open_writer(workdir, step, config.tensorboard, config.on_save_error) as write,
          checkpoints.open_saver(manager, config.keep_checkpoints,
                                 config.on_save_error) as save):
        def save_run(step, state, history, *, last):
            save(step, state, {"history": history} | known, last=last)

        yield run._replace(save=save_run, write=write)
    manager.close()


def _run(runs: Sequence[Opened], devices, progress) -> list[Run | FloatingPointError]:
    """Trains runs that stand at the same step, with one program."""
    setup = runs[0].setup if len(runs) == 1 else join([run.setup for run in runs], devices)
    config, programs, step = setup.config.train, setup.programs, runs[0].step
    total = setup.total_steps
    coming = feeding.Mapped(plan.index_of, plan.Chunks(
        setup.tasks if total else [], config, setup.steps_per_call, step))
    feed = programs.feed(setup.dataset.splits["train"], setup.config.data.placement, coming,
                         setup.config.data.workers)
    state = programs.place(stack([run.state for run in runs]))
    if progress and step < total:
        each = f"each of {len(runs)} runs: " if len(runs) > 1 else ""
        tqdm.write(each + describe_state(runs[0].state), file=sys.stderr)
    errors, pending = {}, []    # errors by number of the run, which is left out from then on

    def sound():
        return [(i, run) for i, run in enumerate(runs) if i not in errors]

    def fail(i, error):
        errors[i] = FloatingPointError(f"{runs[i].workdir}: {error}")

    def evaluate(split, task, epoch):
        logits = predict_split(setup, state, setup.dataset.splits[split])
        for i, run in sound():
            own = {head: z.reshape(len(z), len(runs), -1)[:, i] for head, z in logits.items()}
            record = {"step": step, "epoch": epoch, "task": task, "split": split,
                      **score_split(run.setup, own, split)}
            run.history.append(record)
            hosts.from_main(functools.partial(run.write, {"kind": "eval"} | record))

    def features_of(split, i):
        rows = runs[i].setup.dataset.splits[split]
        features = {m: h.reshape(len(h), len(runs), -1)[:, i]
                    for m, h in split_features(setup, state, rows).items()}
        return {key: rows[key] for key in ("label", "id", "present")} | {"features": features}

    def visited(task):
        """The state after the rows of a finished task were visited."""
        if not programs.visit:
            return state
        batches = list(plan.visits([run.setup.tasks[task] for run in runs], config.batch_size))
        split, placement = setup.dataset.splits["train"], setup.config.data.placement
        rows = (programs.feed(split, placement, [index for index, _ in batches])
                if feeding.is_streamed(split, placement) else feed)
        new = state
        for index, counts in batches:
            new = programs.visit(new, rows, index, counts)
        return new

    def save(last):
        copies = unstack(programs.fetch(state), len(runs))
        for i, run in sound():
            try:
                hosts.from_main(functools.partial(run.save, step, copies[i], run.history,
                                                  last=last))
            except FloatingPointError as error:
                fail(i, error)

    def look(chunk, begin):
        """Writes the means of the metrics pending since `begin`; returns those over all runs."""
        values = {name: np.concatenate([np.asarray(m[name]).reshape(-1, len(runs))
                                        for m in pending]) for name in pending[0]}
        seconds = time.perf_counter() - begin       # the steps are done once their metrics are here
        rate = len(values["loss"]) * config.batch_size / seconds
        for i, run in sound():
            try:
                means = mean_metrics({name: x[:, i] for name, x in values.items()}, step)
            except FloatingPointError as error:
                fail(i, error)
                continue
            hosts.from_main(functools.partial(run.write, {
                "kind": "train", "step": step, "epoch": chunk.epoch + 1, "task": chunk.task,
                "examples_per_second": rate} | means))
        shown = {name.removeprefix("accuracy/"): mean_of_numbers(x[:, [i for i, _ in sound()]])
                 for name, x in values.items() if sound()}
        return {name: f"{x:.3f}" for name, x in shown.items()} | {"examples/s": f"{rate:.0f}"}

    with stop_signals() as stopped, tqdm(total=total, initial=step, unit="step", disable=not progress,
                                         mininterval=0.5) as bar:
        if setup.stream and step == 0:
            evaluate("test", -1, 0)     # what forward transfer is measured against
        if not total and not runs[0].history:
            evaluate("val", 0, config.epochs)
            evaluate("test", 0, config.epochs)
            save(last=True)
        begin = time.perf_counter()
        for chunk in _chunks(runs, setup.steps_per_call):
            called = time.perf_counter()
            phase = programs.phase(Progress(chunk.task, chunk.epoch, step))
            state, metrics = programs.steps(state, feed, chunk.index, phase)
            if progress and step == runs[0].step:
                jax.block_until_ready(metrics)
                tqdm.write(f"first call: {time.perf_counter() - called:.1f} s, compilation "
                           "included", file=sys.stderr)
            step = chunk.end
            pending.append(metrics)
            due = sum(len(m["loss"]) for m in pending) >= METRICS_EVERY or chunk.ends_epoch
            # Several hosts stop at the same step: they look for signals when they look at metrics.
            stop = stopped() if jax.process_count() == 1 else due and hosts.any_host(stopped())
            if due or stop:
                means = look(chunk, begin)
                many = f"{len(runs)} runs, " if len(runs) > 1 else ""
                bar.set_description(f"{many}epoch {chunk.epoch + 1}/{config.epochs}", refresh=False)
                bar.set_postfix(means, refresh=False)
                bar.update(step - bar.n)
                pending, begin = [], time.perf_counter()
            if chunk.ends_epoch and sound() and programs.end_epoch:
                state = programs.end_epoch(state, features_of)
            if chunk.ends_task and sound():
                state = programs.end_task(visited(chunk.task))
            if chunk.ends_epoch and sound():
                for split in splits_to_evaluate(setup, chunk, step == total):
                    evaluate(split, chunk.task, chunk.epoch + 1)
            if stop or chunk.ends_task or (
                    chunk.ends_epoch and (chunk.epoch + 1) % config.checkpoint_epochs == 0):
                save(last=stop or step == total)
            if not sound():
                break
            if stop and step < total:
                raise Preempted(f"stopped by a signal after step {step} of {total}; the state is "
                                "saved, and the same command goes on from there")
            if not pending:
                begin = time.perf_counter()     # evaluating and saving are not training
    copies = [state] if len(runs) == 1 else unstack(programs.fetch(state), len(runs))
    return [errors[i] if i in errors else
            Run(run.setup, copy if len(runs) == 1 else run.setup.programs.place(copy), run.history,
                run.changed if run.step == total else ())
            for i, (run, copy) in enumerate(zip(runs, copies))]


def describe_state(state: TrainState) -> str:
    """The number of parameters, and the size of the parts of one copy of a state, in a line."""
    sections = {"params": state.params, "optimizer": state.opt_state,
                "batch statistics": state.batch_stats} | dict(state.extra)
    mib = {name: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(part)) / 2**20
           for name, part in sections.items()}
    count = sum(x.size for x in jax.tree.leaves(state.params))
    parts = ", ".join(f"{name} {size:.1f}" for name, size in mib.items() if size)
    return f"{count:,} parameters; state of {sum(mib.values()):.1f} MiB: {parts}"


def _chunks(runs: Sequence[Opened], steps_per_call: int) -> Iterator[plan.Chunk]:
    """The chunks of all runs, which differ in the rows they take: index [K, S, B] if S > 1."""
    own = [plan.chunks(run.setup.tasks if run.setup.total_steps else [], run.setup.config.train,
                       steps_per_call, run.step) for run in runs]
    for chunks in zip(*own):
        index = [chunk.index for chunk in chunks]
        yield chunks[0]._replace(index=index[0] if len(runs) == 1 else np.stack(index, axis=1))


def splits_to_evaluate(setup: Setup, chunk: plan.Chunk, last: bool) -> list[str]:
    """Splits to look at after an epoch.

    A stream is evaluated at the end of each task, which is what its matrix of accuracies is made
    of; nothing is chosen by them. Otherwise test data is used once, at the end.
    """
    if setup.stream:
        return ["val", "test"] if chunk.ends_task else []
    due = last or (chunk.epoch + 1) % setup.config.train.eval_epochs == 0
    return ["val"] * due + ["test"] * last


def mean_metrics(values: Mapping[str, np.ndarray], step: int) -> dict[str, float]:
    """Means over the steps [K] since the last look, which end at `step`, where there is a number.

    Raises:
      FloatingPointError: one of their losses is not finite.
    """
    finite = np.isfinite(values["loss"])
    if not finite.all():
        first = step - len(finite) + int(np.argmin(finite)) + 1
        raise FloatingPointError(
            f"the loss of step {first} is {values['loss'][np.argmin(finite)]}; the last good "
            f"checkpoint is kept; {checkpoints.REMEDY}")
    means = {name: mean_of_numbers(x) for name, x in values.items()}
    return {name: mean for name, mean in means.items() if not np.isnan(mean)}


def mean_of_numbers(values: np.ndarray) -> float:
    """Mean of the values that are not NaN, as batches without a modality are; NaN if all are."""
    values = values[~np.isnan(values)]
    return float(values.mean(dtype=np.float64)) if values.size else np.nan
