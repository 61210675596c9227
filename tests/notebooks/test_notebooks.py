"""Executes the notebooks with tiny settings."""
import os
import pathlib

import jax
import nbformat
import pytest
from nbclient import NotebookClient

SETTINGS = {"quickstart": {"EPOCHS = 20": "EPOCHS = 1"}, "theory": {"SEEDS = 50": "SEEDS = 5"}}


def run(name, monkeypatch) -> tuple[list[str], int]:
    """The Markdown that a notebook shows, and its number of images."""
    path = pathlib.Path("notebooks", f"{name}.ipynb")
    content = path.read_text()
    for full, tiny in SETTINGS[name].items():
        assert content.count(full) == 1
        content = content.replace(full, tiny)
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    if jax.config.jax_compilation_cache_dir:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    notebook = nbformat.reads(content, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": "."}}).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    shown = [o.get("data", {}).get("text/markdown", "") for o in outputs]
    return shown, sum("image/png" in o.get("data", {}) for o in outputs)


def test_quickstart_shows_scores_with_and_without_a_modality(monkeypatch):
    shown, images = run("quickstart", monkeypatch)
    assert "| fused" in "".join(shown) and "without audio" in "".join(shown)
    assert images == 2


def test_theory_shows_that_joint_training_is_lazy_and_distillation_is_not(monkeypatch):
    shown, images = run("theory", monkeypatch)
    assert images == 1
    models, cases = ({cells[0]: [float(x) for x in cells[1:]] for cells in (
        [c.strip() for c in line.split("|")[1:-1]] for line in table.splitlines()[2:])}
        for table in shown if table)
    (*alone, ume), (*joint, _), (*distilled, _) = models.values()
    assert joint[0] < alone[0] - 2 and joint[1] < alone[1] - 4      # features learned
    assert joint[3] < alone[3] - 3 and joint[4] < alone[4] - 10     # accuracy of the encoders
    assert distilled[:2] == alone[:2] and distilled[3:] == alone[3:]
    assert alone[2] == 0 < distilled[2]                             # paired features
    # Either suffices where nothing is paired; the ensemble is far behind where most is.
    none, few, most = cases.values()
    assert none[0] == none[2] > none[1]
    assert few[0] == ume and few[2] > max(few[:2]) and most[2] > most[1] > most[0] + 5


@pytest.mark.parametrize("path", sorted(pathlib.Path("notebooks").glob("*.ipynb")), ids=str)
def test_every_notebook_is_executed_and_kept_without_outputs(path):
    assert path.stem in SETTINGS
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
