"""Lists the available methods, configs, data sets, encoders and options."""
import ast
import dataclasses
import inspect
import shutil
import textwrap
from collections.abc import Iterable, Mapping

from jaxmm.config import PREPROCESS, AugmentConfig, Config, EncoderConfig
from jaxmm.errors import UserError, all_as_typed, as_typed, suggest
from jaxmm.experiments import configs, recipes, sources


def listing(what: str, name: str = "") -> str:
    """A table of `what`, a key of KINDS; of "options", those of a method or of every run.

    Raises:
      UserError: there is no such list, or no such method.
    """
    check(as_typed("list"), what, KINDS)
    if name and what != "options":
        raise UserError(f"{as_typed('list')} {what}: unexpected {name!r}; `options` alone takes the name of a method")
    return KINDS[what](name) if what == "options" else table(KINDS[what]())


def check(where: str, name: str, known: Iterable[str]) -> None:
    """Raises UserError, with the nearest match, unless the name is known."""
    if name not in known:
        raise UserError(f"{where}: {name!r} is unknown{suggest(name, known)}")


def methods() -> list[tuple[str, str]]:
    """The methods with a line and the paper of each."""
    return [(name, f"{entry.about} ({entry.source})") for name, entry in sources.methods().items()]


def shipped() -> list[tuple[str, str]]:
    """The configs that come with the package, with the first line of each; none is run."""
    files = {name: (configs.folder() / f"{name}.py").read_text(encoding="utf-8") for name in configs.names()}
    return [(name, ast.get_docstring(ast.parse(text)).splitlines()[0]) for name, text in files.items()]


def datasets() -> list[tuple[str, str]]:
    from jaxmm.data import DATASETS
    from jaxmm.prepare import BUILDERS
    built_in = [(name, inspect.getdoc(inspect.getmodule(load)).splitlines()[0])
                for name, load in DATASETS.items() if name not in BUILDERS]
    return built_in + [(name, inspect.getdoc(inspect.getmodule(builder.layout)).splitlines()[0])
                       for name, builder in BUILDERS.items()]


def encoders() -> list[tuple[str, str]]:
    from jaxmm.encoders import NETWORKS
    takes = {1: "vectors", 2: "matrices", 3: "images", 4: "frames"}
    return [(name, "takes " + ", ".join([takes[rank] for rank in network.ranks] + ["texts"] * network.texts))
            for name, network in NETWORKS.items()]


def options(method: str) -> str:
    """The options of a method, or of every run: name, default, and what it means."""
    if not method:
        return of_every_run()
    known = sources.methods()
    check(f"{as_typed('list')} options", method, known)
    found = known[method]
    return f"{method}: {found.about} ({found.source})\n\n{table(rows('method', found.options))}"


def of_every_run() -> str:
    """The options of all sections of a config, under what each of them is about."""
    config, parts = Config(), []
    for field in dataclasses.fields(Config):
        if field.name != "method" and dataclasses.is_dataclass(part := getattr(config, field.name)):
            parts.append((field.name, type(part)))
    parts += [("encoders.MODALITY", EncoderConfig), ("augment.MODALITY", AugmentConfig)]
    parts += [("data.preprocess.MODALITY", cls) for cls in PREPROCESS.values()]
    found = [(path, sources.sections()[cls.__name__]) for path, cls in parts]
    return "\n\n".join(f"{section.about}\n{table(rows(path, section.options))}" for path, section in found)


def rows(path: str, found: Mapping[str, sources.Option]) -> list[tuple[str, str]]:
    """(--config.PATH.OPTION=DEFAULT, what it means) for the options of a section."""
    return [(f"--config.{path}.{name}={option.default}", option.about)
            for name, option in found.items() if option.default is not None]


def table(found: Iterable[tuple[str, str]]) -> str:
    """Names, and beside each what is said of it, in lines as wide as the terminal."""
    found = list(found)
    wide = min(38, max((len(name) for name, _ in found), default=0))
    columns = max(60, shutil.get_terminal_size((110, 24)).columns - 1)
    lines = []
    for name, said in found:
        wrapped = textwrap.wrap(all_as_typed(said), columns - wide - 2)
        if len(name) > wide or not wrapped:     # then it has a line for itself
            lines.append(name)
            name = ""
        lines += [f"{'' if i else name:{wide}}  {line}" for i, line in enumerate(wrapped)]
    return "\n".join(lines)


def recipe_lines() -> list[tuple[str, str]]:
    """The recipes, with the method of each and what it is for."""
    return [(name, f"{recipe.method}: {recipe.about}") for name, recipe in zip(recipes.names(), recipes.RECIPES.values())]


KINDS = {"methods": methods, "configs": shipped, "recipes": recipe_lines, "datasets": datasets, "encoders": encoders, "options": options}
