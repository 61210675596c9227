"""What the source says of methods and options: read as text, so that nothing large is imported."""
import ast
import functools
import io
import operator
import pathlib
import tokenize
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jaxmm

PACKAGE = pathlib.Path(jaxmm.__file__).parent


class Option(NamedTuple):
    """A field of a dataclass of options."""
    default: Any        # None where it is made anew each time
    about: str          # its comments


class Section(NamedTuple):
    """A dataclass of options."""
    about: str          # the first line of its docstring
    options: Mapping[str, Option]       # by name, those that it inherits first


class Described(NamedTuple):
    """A method."""
    about: str
    source: str         # paper
    options: Mapping[str, Option]       # without its name


@functools.cache
def sections() -> dict[str, Section]:
    """The dataclasses of options of this package, by name: those of every run and of all methods."""
    return read_sections(path.read_text(encoding="utf-8") for path in (
        PACKAGE / "config.py", *sorted((PACKAGE / "methods").glob("*.py"))))


def methods() -> dict[str, Described]:
    """The methods in the order of `jaxmm.methods.METHODS`."""
    tree = ast.parse((PACKAGE / "methods" / "__init__.py").read_text(encoding="utf-8"))
    constants, found = {}, {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Name, ast.Tuple)):
            target, value = node.targets[0], node.value
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = value.elts if isinstance(target, ast.Tuple) else [value]
            constants |= {n.id: v.value for n, v in zip(names, values) if isinstance(v, ast.Constant)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Entry":
            made, _, about, source = node.args[:4]
            options = dict(sections()[_name(made.func)].options)
            given = dict(zip(options, made.args)) | {k.arg: k.value for k in made.keywords}
            options |= {k: options[k]._replace(default=ast.literal_eval(v)) for k, v in given.items()}
            name = options.pop("name").default
            found[name] = Described(ast.literal_eval(about), constants.get(
                getattr(source, "id", ""), getattr(source, "value", "")), options)
    return found


def read_sections(sources: Iterable[str]) -> dict[str, Section]:
    """The classes in Python sources, with the annotated fields of each and of those it extends."""
    found = {}
    for source in sources:
        comments = _comments(source)
        for node in ast.parse(source).body:
            if isinstance(node, ast.ClassDef):
                fields = {f.target.id: Option(_default(f.value), _about(f, comments))
                          for f in node.body if isinstance(f, ast.AnnAssign)}
                found[node.name] = ([_name(base) for base in node.bases],
                                    ((ast.get_docstring(node) or "").splitlines() or [""])[0], fields)

    def options(name):
        bases, _, own = found[name]
        inherited = functools.reduce(operator.or_, (options(b) for b in bases if b in found), {})
        return inherited | {k: option if option.about or k not in inherited else
                            option._replace(about=inherited[k].about) for k, option in own.items()}

    return {name: Section(about, options(name)) for name, (_, about, _) in found.items()}


def _name(node: ast.expr) -> str:
    """The last part of a name, as MLAConfig of mla.MLAConfig."""
    return getattr(node, "attr", getattr(node, "id", ""))


def _default(value: ast.expr | None) -> Any:
    """The value of a literal, bare or in a function of `jaxmm.config`; None of anything else."""
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") in ("scalar", "dependent", "on_device"):
        value = value.args[0]
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError):
        return None


def _comments(source: str) -> dict[int, tuple[bool, str]]:
    """By line the comment there, and whether it has the line for itself."""
    return {token.start[0]: (not token.line[:token.start[1]].strip(), token.string.lstrip("# "))
            for token in tokenize.generate_tokens(io.StringIO(source).readline)
            if token.type == tokenize.COMMENT}


def _about(field: ast.AnnAssign, comments: Mapping[int, tuple[bool, str]]) -> str:
    """The comment behind a field and on the lines that go on with it."""
    said, line = [], field.end_lineno
    if line in comments:
        said.append(comments[line][1])
        while comments.get(line + 1, (False, ""))[0]:
            line += 1
            said.append(comments[line][1])
    return " ".join(said)
