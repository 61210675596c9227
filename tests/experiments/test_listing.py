import dataclasses
import subprocess
import sys

import pytest

from jaxmm.config import Config, EncoderConfig, PREPROCESS
from jaxmm.errors import UserError
from jaxmm.experiments import configs, listing, sources
from jaxmm.methods import METHODS

SOURCE = '''
@dataclass
class Base:
    """Options.

    Of all."""
    name: str = "x"                 # the method
    width: int = 3                  # channels; 0: those of
                                    # the input
    bare: bool = True

    # of nothing


@dataclass
class Options(Base):
    """More of them."""
    width: int = 5
    rate: float = scalar(0.1)       # a number # with a hash
    sections: dict[str, Base] = field(default_factory=dict)     # made anew
'''


def test_options_have_the_comments_of_their_source():
    base, more = sources.read_sections([SOURCE]).values()
    assert (base.about, more.about) == ("Options.", "More of them.")
    assert list(base.options.items()) == [
        ("name", ("x", "the method")), ("width", (3, "channels; 0: those of the input")), ("bare", (True, ""))]
    assert list(more.options.items()) == [
        ("name", ("x", "the method")), ("width", (5, "channels; 0: those of the input")),
        ("bare", (True, "")), ("rate", (0.1, "a number # with a hash")), ("sections", (None, "made anew"))]
    assert listing.rows("a.b", more.options)[1::2] == [
        ("--config.a.b.width=5", "channels; 0: those of the input"),
        ("--config.a.b.rate=0.1", "a number # with a hash")]


def test_what_is_read_as_text_is_what_python_makes_of_it():
    """Of every method the line, the paper and the options, and of every section of a config the options."""
    found = sources.methods()
    assert list(found) == list(METHODS)
    for name, entry in METHODS.items():
        defaults = {f.name: getattr(entry.options, f.name) for f in dataclasses.fields(entry.options)}
        assert defaults.pop("name") == name
        assert found[name][:2] == (entry.about, entry.source)
        assert [(k, option.default) for k, option in found[name].options.items()] == list(defaults.items())
    for part in [*vars(Config()).values(), EncoderConfig(), *(cls() for cls in PREPROCESS.values())]:
        if dataclasses.is_dataclass(part):
            options = sources.sections()[type(part).__name__].options
            assert [(k, o.default) for k, o in options.items() if o.default is not None] == [
                (k, v) for k, v in vars(part).items() if v != {}]


def test_everything_there_is_has_a_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    for kind, names in (("methods", METHODS), ("configs", configs.names()), ("datasets", ()), ("encoders", ())):
        lines = [line.split(maxsplit=1) for line in listing.listing(kind).splitlines()]
        assert all(len(line) == 2 for line in lines) and {name for name, _ in lines} >= set(names)
    # What no comment says, a user would have to read from the source.
    assert [(name, k) for name, found in sources.methods().items() for k, option in found.options.items()
            if not option.about] == []
    assert [(name, k) for name, section in sources.sections().items() if name.endswith("Config")
            for k, option in section.options.items() if not option.about and k not in ("name", "kind")
            and name != "Config"] == []
    assert listing.listing("options", "qmf").splitlines()[3:] == [
        f"--config.method.weight=0.1   {sources.methods()['qmf'].options['weight'].about}"]


def test_a_table_is_as_wide_as_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "61")
    assert listing.table([("short", "a " * 40), ("b" * 39, "")]).splitlines() == [
        "short" + " " * 35 + "a " * 9 + "a", *[" " * 40 + "a " * 9 + "a"] * 3, "b" * 39]


def test_help_imports_nothing_large():
    """Which takes seconds; what it lists is read from the source."""
    code = """
import sys
from jaxmm.commands import app, train
text = app.help_text(train)
assert not {"jax", "numpy", "flax"} & set(sys.modules)
print(text)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for said in ("--workdir=", "--config.optimizer.learning_rate=0.001  at the start", "arXiv 2311.10707)",
                 "--config.data.preprocess.MODALITY.hop=160", "`jaxmm list options METHOD`"):
        assert said in done.stdout, said


@pytest.mark.parametrize("arguments, said", [
    (("method",), "'method' is unknown; did you mean methods? Expected one of methods, configs"),
    (("options", "mlb"), "'mlb' is unknown; did you mean mla?"),
    (("encoders", "mlp"), "unexpected 'mlp'; `options` alone takes")])
def test_a_slip_is_said_with_what_was_meant(arguments, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        listing.listing(*arguments)
