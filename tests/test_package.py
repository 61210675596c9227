"""What is installed, and the types of what is public."""
import ast
import configparser
import pathlib
import subprocess
import sys

import pytest

import jaxmm

ROOT = pathlib.Path(jaxmm.__file__).parents[1]


def test_one_name_is_installed_with_all_modules_configs_and_data(tmp_path):
    """`launch` and `configs` are names of others."""
    subprocess.run([sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build",
                    f"--build-base={tmp_path}"], cwd=ROOT, check=True, capture_output=True)
    assert [path.name for path in (tmp_path / "lib").iterdir()] == ["jaxmm"]
    built = {str(p.relative_to(tmp_path / "lib")) for p in (tmp_path / "lib").rglob("*") if p.is_file()}
    here = {str(p.relative_to(ROOT)) for p in (ROOT / "jaxmm").rglob("*")
            if p.suffix in (".py", ".csv", ".npz", ".typed")}
    configs = {f"jaxmm/configs/{p.name}" for p in (ROOT / "configs").glob("*") if p.suffix in (".py", ".csv")}
    assert built == here | configs


def public_modules() -> list[str]:
    """Those that mypy looks at."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return [path.strip() for path in config["mypy"]["files"].split(",")]


@pytest.mark.parametrize("path", public_modules())
def test_public_functions_have_types(path):
    def lacking(node, prefix=""):
        for child in node.body:
            if isinstance(child, ast.ClassDef):
                yield from lacking(child, f"{child.name}.")
            elif isinstance(child, ast.FunctionDef) and not child.name.startswith("_"):
                names = [*child.args.args, *child.args.kwonlyargs, child.args.vararg, child.args.kwarg]
                untyped = [a.arg for a in names if a and a.annotation is None and a.arg != "self"]
                yield from [f"{prefix}{child.name}: {name}" for name in untyped]
                if child.returns is None:
                    yield f"{prefix}{child.name}"

    assert not list(lacking(ast.parse((ROOT / path).read_text(encoding="utf-8"))))
