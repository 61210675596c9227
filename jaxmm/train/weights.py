"""Runs that start from the weights of another one."""
import numpy as np

from jaxmm import files
from jaxmm.data.dataset import say
from jaxmm.errors import UserError
from jaxmm.methods.common import TrainState
from jaxmm.train import checkpoints
from jaxmm.train.folder import read_config
from jaxmm.train.restore import read_kept
from jaxmm.train.setup import Setup

SECTIONS = ("params/", "batch_stats/")


def init_from(setup: Setup, state: TrainState) -> TrainState:
    """One copy of a first state with the weights of the run that `train.init_from` names.

    Parameters and batch statistics with the same name and shape are taken; all others, of either run,
    are listed in a warning.

    Raises:
      UserError: the folder has no run with a checkpoint, or nothing in it matches.
    """
    folder = files.expand(setup.config.train.init_from)
    own = setup._replace(config=read_config(folder))
    trained = (folder / checkpoints.FOLDER).is_dir()
    found = read_kept(folder, own, None, scores=()) if trained else None
    if found is None:
        raise UserError(f"train.init_from={folder}: this run has no checkpoint yet; train it first")
    _, known, _, _ = found
    leaves = checkpoints.flatten(state)
    names = [name for name in leaves if name.startswith(SECTIONS)]
    same = [name for name in names if name in known and (
        known[name].shape, known[name].dtype) == (leaves[name].shape, leaves[name].dtype)]
    if not same:
        raise UserError(f"train.init_from={folder}: nothing in it has the name and shape of a parameter here, "
                        f"such as {names[0]} {list(np.shape(leaves[names[0]]))}; choose a run with the same "
                        "modalities and encoders")
    for what, rest in (("starts afresh", set(names).difference(same)),
                       ("of it is not used", {n for n in known if n.startswith(SECTIONS)}.difference(same))):
        if rest:
            say(f"train.init_from={folder}: {what}: {', '.join(sorted(rest))}")
    return checkpoints.unflatten(state, leaves | {name: known[name] for name in same})
