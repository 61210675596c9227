"""Recipes: whole ways of training, each a method with options of its run, in place of a config's method.

    jaxmm train --config=av_digits:recipe=default
    jaxmm compare --config=cremad --methods=recipe=default,recipe=strong,mla --seeds=3

A recipe takes data, encoders and all else from the config. They all predict by the product of calibrated
predictions (`train.experts`).
"""
from collections.abc import Callable
from typing import NamedTuple

from jaxmm.config import Config, replace
from jaxmm.errors import UserError, suggest
from jaxmm.report.variants import RECIPE

RATE = 1e-2     # the least of SGD, where encoders are to learn long


class Recipe(NamedTuple):
    """A method with its options, and how long it trains."""
    method: str
    about: str
    options: dict[str, bool | str] = {}     # of the method
    longer: int = 1     # multiple of the config's epochs, whose SGD then has `RATE` at least


RECIPES = {
    "default": Recipe("late", "a model of each modality, twice as long: the simplest, with no interplay to lose", longer=2),
    "ensemble": Recipe("ume", "separate models, with as many epochs as a teacher and its student together", longer=2),
    "no_tuning": Recipe("tcmax", "a bound on total correlation under a shared head, with nothing to choose"),
    "robust": Recipe("aux_ce", "encoders that learn from their own losses alone, for data where modalities are missing",
                     {"detach_fusion": True}),
    "alternate": Recipe("mla_tcmax", "one modality at a time, the last fifth of the steps all under the same head"),
    "strong": Recipe("g2d", "distillation from unimodal models, the weaker modalities first: the strongest by "
                     "published ablations, and the costliest"),
}


def names() -> list[str]:
    """The recipes as --config and --methods take them."""
    return [f"{RECIPE}{name}" for name in RECIPES]


def config_of(name: str, load: Callable[[str], Config]) -> Config:
    """The config of a recipe.

    Args:
      name: "recipe=NAME".
      load: the config of a method.

    Raises:
      UserError: there is no such recipe.
    """
    if name not in names():
        raise UserError(f"{name}: no such recipe{suggest(name, names())}")
    recipe = RECIPES[name.removeprefix(RECIPE)]
    config = load(recipe.method)
    options = {f"method.{option}": value for option, value in recipe.options.items()} | {"train.experts": "fitted"}
    if recipe.longer > 1:
        options |= {"train.epochs": recipe.longer * config.train.epochs,
                    "optimizer.decay_epochs": recipe.longer * config.optimizer.decay_epochs}
        if config.optimizer.name == "sgd":
            options["optimizer.learning_rate"] = max(config.optimizer.learning_rate, RATE)
    return replace(config, options)
