"""What runs start from: pretrained encoders in files, the weights of another run."""
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmm import files
from jaxmm.config import Config
from jaxmm.data.dataset import say
from jaxmm.errors import UserError, of
from jaxmm.methods.common import TrainState
from jaxmm.pretrained import load
from jaxmm.train import checkpoints
from jaxmm.train.folder import read_config
from jaxmm.train.restore import read_kept
from jaxmm.train.setup import Setup, kinds, state_shapes

SECTIONS = ("params/", "batch_stats/")


def read_pretrained(setup: Setup) -> dict[str, dict[str, Any]]:
    """{"params", "batch_stats"} by modality, of the encoders whose weights lie in files.

    Raises:
      UserError: a file cannot be read, is another one than was noted, or does not fit the encoder.
    """
    config, found = setup.config, {}
    chosen = {m: c for m, c in config.encoders.items() if c.weights or c.frozen}
    state = state_shapes(setup) if chosen else None
    for m, c in chosen.items():
        if m not in state.params:       # of another modality than this run has
            continue
        if not state.params[m]:
            say(f"encoders.{m}: {config.method.name} has no encoder of {m} with parameters, so the options "
                "`weights` and `frozen` change nothing")
        elif c.weights:
            with of(f"encoders.{m}"):
                like = {"params": state.params[m], "batch_stats": state.batch_stats[m]}
                found[m] = load.load(c, kinds(config, setup.spec)[m], like, setup.shapes[m][-3:][:2])
        elif not config.train.init_from and not setup.programs.teachers:
            say(f"encoders.{m}.frozen: its parameters are random and stay so; `weights`, or train.init_from, says "
                "what to start from")
    return found


def pretrained(setup: Setup, state: TrainState) -> TrainState:
    """One copy of a first state with the pretrained weights; see `read_pretrained`."""
    found = jax.tree.map(jnp.array, read_pretrained(setup))     # copied, as steps donate their state
    parts = {part: getattr(state, part) | {m: getattr(state, part)[m] | tree[part] for m, tree in found.items()}
             for part in ("params", "batch_stats")}
    return state._replace(**parts)


def names_weights(config: Config) -> bool:
    """Whether a run starts from other weights than those that its seed draws."""
    return bool(config.train.init_from) or any(c.weights for c in config.encoders.values())


def named(setup: Setup, state: TrainState) -> TrainState:
    """One copy of a first state with the weights that the config names: pretrained ones, then those of the run
    in `train.init_from`."""
    state = pretrained(setup, state)
    return init_from(setup, state) if setup.config.train.init_from else state


def init_from(setup: Setup, state: TrainState) -> TrainState:
    """One copy of a first state with the weights of the run that `train.init_from` names.

    Parameters and batch statistics with the same name and shape are taken; all others, of either run,
    are listed in a warning. They go before pretrained ones.

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
