"""Trains runs, alone or in groups, after their teachers."""
import contextlib
import functools
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from tqdm import tqdm

from jaxmm import files
from jaxmm.config import Config, with_encoders
from jaxmm.data.dataset import Dataset
from jaxmm.data.spec import from_json
from jaxmm.files import PathLike
from jaxmm.methods.common import TrainState
from jaxmm.train import hosts
from jaxmm.train.group import Group
from jaxmm.train.loop import run_steps
from jaxmm.train.opened import Opened, check_start, kept, open_run, state_from_main
from jaxmm.train.setup import Run, is_finished
from jaxmm.train.teaching import folder_of, restore_teachers, taught, teacher_config
from jaxmm.train.together import build_many, find_obstacle
from jaxmm.train.weights import named, names_weights


def train(config: Config, workdir: PathLike, *, dataset: Dataset | None = None,
          devices: Sequence[jax.Device] | None = None, progress: bool = True,
          teachers: str = "", extend: bool = False) -> Run:
    """Trains in a run folder, or resumes from its last checkpoint.

    It evaluates on validation data every `train.eval_epochs` epochs, and on test data once, at the end.
    The model that is tested is that of the last epoch, or of the best with `train.keep` "best".

    Args:
      config: all options.
      workdir: the run folder.
      dataset: see `build`.
      devices: see `build`.
      progress: whether to show a progress bar.
      teachers: folders for the models to be trained first, if the config names none; {teacher}
        stands for the name of each, {seed} for its seed. By default they are in the run folder.
      extend: whether a run whose learning rate depends on the number of epochs may get more of them.

    Raises:
      UserError: the config cannot be run, or the folder belongs to another one, or another process
        trains in it.
      WriteError: the disk is full; the last good checkpoint is kept.
      FloatingPointError: the loss is not finite; the last good checkpoint is kept.
      Preempted: a signal asked to stop (see `signals`); the state was saved first.
    """
    result, = train_many([config], [workdir], dataset=dataset, devices=devices, progress=progress,
                         teachers=[teachers], extend=extend)
    if isinstance(result, FloatingPointError):
        raise result
    return result


def train_many(configs: Sequence[Config], workdirs: Sequence[PathLike], *,
               dataset: Dataset | None = None, devices: Sequence[jax.Device] | None = None,
               progress: bool = True, teachers: Sequence[str] = (), extend: bool = False,
               ) -> Iterator[Run | FloatingPointError]:
    """`train` for several configs: together if one program can, otherwise one after the other.

    One program can train runs that differ in seeds and in the scalars of `jaxmm.train.together`, if
    the tasks of their streams take the same number of steps. Each run has its own folder and the same
    results as alone: to the bit on CPU, up to rounding elsewhere. Runs that resume from different steps
    are trained separately.
    `teachers` has one value for each run, if any.

    Yields:
      In the order of the configs, the run or, if its loss was not finite, the error. The other runs
      are not affected by it.

    Raises:
      UserError, WriteError, Preempted: see `train`.
    """
    paths = [files.expand(workdir) for workdir in workdirs]
    noted = hosts.from_main(lambda: [kept(*run, extend) for run in zip(configs, paths)])
    setups = list(build_many([with_encoders(config, known["encoders"]) for config, known in zip(configs, noted)],
                             dataset=dataset, devices=devices,
                             specs=[known["spec"] and from_json(known["spec"]) for known in noted]))

    def check():
        for setup, workdir in zip(setups, paths):
            check_start(setup, workdir, extend)

    hosts.from_main(check)
    progress = progress and hosts.is_main()
    obstacle = find_obstacle(setups)
    if obstacle and len(configs) > 1 and progress:
        print(f"{len(configs)} runs one after the other: {obstacle}", file=sys.stderr)
    options = {"dataset": dataset, "devices": devices, "progress": progress, "extend": extend}
    locations = [teachers[i] if i < len(teachers) and teachers[i] else
                 f"{workdir}/teachers/{{teacher}}" for i, workdir in enumerate(paths)]
    runs = list(zip(setups, paths, locations))
    for group in [[run] for run in runs] if obstacle else [runs]:
        yield from _train_group(group, options)


def _train_group(group, options) -> list[Run | FloatingPointError]:
    """Trains runs that one program can train; those at the same step are trained together."""
    with contextlib.ExitStack() as folders:
        runs = [folders.enter_context(open_run(setup, workdir, options["extend"]))
                for setup, workdir, _ in group]
        runs = [start_from(run) for run in runs]
        runs, errors = teach(runs, [location for _, _, location in group], options)
        runs = [begin(run) for run in runs]
        results: dict[pathlib.Path, Run | FloatingPointError] = dict(errors)
        for step in sorted({run.step for run in runs}):
            same = [run for run in runs if run.step == step]
            finished = is_finished(same[0].setup, same[0].history)
            for part in [[run] for run in same] if finished else [same]:
                done = run_steps(Group(part, options["devices"]), options["progress"])
                results |= {run.workdir: result for run, result in zip(part, done)}
        return [results[workdir] for _, workdir, _ in group]


def teach(runs: Sequence[Opened], locations: Sequence[str], options: Mapping[str, Any]
          ) -> tuple[list[Opened], dict[pathlib.Path, FloatingPointError]]:
    """The runs, with their teachers' weights in those that have not made a step yet.

    Runs with a teacher that diverged are left out; the second value holds their errors, by folder.

    Teachers are restored if the config names their folders. Otherwise they are trained first, for all
    runs together; finished ones are reused.

    Args:
      runs: of one method.
      locations: of the folders of each run's teachers, with {teacher} for their names.
      options: dataset, devices, progress of `train_many`.
    """
    places = {run.workdir: location for run, location in zip(runs, locations)
              if run.setup.programs.teachers and not run.step and not run.history}
    new = [run for run in runs if run.workdir in places]
    errors: dict[pathlib.Path, FloatingPointError] = {}
    if any(getattr(run.setup.config.method, "teachers", "") for run in new):
        states = {run.workdir: learn(run, options) for run in new}
    else:
        models, errors = train_teachers(new, places, options)
        states = {run.workdir: taught(run.setup, run.state, models[run.workdir])
                  for run in new if run.workdir not in errors}
    return [run._replace(state=states.get(run.workdir, run.state)) for run in runs
            if run.workdir not in errors], errors


def start_from(run: Opened) -> Opened:
    """The run, with the weights that its config names if it has not made a step yet."""
    if run.step or run.history or not names_weights(run.setup.config):
        return run
    return run._replace(state=state_from_main(run.state, functools.partial(named, run.setup)))


def begin(run: Opened) -> Opened:
    """The run, with what its method notes of its first state if it has not made a step yet."""
    if run.step or run.history or not run.setup.programs.begin:
        return run
    return run._replace(state=run.setup.programs.begin(run.state))


def learn(run: Opened, options: Mapping[str, Any]) -> TrainState:
    """The first state of a run, with the weights of the teachers that its config names."""
    return state_from_main(run.state, lambda state: taught(run.setup, state, restore_teachers(
        run.setup, dataset=options["dataset"], devices=options["devices"])))


def train_teachers(runs: Sequence[Opened], places: Mapping[pathlib.Path, str],
                   options: Mapping[str, Any]) -> tuple[
        dict[pathlib.Path, dict[str, TrainState]], dict[pathlib.Path, FloatingPointError]]:
    """By the folder of each run, the final states of its teachers, and the error if one diverged.

    `places` says where the teachers' folders are.
    """
    models: dict[pathlib.Path, dict[str, TrainState]] = {run.workdir: {} for run in runs}
    errors: dict[pathlib.Path, FloatingPointError] = {}
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
