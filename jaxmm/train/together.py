"""Which runs one program can train together, those that differ in seeds and in scalars, and that program."""
import itertools
import json
from collections.abc import Iterator, Sequence

import jax

from jaxmm.config import Config, replace, scalar_paths
from jaxmm.data.dataset import Dataset
from jaxmm.data.spec import DataSpec
from jaxmm.train import plan, setup as setup_lib
from jaxmm.train.options import check_single, differences, to_dict
from jaxmm.train.programs import make_programs
from jaxmm.train.setup import Setup

SEEDS = ("train.seed", "stream.seed")


def build_many(configs: Sequence[Config], *, dataset: Dataset | None = None,
               specs: Sequence[DataSpec | None] = (),
               devices: Sequence[jax.Device] | None = None) -> Iterator[Setup]:
    """`build` for every config; those that differ in their seeds alone share what is compiled.

    The seed of a stream decides on its data, which are made again where there is one.

    `specs` are those that runs have kept, if any.
    """
    built, first = {}, {}
    for config, spec in itertools.zip_longest(configs, specs):
        check_single(config)
        method = json.dumps(to_dict(replace(config, dict.fromkeys(SEEDS, 0))), sort_keys=True)
        key = method, config.stream.kind and config.stream.seed, spec and spec.checksum
        if key not in built:
            built[key] = setup_lib.build(config, dataset=dataset, spec=spec, devices=devices, like=first.get(method))
            first.setdefault(method, built[key])
        # What the files of weights say of the encoders included.
        yield built[key]._replace(config=replace(built[key].config, {
            "train.seed": config.train.seed, "stream.seed": config.stream.seed}))


def find_obstacle(setups: Sequence[Setup]) -> str:
    """Why one program cannot train these runs; "" if it can."""
    obstacle = difference([setup.config for setup in setups]) or setups[0].obstacle
    steps = {tuple(plan.steps_per_epoch(task, setup.config.train.batch_size)
                   for task in setup.tasks) for setup in setups}
    if len(setups) > 1 and len(setups) * setup_lib.state_size(setups[0]) > setup_lib.memory_size():
        obstacle = obstacle or "the memory does not hold all at once"
    return obstacle or ("their tasks take different numbers of steps" if len(steps) > 1 else "")


def changed(configs: Sequence[Config]) -> set[str]:
    """Paths of the options in which the configs differ."""
    first, *others = map(to_dict, configs)
    return {path for other in others for path, _, _ in differences(first, other)}


def difference(configs: Sequence[Config]) -> str:
    """Which differences between the configs prevent one program for them; "" if none does."""
    paths = sorted(changed(configs).difference(scalar_paths(configs[0]), SEEDS))
    return f"they differ in {', '.join(paths)}" if paths else ""


def join(setups: Sequence[Setup], devices: Sequence[jax.Device] | None = None) -> Setup:
    """The setup of the first run, with programs that train all of them at once."""
    programs = make_programs(setups[0].make_method, devices, [setup.options for setup in setups],
                             setups[0].to_float32)
    return setups[0]._replace(programs=programs)
