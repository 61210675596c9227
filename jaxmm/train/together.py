"""Which runs one program can train together: those that differ in seeds and in scalars."""
from collections.abc import Sequence
from typing import Any

from jaxmm.config import Config
from jaxmm.train.runs import differences, to_dict

# Options that enter a step as numbers and nothing else: no shape, branch or form of the state
# depends on them.
SCALARS = ("optimizer.learning_rate", "optimizer.weight_decay", "method.alpha", "method.beta",
           "method.gamma", "method.lambda_", "method.weight")


def changed(configs: Sequence[Config]) -> set[str]:
    """Paths of the options in which the configs differ."""
    first, *others = map(to_dict, configs)
    return {path for other in others for path, _, _ in differences(first, other)}


def scalar_options(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """For each config, the values of the scalars in which they differ."""
    paths = changed(configs).intersection(SCALARS)
    return [{path: get(to_dict(config), path) for path in sorted(paths)} for config in configs]


def obstacle(configs: Sequence[Config]) -> str:
    """In what the configs differ that keeps their runs apart; "" if nothing does."""
    paths = sorted(changed(configs).difference(SCALARS, ["train.seed"]))
    return f"they differ in {', '.join(paths)}" if paths else ""


def get(values: dict[str, Any], path: str) -> Any:
    """The value at a path of nested dictionaries."""
    for key in path.split("."):
        values = values[key]
    return values
