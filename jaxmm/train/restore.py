"""Runs read back from their folders."""
import math
import pathlib
from collections.abc import Iterator, Sequence

import jax

from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError
from jaxmm.train import checkpoints, validity
from jaxmm.train.setup import Run, build, init_state
from jaxmm.train.runs import read_config


def restore(workdir, step: int | None = None, *, dataset: Dataset | None = None,
            devices: Sequence[jax.Device] | None = None) -> Run:
    """The run of a folder as it was after `step`, by default its last checkpoint.

    The folder is read only. For `dataset` and `devices` see `jaxmm.train.setup.build`; by default
    it runs on a number of devices that divides the batch. Splits that have changed since are named
    in a warning and in `Run.changed`, and the history has no scores of what they were.

    Raises:
      UserError: no run folder, no checkpoint (of that step), or none that is undamaged.
    """
    workdir = pathlib.Path(workdir)
    config = read_config(workdir)
    if not (workdir / checkpoints.FOLDER).is_dir():
        raise _no_checkpoint(workdir)
    if devices is None:     # as many as share the batch evenly: any number can read a run
        devices = jax.local_devices()
        devices = devices[:math.gcd(len(devices), config.train.batch_size)]
    setup = build(config, dataset=dataset, devices=devices)
    manager = checkpoints.open_manager(workdir)
    restored = checkpoints.restore(manager, setup.programs.fetch(init_state(setup)), step)
    manager.close()
    if restored is None:
        raise _no_checkpoint(workdir)
    step, state, meta = restored
    run = Run(setup, setup.programs.place(state), meta["history"],
              validity.changed_splits(setup, meta))
    validity.warn(workdir, setup, meta, run.changed)
    return _rescore(run, step)


def restore_each(run: Run, workdir) -> Iterator[tuple[int, Run]]:
    """The run as it was at every checkpoint in its folder, the oldest first.

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
            continue        # removed meanwhile, as training goes on
        yield step, _rescore(Run(setup, setup.programs.place(state), meta["history"],
                                 run.changed), step)
    manager.close()


def _rescore(run: Run, step: int) -> Run:
    return run._replace(history=validity.rescore(
        run.setup, run.state, run.history, step, run.changed))


def _no_checkpoint(workdir: pathlib.Path) -> UserError:
    return UserError(f"{workdir} has no checkpoint yet; run launch.train with this --workdir")
