"""Which runs one program can train together: those that differ in seeds and in scalars."""
from collections.abc import Sequence
from typing import Any

import jax

from jaxmm.config import Config
from jaxmm.train.runs import differences, to_dict

# Options that enter a step as numbers and nothing else: no shape, branch or stored state of
# another form depends on them.
SCALARS = ("optimizer.learning_rate", "optimizer.weight_decay", "method.alpha", "method.beta",
           "method.gamma", "method.lambda_", "method.weight")
PER_RUN = ("train.seed", *SCALARS)


def scalar_options(configs: Sequence[Config]) -> list[dict[str, float]]:
    """For each config, the values of the scalars in which they differ."""
    dicts = [to_dict(config) for config in configs]
    paths = [path for path in SCALARS if path in _changed(dicts)]
    return [{path: _get(values, path) for path in paths} for values in dicts]


def obstacle(configs: Sequence[Config], *, convolves: bool, streamed: bool) -> str:
    """Why runs of these configs are not trained together; "" if they can be.

    Args:
      configs: of the runs.
      convolves: whether one of the encoders has convolutions.
      streamed: whether the training rows are streamed from the host.
    """
    others = sorted(_changed([to_dict(config) for config in configs]) - set(PER_RUN))
    if others:
        return f"they differ in {', '.join(others)}"
    if streamed:
        return "their rows are streamed from the host"
    if convolves and jax.default_backend() == "cpu":
        return "convolutions over several runs at once are slower on CPU"
    return ""


def _changed(dicts: Sequence[dict[str, Any]]) -> set[str]:
    return {path for other in dicts[1:] for path, _, _ in differences(dicts[0], other)}


def _get(values: dict[str, Any], path: str) -> Any:
    for key in path.split("."):
        values = values[key]
    return values
