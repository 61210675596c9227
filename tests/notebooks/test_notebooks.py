"""Executes the notebooks with tiny settings."""
import json
import os
import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

SETTINGS = {"quickstart": {"EPOCHS = 20": "EPOCHS = 1"}}


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_notebook_runs_and_shows_its_tables(name, monkeypatch):
    path = pathlib.Path("notebooks", f"{name}.ipynb")
    content = path.read_text()
    for full, tiny in SETTINGS[name].items():
        assert content.count(full) == 1
        content = content.replace(full, tiny)
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", os.path.expanduser("~/.cache/jaxmm/xla"))
    notebook = nbformat.reads(content, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": "."}}).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    shown = json.dumps([o.get("data", {}).get("text/markdown", "") for o in outputs])
    assert "| fused" in shown and "without audio" in shown
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 2


@pytest.mark.parametrize("path", sorted(pathlib.Path("notebooks").glob("*.ipynb")), ids=str)
def test_every_notebook_is_executed_and_kept_without_outputs(path):
    assert path.stem in SETTINGS
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
