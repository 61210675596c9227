"""Runs read back from their folders."""
import math
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax

from jaxmm import files
from jaxmm.config import replace
from jaxmm.data.dataset import SPLITS, Dataset
from jaxmm.data.spec import absent
from jaxmm.errors import UserError, as_typed
from jaxmm.files import PathLike
from jaxmm.methods.common import TrainState
from jaxmm.task import CLASS_SCORES, LATER
from jaxmm.train import checkpoints, validity
from jaxmm.train.scores import best
from jaxmm.train.setup import Run, Setup, build, state_shapes
from jaxmm.train.folder import read_config, read_spec


def restore(workdir: PathLike, step: int | None = None, *, dataset: Dataset | None = None,
            data: str | None = "", devices: Sequence[jax.Device] | None = None) -> Run:
    """The run of a folder as it was after `step`, by default its last checkpoint, or with `train.keep`
    "best" that of the best epoch so far.

    The folder is only read, and holds all that predicting needs. If the data are gone, asking for a
    split of `Run.setup.dataset` raises UserError. For `dataset` and `devices` see
    `jaxmm.train.setup.build`; by default it runs on a number of devices that divides the batch. Splits
    that have changed since are named in a warning and in `Run.changed`, and the history leaves out the
    scores of their earlier content.

    Args:
      workdir: the run folder.
      step: of a checkpoint.
      dataset: in place of the one that its config names.
      data: the path of its data now, in place of `data.path` of its config; None: do not read them.
      devices: to run on.

    Raises:
      UserError: it is not a run folder, has no undamaged checkpoint (of that step), or the data have
        another form than those it was trained on.
    """
    workdir = files.expand(workdir)
    config, spec = read_config(workdir), read_spec(workdir)
    if data:
        config = replace(config, {"data.path": data})
    path, from_python = config.data.path, config.data.name == "arrays" and not config.data.path
    gone = from_python or path and not files.expand(path).exists()
    if dataset is None and spec and (data is None or not data and gone):
        where = "were given from Python" if from_python else f"{path or config.data.name} is not there"
        dataset = absent(spec, f"{workdir}: the data it was trained on are needed for this, and "
                         f"{where}; name them by --data=PATH")
    if not (workdir / checkpoints.FOLDER).is_dir():
        raise _no_checkpoint(workdir)
    if devices is None:     # as many as share the batch evenly: any number can read a run
        devices = jax.local_devices()
        devices = devices[:math.gcd(len(devices), config.train.batch_size)]
    setup = build(config, dataset=dataset, spec=spec, devices=devices)
    found = read_kept(workdir, setup, state_shapes(setup), step)
    if found is None:
        raise _no_checkpoint(workdir)
    kept, state, history, meta = found
    validity.check_spec(workdir, setup, meta)
    run = Run(setup, setup.programs.place(state), history, validity.changed_splits(setup, meta))
    validity.warn(workdir, setup, meta, run.changed)
    return _rescore(run, kept)


def read_kept(workdir: pathlib.Path, setup: Setup, target: TrainState, step: int | None = None,
              scores: Collection[str] | None = None,
              ) -> tuple[int, TrainState, list[dict[str, Any]], Mapping[str, Any]] | None:
    """(step, one copy of the state, history, meta) of the model that a run keeps, or of `step`.

    None where there is no checkpoint. For `target` see `checkpoints.restore`; `scores` are those that
    `read_history` expects, by default the task's.
    """
    manager = checkpoints.open_manager(workdir)
    restored = checkpoints.restore(manager, target, step)
    if restored is None:
        return None
    newest, state, meta = restored
    history = read_history(workdir, meta, setup.task.scores if scores is None else scores)
    kept = newest if step is not None else kept_step(setup, history, newest)
    if kept != newest:
        _, state, _ = checkpoints.restore(manager, target, kept)
    manager.close()
    return kept, state, history, meta


def kept_step(setup: Setup, history: Sequence[Mapping[str, Any]], step: int) -> int:
    """The step of the model that a run keeps, which has made `step`: with `train.keep` "best" that of
    the best evaluation so far."""
    config = setup.config.train
    found = best(history, config.score, setup.task) if config.keep == "best" else None
    return found["step"] if found else step


def restore_each(run: Run, workdir: PathLike) -> Iterator[tuple[int, Run]]:
    """The run as it was at every checkpoint in its folder, the oldest first.

    Checkpoints that a process training there removes meanwhile are left out.

    Raises:
      UserError: one of them is damaged.
    """
    setup = run.setup
    target = setup.programs.fetch(run.state)
    manager = checkpoints.open_manager(pathlib.Path(workdir))
    for step in sorted(manager.all_steps()):
        try:
            _, state, meta = checkpoints.restore(manager, target, step)
        except UserError:
            if step in manager.all_steps():
                raise
            continue        # removed meanwhile, as training continues
        history = read_history(workdir, meta, setup.task.scores)
        yield step, _rescore(Run(setup, setup.programs.place(state), history, run.changed), step)
    manager.close()


def _rescore(run: Run, step: int) -> Run:
    return run._replace(history=validity.rescore(
        run.setup, run.state, run.history, step, run.changed))


def read_history(workdir: PathLike, meta: Mapping[str, Any],
                 scores: Collection[str] = CLASS_SCORES) -> list[dict[str, Any]]:
    """The evaluations of a run, from the `meta` of a checkpoint, which is checked as a whole.

    `scores` are those of the task, which every evaluation holds, but for those that came later.

    Raises:
      UserError: they have another form, as a checkpoint may have that was made elsewhere.
    """
    history, data = meta.get("history"), meta.get("data")
    if not isinstance(data, (int, Mapping)) or not isinstance(meta.get("teachers", {}), Mapping):
        raise UserError(f"{workdir}: its checkpoint says nothing about its data or teachers; it may be "
                        "of another version")
    records: list[Any] = history if isinstance(history, list) else [None]
    for i, record in enumerate(records):
        if not _is_evaluation(record, scores):
            raise UserError(f"{workdir}: the history in its checkpoint is of another form (record "
                            f"{i}); it may be of another version")
    return records


def _is_evaluation(record: Any, scores: Collection[str]) -> bool:
    if not isinstance(record, dict) or record.get("split") not in SPLITS:
        return False
    over_tasks = [record[name] for name in ("class_incremental", "task_incremental", "examples", "recency")
                  if name in record]
    return (all(type(record.get(name)) is int for name in ("step", "epoch", "task"))
            and _by_head(record.get("scores"), lambda by_metric: isinstance(by_metric, dict)
                         and set(scores) - set(LATER) <= set(by_metric) and all(map(_is_number, by_metric.values())))
            and all(_by_head(x, lambda values: isinstance(values, list) and all(
                v is None or _is_number(v) for v in values)) for x in over_tasks))


def _by_head(values: Any, sound: Callable[[Any], bool]) -> bool:
    return isinstance(values, dict) and all(map(sound, values.values()))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _no_checkpoint(workdir: pathlib.Path) -> UserError:
    return UserError(f"{workdir} has no checkpoint yet; run `{as_typed('train')}` with this --workdir")
