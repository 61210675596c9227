"""Reading a file that somebody gave executes nothing of it."""
import ast
import os
import pathlib
import pickle
import re

import jax.numpy as jnp
import numpy as np
import pytest

import jaxmm
from jaxmm import escape
from jaxmm.config import Config, DataConfig
from jaxmm.data import arrays
from jaxmm.errors import UserError
from jaxmm.experiments import configs
from jaxmm.methods import method_config
from jaxmm.report import advice
from jaxmm.train import checkpoints, folder as folder_lib, writers

ROOT = pathlib.Path(jaxmm.__file__).parents[1]
SOURCES = sorted(p for folder in ("jaxmm", "launch", "configs", "benchmarks")
                 for p in (ROOT / folder).rglob("*.py"))
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"eval", "exec", "__import__", "read_pickle", "unsafe_load", "exec_module", "run_path",
                "run_module", "system", "popen"}
RUNS_CONFIGS = {"jaxmm/experiments/configs.py": "loader.exec_module(module)",   # of FILE.py alone
                "benchmarks/pipeline.py": "spec.loader.exec_module(module)"}    # a file of this package
SAFE_OPTION = {"np": ("allow_pickle", False), "numpy": ("allow_pickle", False),
               "torch": ("weights_only", True)}     # that load() of the module must be called with


def unsafe(source: str) -> list[str]:
    """What may execute code from a file, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            found += [f"{node.lineno}: {m}" for m in modules if m.split(".")[0] in UNSAFE_MODULES]
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            owner = getattr(getattr(node.func, "value", None), "id", "")
            if name in UNSAFE_CALLS or any(k.arg == "shell" for k in node.keywords):
                found.append(f"{node.lineno}: {name}()")
            if name == "load" and owner in (*SAFE_OPTION, "yaml"):
                given = [(k.arg, getattr(k.value, "value", None)) for k in node.keywords]
                if SAFE_OPTION.get(owner) not in given:
                    found.append(f"{node.lineno}: {owner}.load()")
    return found


@pytest.mark.parametrize("source, count", [
    ("np.load(p, allow_pickle=False); torch.load(p, weights_only=True); json.load(f)", 0),
    ("np.load(p)", 1), ("numpy.load(p, allow_pickle=True)", 1), ("torch.load(p)", 1),
    ("import pickle", 1), ("from joblib import load", 1), ("eval('1')", 1), ("pd.read_pickle(p)", 1),
    ("model.eval_all()", 0), ("yaml.load(f)", 1), ("runpy.run_path(p)", 1), ("os.system(c)", 1),
    ("subprocess.run(c, shell=True)", 1), ("subprocess.run([c])", 0)])
def test_the_check_finds_what_is_unsafe(source, count):
    assert len(unsafe(source)) == count


def test_no_source_file_loads_pickles_or_evaluates_text():
    assert len(SOURCES) > 50
    sources = {str(p.relative_to(ROOT)): p.read_text() for p in SOURCES}
    for path, known in RUNS_CONFIGS.items():
        assert sources[path].count(known) == 1
        sources[path] = sources[path].replace(known, "known")
    found = {path: unsafe(source) for path, source in sources.items()}
    assert {p: lines for p, lines in found.items() if lines} == {}


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def bomb(tmp_path):
    """A pickle that leaves a trace; it works, and none of what follows sets it off."""
    path = tmp_path / "executed"
    content = pickle.dumps(Bomb(path))
    pickle.loads(content)
    path.rmdir()
    yield content
    assert not path.exists()


def test_arrays_with_pickled_objects(bomb, tmp_path):
    objects = np.array([pickle.loads(pickle.dumps(None)), Bomb(tmp_path / "executed")], dtype=object)
    np.savez(tmp_path / "objects.npz", **{"train/x": objects, "train/label": np.arange(2)})
    (tmp_path / "raw.npz").write_bytes(bomb)
    np.save(tmp_path / "single.npy", objects)
    for name in ("objects.npz", "raw.npz", "single.npy"):
        with pytest.raises(UserError, match="pickled"):
            arrays.load(DataConfig(name="arrays", path=str(tmp_path / name)))


def test_nothing_that_is_written_is_a_program():
    """Reports and configs are data; a name in them that reads like code stays a name."""
    assert [str(p) for p in SOURCES if re.search(r"""["'/]\w*\.(py|sh|ipynb)["']""", p.read_text())
            and p.name not in ("accelerator.py", "app.py", "configs.py", "dense.py", "kill.py", "prepare.py",
                               "sources.py")] == []


@pytest.mark.parametrize("content", [None, "__import__('os').mkdir({!r})",
                                     '"""\n"""\nimport os; os.mkdir({!r})'])
def test_a_config_in_json(bomb, content, tmp_path):
    trace = tmp_path / "executed"
    path = tmp_path / "next.json"
    path.write_bytes(bomb if content is None else content.format(str(trace)).encode())
    for name in (path, f"{path}:mla"):
        with pytest.raises(UserError, match="next.json cannot be read"):
            configs.load(str(name))
    assert not trace.exists()


def test_the_config_to_run_next_holds_names_as_names(bomb, tmp_path):
    config = Config()
    config.data.path = f'"""\n__import__("os").mkdir({str(tmp_path / "executed")!r})\n"""'
    path = advice.write(tmp_path, "", config, escape.command(["x", config.data.path]))
    assert configs.load(str(path)) == config
    assert configs.load(f"{path}:mla").method == method_config("mla")
    assert [p.name for p in tmp_path.iterdir() if p.suffix not in (".md", ".json")] == []


def test_files_of_a_run(bomb, tmp_path):
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes(bomb)
    with pytest.raises(UserError, match="config.json cannot be read"):
        folder_lib.read_config(tmp_path)
    with writers.open_writer(tmp_path, 100):
        pass
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""


def test_files_of_a_checkpoint(bomb, tmp_path):
    """Each file in turn is a pickle: the checkpoint before is used, or the file does not matter."""
    manager = checkpoints.open_manager(tmp_path)
    for step in (1, 2):
        checkpoints.save(manager, step, {"params": jnp.full(3, float(step))}, {}, keep=2)
    steps = []
    for path in sorted((tmp_path / "checkpoints" / "2").rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            path.write_bytes(bomb)
            manager = checkpoints.open_manager(tmp_path)
            step, state, _ = checkpoints.restore(manager, {"params": jnp.zeros(3)})
            np.testing.assert_array_equal(state["params"], step)
            steps.append(step)
            path.write_bytes(content)
    assert steps.count(1) >= 3
