"""What `pip install jaxmm` leaves out: imported where it is used, and named where it is missing."""
import ast
import configparser
import pathlib
import re
import sys

import numpy as np
import pytest

import jaxmm
from jaxmm import extras
from jaxmm.config import FramesConfig, SpectrogramConfig, TextConfig
from jaxmm.data import decode, feeding, prepared, text
from jaxmm.errors import UserError
from jaxmm.prepare import run
from jaxmm.prepare.decode import Options, sound, video
from jaxmm.train.setup import build
from jaxmm.train.writers import check_installed

PACKAGE = pathlib.Path(jaxmm.__file__).parent


def extra_packages() -> set[str]:
    """Names to import of all that `setup.cfg` has in the extra `all`."""
    config = configparser.ConfigParser()
    config.read(PACKAGE.parent / "setup.cfg")
    lines = config["options.extras_require"]["all"].split()
    return {re.split("[<>=[]", line)[0].replace("-", "_") for line in lines} - {"importlib_resources"}


def imports(node: ast.AST):
    """The packages that code imports, but for the eyes of type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and getattr(child.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module.partition(".")[0]
        yield from imports(child)


def test_no_module_imports_what_may_be_missing_but_by_need():
    packages = extra_packages()
    assert {"librosa"} | packages >= {"av", "grain", "librosa", "soundfile", "tensorflow_datasets", "tokenizers"}
    found = {(str(path.relative_to(PACKAGE)), name) for path in PACKAGE.rglob("*.py")
             for name in imports(ast.parse(path.read_text(encoding="utf-8")))
             if name in packages | {"librosa", "tensorflow"}}
    assert not found


def read_two():
    split = {"label": np.arange(4)}
    return feeding.read_ahead(split, [(np.arange(2),), (np.arange(2, 4),)])


@pytest.mark.parametrize("use, said", [
    (lambda _: decode.sound(prepared.Sound(np.ones(9, np.int16), 8000), SpectrogramConfig()),
     "resampling sound needs soxr: pip install 'jaxmm[data]'"),
    (lambda _: decode.frames([b"\xff\xd8\xff and so on"], FramesConfig(height=4, width=4)),
     "reading images needs simplejpeg: pip install 'jaxmm[data]'"),
    (lambda _: text.make_tokenizer(TextConfig(), ["a"]), "text needs tokenizers: pip install 'jaxmm[data]'"),
    (lambda _: read_two(), "reading rows ahead of training needs grain: pip install 'jaxmm[data]'"),
    (lambda _: prepared.tfds_features({}), "prepared data needs tensorflow-datasets: pip install 'jaxmm[data]'"),
    (lambda folder: sound(str(folder / "a.flac"), Options()),
     "reading sound needs soundfile: pip install 'jaxmm[data]'"),
    (lambda folder: video(str(folder / "a.mp4"), 1, Options()), "reading videos needs av: pip install 'jaxmm[data]'"),
    (lambda folder: run.prepare("mvsa", folder, folder / "out"),
     "preparing data needs array-record: pip install 'jaxmm[data]'"),
    (lambda _: check_installed(True, False),
     "train.tensorboard needs tensorboardX: pip install 'jaxmm[tensorboard]'")])
def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path, use, said):
    for package in extra_packages():
        for module in [name for name in sys.modules if name.partition(".")[0] == package] + [package]:
            monkeypatch.setitem(sys.modules, module, None)      # so import fails
    for name in ("a.flac", "a.mp4"):
        (tmp_path / name).write_bytes(b"fLaC and so on")
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        use(tmp_path)
    assert not (tmp_path / "out").exists()


def test_streamed_rows_are_refused_before_a_folder_is_made(monkeypatch, make_dataset, make_config):
    monkeypatch.setitem(sys.modules, "grain", None)
    config = make_config()
    config.data.placement = "host"
    with pytest.raises(UserError, match="needs grain"):
        build(config, dataset=make_dataset())


def test_a_single_batch_needs_nothing_to_read_it_ahead(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    (item, rows), = feeding.read_ahead({"label": np.arange(4)}, [(np.array([3, 1]), "x")])
    assert item[1] == "x" and rows["label"].tolist() == [3, 1]


def test_a_package_that_cannot_be_imported_says_why(monkeypatch, tmp_path):
    (tmp_path / "broken_one.py").write_text("import no_such_module")
    (tmp_path / "broken_two.py").write_text("raise OSError('no libsomething.so')")
    monkeypatch.syspath_prepend(tmp_path)
    for name, why in (("one", "No module named 'no_such_module'"), ("two", "no libsomething.so")):
        with pytest.raises(UserError, match=re.escape(
                f"it needs broken-{name}, which cannot be imported ({why}): pip install broken-{name}")):
            extras.need(f"broken_{name}", "it", "")


def test_later_is_the_module_once_it_is_used(monkeypatch):
    later = extras.Later("no_such_module", "it")
    assert not hasattr(later, "__wrapped__")        # what tools ask of any object imports nothing
    monkeypatch.setitem(sys.modules, "no_such_module", np)
    assert later.arange is np.arange
