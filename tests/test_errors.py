import pathlib
import re
import sys

import pytest

import jaxmm
from jaxmm import errors
from jaxmm.errors import UserError


@pytest.mark.parametrize("program, said", [
    ("/home/me/venv/bin/jaxmm", "jaxmm predict"), ("/srv/jaxmm/__main__.py", "python -m jaxmm predict"),
    ("/home/me/checkout/launch/train.py", "python -m launch.predict"), ("", "jaxmm predict"),
    ("/usr/lib/pytest/__main__.py", "jaxmm predict"), ("my/train.py", "jaxmm predict")])
def test_a_command_is_named_as_the_one_that_runs_was_typed(program, said, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program])
    assert errors.as_typed("predict") == said
    text = "Made by `jaxmm predict`, and not jaxmm predict:\n\n    jaxmm predict --x=jaxmm\n"
    assert errors.all_as_typed(text) == text.replace("`jaxmm predict", f"`{said}").replace(
        "    jaxmm predict", f"    {said}")


def test_no_message_names_a_command_in_one_way_alone():
    """The launchers are there in a checkout, `jaxmm` where it is installed: `errors.as_typed` says which."""
    folder = pathlib.Path(jaxmm.__file__).parent
    found = {str(path.relative_to(folder)): re.findall(r"launch\.[a-z]+", path.read_text())
             for path in folder.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("name, end", [
    ("adam", "; did you mean adamw? Expected one of sgd, adamw"), ("xyz", "; expected one of sgd, adamw")])
def test_a_wrong_name_is_said_with_the_nearest(name, end):
    with pytest.raises(UserError) as error:
        errors.check_choice("optimizer.name", name, ("sgd", "adamw"))
    assert str(error.value) == f"optimizer.name={name!r}{end}"
