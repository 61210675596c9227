"""Imports go one way: a room of the package knows those before it, and none that come after."""
import ast
import pathlib

import pytest

import jaxmm

PACKAGE = pathlib.Path(jaxmm.__file__).parent
ORDER = [               # what stands in a line may import each other
    ("errors", "escape", "extras", "keys", "signals", "caches", "files", "processes", "provenance"),
    ("config",), ("batch", "metrics", "task", "shapley"),
    ("data", "encoders", "heads", "losses", "state", "model", "pretrained"),
    ("prepare",), ("methods",),
    ("train",),
    ("evaluate",), ("report",), ("experiments",), ("estimators",), ("commands", "__main__"),
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def imports(path: pathlib.Path) -> set[str]:
    """The rooms that a file imports, within functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {(*node.module.split("."), alias.name) for alias in node.names}
    return {name[1] for name in found if name[0] == "jaxmm" and len(name) > 1}


@pytest.mark.parametrize("room", [room for rooms in ORDER for room in rooms])
def test_a_room_imports_those_before_it(room):
    files = [*PACKAGE.glob(f"{room}.py"), *PACKAGE.glob(f"{room}/**/*.py")]
    back = {(str(file.relative_to(PACKAGE)), other) for file in files for other in imports(file)
            if LEVEL[other] > LEVEL[room]}
    assert not back


def test_every_module_has_a_place():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} <= set(LEVEL)


def test_flax_is_imported_by_encoders_and_heads_alone():
    users = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")
             for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, (ast.Import, ast.ImportFrom))
             for name in [getattr(node, "module", None) or node.names[0].name] if name.startswith("flax.linen")
             or (name == "flax" and any(alias.name == "linen" for alias in node.names))}
    assert users <= {"encoders", "heads"}
