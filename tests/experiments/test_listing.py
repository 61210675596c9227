import dataclasses

import pytest

from jaxmm.config import scalar
from jaxmm.errors import UserError
from jaxmm.experiments import configs, listing
from jaxmm.methods import METHODS


@dataclasses.dataclass
class Base:
    """Options."""
    name: str = "x"                 # the method
    width: int = 3                  # channels; 0: those of
                                    # the input
    bare: bool = True


@dataclasses.dataclass
class Options(Base):
    """More of them."""
    width: int = 5                  # another meaning
    rate: float = scalar(0.1)       # a number # with a hash


def test_options_have_the_comments_of_their_source():
    assert listing.describe(Options(rate=2.0), "method") == [
        ("--config.method.width=5", "another meaning"), ("--config.method.bare=True", ""),
        ("--config.method.rate=2.0", "a number # with a hash")]
    assert listing.describe(Base(), "train")[:2] == [
        ("--config.train.name=x", "the method"), ("--config.train.width=3", "channels; 0: those of the input")]


def test_everything_there_is_has_a_line():
    for kind, names in (("methods", METHODS), ("configs", configs.names()), ("datasets", ()), ("encoders", ())):
        lines = [line.split(maxsplit=1) for line in listing.listing(kind).splitlines()]
        assert all(len(line) == 2 for line in lines) and {name for name, _ in lines} >= set(names)
    for name in METHODS:
        for line in listing.listing("options", name).splitlines()[2:]:
            assert len(line.split(maxsplit=1)) == 2, (name, line)
    # Of every run: what no comment says, a user would have to read from the source.
    assert all(len(line.split(maxsplit=1)) == 2 for line in listing.listing("options").splitlines())


@pytest.mark.parametrize("arguments, said", [
    (("method",), "'method' is unknown; did you mean methods? Expected one of methods, configs"),
    (("options", "mlb"), "'mlb' is unknown; did you mean mla?"),
    (("encoders", "mlp"), "unexpected 'mlp'; `options` alone takes")])
def test_a_slip_is_said_with_what_was_meant(arguments, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        listing.listing(*arguments)
