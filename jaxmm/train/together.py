"""Which runs one program can train together: those that differ in seeds and in scalars."""
import dataclasses
import functools
from collections.abc import Sequence

from jaxmm.config import Config
from jaxmm.train.runs import differences, to_dict

SEEDS = ("train.seed", "stream.seed")


def changed(configs: Sequence[Config]) -> set[str]:
    """Paths of the options in which the configs differ."""
    first, *others = map(to_dict, configs)
    return {path for other in others for path, _, _ in differences(first, other)}


def scalar_paths(config: Config) -> list[str]:
    """Paths of the options that enter a step as numbers, see `jaxmm.config.scalar`."""
    return [f"{section}.{option.name}" for section in ("optimizer", "method")
            for option in dataclasses.fields(getattr(config, section)) if "scalar" in option.metadata]


def scalar_options(config: Config) -> dict[str, float]:
    """The values of these options by path."""
    return {path: functools.reduce(getattr, path.split("."), config)
            for path in scalar_paths(config)}


def obstacle(configs: Sequence[Config]) -> str:
    """In what the configs differ that keeps their runs apart; "" if nothing does."""
    paths = sorted(changed(configs).difference(scalar_paths(configs[0]), SEEDS))
    return f"they differ in {', '.join(paths)}" if paths else ""

