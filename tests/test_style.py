"""What ruff.toml asks of the code."""
import pathlib
import subprocess
import sys

import jaxmm


def test_ruff_finds_nothing():
    root = pathlib.Path(jaxmm.__file__).parents[1]
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "."],
                          cwd=root, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr
