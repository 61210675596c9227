"""Options by stream, method and size of the memory, `configs/tuned.csv`, in the configs that read them."""
import csv

import pytest

from jaxmm.config import EncoderConfig, replace
from jaxmm.errors import UserError
from jaxmm.experiments import configs
from jaxmm.train.options import to_dict


def test_options_are_those_of_the_config_of_their_row():
    """A row without a size holds for any, and a method with a memory gets the one that was named."""
    with open(configs.folder() / "tuned.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["stream"] for row in rows} == {"seq_mnist", "seq_av_digits", "dom_av_digits", "gcil_av_digits"}
    for row in rows:
        size = row["buffer"] or "77" * (row["stream"] != "seq_mnist")
        config = configs.load(f"{row['stream']}:{row['method']}" + f",{size}" * bool(size))
        method, _, option = row["method"].partition("+")
        assert config.method.name == method
        assert not size or getattr(config.method, "capacity", int(size)) == int(size)
        expected = dict(pair.split("=") for pair in f"{row['options']} method.{option}".split() if "=" in pair)
        for path, value in expected.items():
            found = to_dict(config)
            for key in path.split("."):
                found = found[key]
            assert str(found).lower() == value or float(found) == float(value), (row, path)


def test_a_method_alone_has_the_options_of_its_paper():
    """And the third modality keeps its own network beside tuned options."""
    paper = configs.load("seq_av_digits:samm").method
    assert (paper.lambda_, paper.beta, paper.gamma) == (0.01, 25.0, 1.0)
    two, three = configs.load("seq_av_digits:samm,50"), configs.load("seq_avt_digits:samm,50")
    assert three == replace(two, {"data.name": "avt_digits", "encoders": two.encoders | {"text": EncoderConfig(name="mlp")}})


@pytest.mark.parametrize("name, message", [
    ("seq_mnist:er,77", "configs/tuned.csv has options of er with memories of 200, 500, not of 77; leave out ',77'"),
    ("gcil_av_digits:pmr,50", "configs/tuned.csv has no options of pmr on gcil_av_digits, for any memory"),
    ("seq_mnist:er,few", "seq_mnist:er,few: capacity='few' of er; expected a whole number")])
def test_what_nothing_was_chosen_for_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        configs.load(name)
