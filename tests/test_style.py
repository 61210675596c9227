"""What ruff.toml asks of the code, and setup.cfg of the types of the public modules."""
import pathlib
import subprocess
import sys

import pytest

import jaxmm
from jaxmm.caches import cache_folder

COMMANDS = {"ruff": ["check", "--no-cache", "--output-format=concise", "."],
            "mypy": [f"--cache-dir={cache_folder() / 'mypy'}"]}     # a minute without it


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_is_found(name):
    if name == "mypy":
        pytest.importorskip(name)
    root = pathlib.Path(jaxmm.__file__).parents[1]
    done = subprocess.run([sys.executable, "-m", name, *COMMANDS[name]], cwd=root, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
