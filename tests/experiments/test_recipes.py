import dataclasses

import jax
import pytest

from jaxmm import data
from jaxmm.config import replace
from jaxmm.errors import UserError
from jaxmm.experiments import compare, configs, planning, recipes
from jaxmm.train.restore import restore

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_is_the_config_of_its_method_with_options(name):
    """And nothing else of the config changes; epochs that are more, with the steps of the rate."""
    recipe = recipes.RECIPES[name]
    for path, rate in (("cremad", 1e-3), ("av_digits", 0.05)):
        plain, found = configs.load(f"{path}:{recipe.method}"), configs.load(f"{path}:recipe={name}")
        assert plain.optimizer.learning_rate == rate
        assert found.train.epochs == recipe.longer * plain.train.epochs
        assert found.optimizer.learning_rate == (max(rate, 1e-2) if recipe.longer > 1 else rate)
        assert found.optimizer.decay_epochs == recipe.longer * plain.optimizer.decay_epochs
        assert found.train.experts == "fitted"
        assert found.method == dataclasses.replace(plain.method, **recipe.options)
        same = {"train.epochs": 1, "train.experts": "", "optimizer.learning_rate": 1.0, "optimizer.decay_epochs": 1,
                "method": plain.method}
        assert replace(found, same) == replace(plain, same)


def test_options_that_are_given_replace_those_of_a_recipe_and_adam_keeps_its_rate():
    chosen = configs.Chosen("cremad:mla,smoke", configs.load("cremad"), {"train.epochs": 7})
    found = configs.config_for(chosen, "recipe=default")
    assert (found.method.name, found.train.epochs, found.train.batch_size) == ("late", 7, 2)
    adam = configs.load("iemocap_features:recipe=default")
    assert adam.optimizer.name == "adam"
    assert adam.optimizer.learning_rate == configs.load("iemocap_features:late").optimizer.learning_rate
    with pytest.raises(UserError, match="recipe=strang: no such recipe; did you mean recipe=strong"):
        configs.load("av_digits:recipe=strang")


def test_recipes_are_rows_of_a_comparison_and_their_teachers_train_as_they_do(choose_arrays, tmp_path):
    chosen = choose_arrays((24, 16, 8), {"train.batch_size": 8})
    folder = tmp_path / "work"
    runs = planning.plan(lambda name: configs.config_for(chosen, name), ["ume", "recipe=ensemble"], 1,
                         data.load(chosen.config.data), folder)
    assert [run.teachers for run in runs] == [f"{folder}/{{teacher}}/seed_{{seed}}", ""]
    assert [run.config.train.epochs for run in runs] == [20, 40]
    short = chosen._replace(overrides=chosen.overrides | {"train.epochs": 1})
    said = compare.compare(short, ["recipe=ensemble"], 1, str(folder), (), False, "command").splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said if line.startswith("| ")]
    assert cells[0] == ["method", "image", "sound", "fused", "experts"] and cells[-1][0] == "recipe=ensemble"
    found = restore(folder / "recipe=ensemble/seed_0", devices=jax.devices()[:1]).state.experts        # which makes no steps itself
    assert len(found.weight) == 2 and any(float(w) != 1 for w in found.weight.values())
