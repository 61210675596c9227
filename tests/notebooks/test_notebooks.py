"""Executes the notebooks with tiny settings, as somebody does who has only installed the package."""
import json
import pathlib
import re
import subprocess
import sys
import sysconfig
import venv

import jax
import nbformat
import pytest
from nbclient import NotebookClient

SETTINGS = {"quickstart": {"EPOCHS = 20": "EPOCHS = 1"}, "theory": {"SEEDS = 50": "SEEDS = 5"}}
ROOT = pathlib.Path.cwd()


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> pathlib.Path:
    """Python of an environment that has the package as a wheel installs it, beside what it needs."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    site = pathlib.Path(subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True,
        capture_output=True, text=True).stdout.strip())
    subprocess.run([sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build",
                    f"--build-base={folder}"], cwd=ROOT, check=True, capture_output=True)
    (folder / "lib" / "jaxmm").rename(site / "jaxmm")
    # Folders in a .pth file come last, and .pth files in them, as of an editable install, do not count.
    libraries = [*{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")},
                 *(p for p in sys.path if p.endswith("-packages"))]
    (site / "libraries.pth").write_text("\n".join(libraries) + "\n")
    return python


@pytest.fixture
def run(installed, monkeypatch, tmp_path):
    """run(name): the Markdown that a notebook shows, and its number of images."""
    kernel = tmp_path / "jupyter" / "kernels" / "installed"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"display_name": "installed", "language": "python", "argv": [
        str(installed), "-m", "ipykernel_launcher", "-f", "{connection_file}"]}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if jax.config.jax_compilation_cache_dir:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)

    def execute(name: str) -> tuple[list[str], int]:
        content = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
        for full, tiny in SETTINGS[name].items():
            assert content.count(full) == 1
            content = content.replace(full, tiny)
        notebook = nbformat.reads(content, as_version=4)
        NotebookClient(notebook, timeout=600, kernel_name="installed",
                       resources={"metadata": {"path": str(tmp_path)}}).execute()
        outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
        shown = [o.get("data", {}).get("text/markdown", "") for o in outputs]
        return shown, sum("image/png" in o.get("data", {}) for o in outputs)

    return execute


def test_the_environment_has_the_package_and_not_the_checkout(installed, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)
    code = ("import importlib.util as u; print(u.find_spec('jaxmm').origin, u.find_spec('configs'), "
            "u.find_spec('launch'))")
    found = subprocess.run([installed, "-c", code], cwd=tmp_path, check=True, capture_output=True,
                           text=True).stdout.split()
    assert found[0].startswith(str(installed.parents[1])) and found[1:] == ["None", "None"]


def test_quickstart_shows_scores_with_and_without_a_modality(run):
    shown, images = run("quickstart")
    assert "| fused" in "".join(shown) and "without audio" in "".join(shown)
    assert images == 2


def test_theory_shows_that_joint_training_is_lazy_and_distillation_is_not(run):
    shown, images = run("theory")
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
def test_every_notebook_is_executed_kept_without_outputs_and_installs_from_the_repository(path):
    assert path.stem in SETTINGS
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    install = next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    repository = re.search(r'^REPOSITORY = "https://github.com/(.*)" ', install, re.MULTILINE)[1]
    assert install.splitlines()[-1].strip() == '%pip install -q "jaxmm[all] @ git+{REPOSITORY}"'
    assert (f"https://colab.research.google.com/github/{repository}/blob/main/{path.as_posix()}"
            in notebook.cells[0].source)
