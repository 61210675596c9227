"""Which runs one program can train together: those that differ in seeds and in scalars."""
from collections.abc import Sequence

from jaxmm.config import Config
from jaxmm.train.runs import differences, to_dict

# Options that enter a step as numbers and nothing else: no shape, branch or form of the state
# depends on them.
SCALARS = ("optimizer.learning_rate", "optimizer.weight_decay", "method.alpha", "method.beta",
           "method.gamma", "method.lambda_", "method.weight")
SEEDS = ("train.seed", "stream.seed")


def changed(configs: Sequence[Config]) -> set[str]:
    """Paths of the options in which the configs differ."""
    first, *others = map(to_dict, configs)
    return {path for other in others for path, _, _ in differences(first, other)}


def scalar_options(config: Config) -> dict[str, float]:
    """The values of the scalars that the config has."""
    sections = to_dict(config)
    paths = [path.split(".") for path in SCALARS]
    return {f"{section}.{name}": sections[section][name] for section, name in paths
            if name in sections[section]}


def obstacle(configs: Sequence[Config]) -> str:
    """In what the configs differ that keeps their runs apart; "" if nothing does."""
    paths = sorted(changed(configs).difference(SCALARS, SEEDS))
    return f"they differ in {', '.join(paths)}" if paths else ""

