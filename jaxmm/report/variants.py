"""Runs of a comparison, from the names by which a user asks for them.

A name is METHOD, then optionally `:MODALITY` for a model of one modality alone, or `:MODALITY&MODALITY` of
some of them, then any number of `+OPTION=VALUE` for options of the method: `samm`, `er:audio`,
`mla:audio&text`, `samm+consistency=false`. The name `joint` is `sgd` on all tasks of a stream at once, and
`gdumb` the same on a class-balanced memory alone (Prabhu et al., ECCV 2020). `recipe=NAME` is a method with
options of its run.
"""
import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from jaxmm.config import Config, MethodConfig
from jaxmm.errors import UserError, suggest


AT_ONCE = ("joint", "gdumb")        # names of `sgd` on a stream that is learned at once
RECIPE = "recipe="      # what the name of a method with options of its run begins with


class Variant(NamedTuple):
    """One model to be trained, with every seed."""
    method: str             # its row in the table: METHOD:MODALITY&MODALITY+OPTION=VALUE
    modality: str           # the only one; "" for several
    buffer: int | None      # examples its memory holds, if it has one
    config: Config

    @property
    def recipe(self) -> bool:
        """Whether it is a recipe, whose options are those of its teachers, too."""
        return self.method.startswith(RECIPE)

    @property
    def folder(self) -> str:
        """Name of its folder, a single one whatever the values of options are."""
        parts = [self.method.replace(":", "_").replace("/", "%2F")]
        if self.config.method.name == "unimodal":       # the row is of all of them
            parts.append(self.modality)
        if self.buffer is not None:
            parts.append(str(self.buffer))
        return "_".join(parts)


def expand(names: Sequence[str], config_for: Callable[[str], Config], capacities: Sequence[int],
           modalities: Sequence[str]) -> list[Variant]:
    """The models of a comparison, none of them twice.

    Args:
      names: see the module.
      config_for: the config of a method.
      capacities: sizes of the memory for every method that has one and does not name its own
        (`+capacity=N`); empty for that of its config.
      modalities: of the data; `unimodal` without a modality stands for one model of each.

    Raises:
      UserError: a name of another form, or an option that does not exist.
    """
    variants = {v.folder: v for name in names
                for v in _variants(name, config_for, capacities, modalities)}
    if not variants:
        raise UserError("--methods is empty; name the methods to compare")
    if capacities and all(v.buffer is None for v in variants.values()):
        raise UserError(f"--capacities={','.join(map(str, capacities))}: none of --methods has a "
                        "memory; leave it out, or add one that has, such as er")
    return list(variants.values())


def _variants(name: str, config_for, capacities, modalities) -> Iterator[Variant]:
    method, modality, options = parse(name)
    parts = [modality] if modality in modalities else modality.split("&")
    if len(set(parts)) < len(parts) or (modality and not all(parts)):
        raise UserError(f"--methods={name}: cannot read {modality!r}; expected modalities such as "
                        f"{'&'.join(modalities[:2])}, each once")
    config = copy.deepcopy(config_for(trained(method)))
    if config.method.name != trained(method) and not method.startswith(RECIPE):
        raise UserError(f"config.method.name={config.method.name}: "
                        "here --methods names the methods")
    if method in AT_ONCE:
        if not config.stream.kind:
            raise UserError(f"{method} learns all tasks of a stream at once, and this config has no "
                            "stream; use sgd, or set config.stream.kind")
        config.stream.joint = True
    for option, value in options.items():
        if method == "gdumb" and option == "capacity":
            set_option(config.stream, "budget", value, "--methods")
        else:
            set_option(config.method, option, value, "--methods")
    settings = [f"{k}={v}" for k, v in options.items() if k != "capacity"]
    if method == "unimodal":
        chosen = modality or config.method.modality
        for m in [chosen] if chosen else modalities:
            yield Variant("+".join([method, *settings]), m, None, _with(config, modality=m))
        return
    row = "+".join([f"{method}:{modality}" if modality else method, *settings])
    if modality:
        config = _with(config, modalities=",".join(parts))
    modality = modality if len(parts) == 1 else ""
    if method == "gdumb":
        for size in ([config.stream.budget] if "capacity" in options else
                     capacities or [config_for("er").method.capacity]):
            yield Variant(row, modality, size, dataclasses.replace(
                config, stream=dataclasses.replace(config.stream, budget=size)))
        return
    if buffer_of(config.method) is None:
        yield Variant(row, modality, None, config)
        return
    for capacity in capacities if capacities and "capacity" not in options else [
            config.method.capacity]:
        yield Variant(row, modality, capacity, _with(config, capacity=capacity))


def trained(method: str) -> str:
    """The method that is trained under a name."""
    return "sgd" if method in AT_ONCE else method


def buffer_of(method: MethodConfig) -> int | None:
    """The examples that a method's memory is said to hold; None without a memory, or with one of bytes."""
    return None if getattr(method, "capacity_bytes", 0) else getattr(method, "capacity", None)


def parse(name: str) -> tuple[str, str, dict[str, str]]:
    """(method, modalities or "", values by option) of METHOD:MODALITY&MODALITY+OPTION=VALUE."""
    start, *pairs = name.split("+")
    method, colon, modality = start.partition(":")
    options = dict(pair.partition("=")[::2] for pair in pairs)
    if (not method or bool(colon) != bool(modality) or len(options) < len(pairs)
            or not all(option and value for option, value in options.items())):
        raise UserError(f"--methods: cannot read {name!r}; expected METHOD, METHOD:MODALITY, "
                        "METHOD:MODALITY&MODALITY or METHOD+OPTION=VALUE, every option once")
    return method, modality, options


def set_option(section: Any, option: str, value: str, flag: str) -> None:
    """Sets a field of a section of the config, such as its method, from its text, by its type.

    Raises:
      UserError: there is no such option, or the text is no value of it; `flag` is where it was named.
    """
    of_method = isinstance(section, MethodConfig)
    owner = section.name if of_method else type(section).__name__.removesuffix("Config").lower()
    types = {f.name: type(getattr(section, f.name)) for f in dataclasses.fields(section)
             if not (of_method and f.name == "name")}
    if option not in types:
        raise UserError(f"{flag}: {owner} has no option {option!r}{suggest(option, types)}")
    try:
        setattr(section, option, _READ[types[option]](value))
    except (KeyError, ValueError) as error:
        expected = {bool: "true or false", int: "a whole number", float: "a number"}[types[option]]
        raise UserError(f"{flag}: {option}={value!r} of {owner}; expected {expected}") from error


_READ = {bool: {"true": True, "false": False}.__getitem__, int: int, float: float, str: str}


def _with(config: Config, **options: Any) -> Config:
    """A copy with other options of the method."""
    return dataclasses.replace(config, method=dataclasses.replace(config.method, **options))
