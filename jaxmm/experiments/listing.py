"""What there is to choose from: methods, configs, data sets, encoders, options."""
import ast
import dataclasses
import inspect
import io
import tokenize
from collections.abc import Iterable, Iterator

from jaxmm.errors import UserError, suggest
from jaxmm.experiments import configs


def listing(what: str, name: str = "") -> str:
    """A table of `what`, a key of KINDS; of "options", those of a method or of every run.

    Raises:
      UserError: there is no such list, or no such method.
    """
    check("jaxmm list", what, KINDS)
    if name and what != "options":
        raise UserError(f"jaxmm list {what}: unexpected {name!r}; `options` alone takes the name of a method")
    return KINDS[what](name) if what == "options" else _table(KINDS[what]())


def check(where: str, name: str, known: Iterable[str]) -> None:
    """Raises UserError, with the nearest match, unless the name is known."""
    if name not in known:
        raise UserError(f"{where}: {name!r} is unknown{suggest(name, known)}")


def methods() -> list[tuple[str, str]]:
    from jaxmm.methods import METHODS
    return [(name, f"{entry.about} ({entry.source})") for name, entry in METHODS.items()]


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
    from jaxmm.config import Config, EncoderConfig
    if method:
        from jaxmm.methods import METHODS
        check("jaxmm list options", method, METHODS)
        entry = METHODS[method]
        return (f"{method}: {entry.about} ({entry.source})\n\n"
                + (_table(describe(entry.options, "method")) or "It has no options of its own."))
    parts = [(f.name, getattr(Config(), f.name)) for f in dataclasses.fields(Config)]
    parts = [(name, part) for name, part in parts if dataclasses.is_dataclass(part)]
    return _table([line for name, part in [*parts, ("encoders.MODALITY", EncoderConfig())]
                   for line in describe(part, name)])


def describe(options, prefix: str) -> list[tuple[str, str]]:
    """(--config.PREFIX.FIELD=DEFAULT, its comments in the source) for the options in a dataclass."""
    said = {}
    for cls in reversed([c for c in type(options).__mro__ if dataclasses.is_dataclass(c)]):
        said |= dict(_comments(cls))
    return [(f"--config.{prefix}.{f.name}={getattr(options, f.name)}", said.get(f.name, ""))
            for f in dataclasses.fields(options) if f.name != "name" or prefix != "method"]


def _comments(cls: type) -> Iterator[tuple[str, str]]:
    """(field, the comment behind it and on the lines that go on with it)."""
    source = inspect.getsource(cls)
    starts = {node.lineno: node.target.id for node in ast.parse(source).body[0].body
              if isinstance(node, ast.AnnAssign)}
    found, field = {}, None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        field = starts.get(token.start[0], field)
        if token.type == tokenize.COMMENT and field:
            found.setdefault(field, []).append(token.string.lstrip("# "))
    return ((name, " ".join(lines)) for name, lines in found.items())


def _table(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    wide = min(34, max((len(name) for name, _ in rows), default=0))
    return "\n".join(f"{name:{wide}}  {said}".rstrip() for name, said in rows)


KINDS = {"methods": methods, "configs": shipped, "datasets": datasets, "encoders": encoders, "options": options}
