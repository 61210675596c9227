import os
import pathlib
import subprocess
import sys

import pytest

from jaxmm import caches


def test_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("JAXMM_CACHE", "/own")
    assert caches.cache_folder() == pathlib.Path("/own")
    monkeypatch.delenv("JAXMM_CACHE")
    assert caches.cache_folder() == pathlib.Path("/xdg/jaxmm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert caches.cache_folder() == pathlib.Path("/home/of/.cache/jaxmm")


def test_the_home_folder_of_tests_is_one_of_the_checkout():
    """Of the processes that they start, too: nothing is written into that of the user."""
    found = subprocess.run([sys.executable, "-c", "import os; print(os.path.expanduser('~'))"], text=True,
                           capture_output=True).stdout.strip()
    assert found == str(pathlib.Path.home()) == str(pathlib.Path(__file__).resolve().parents[1] / ".pytest_cache/home")


@pytest.fixture(name="no_home")
def make_no_home(monkeypatch, tmp_path):
    """A home and a cache folder in which nothing can be made, and a folder for temporary ones."""
    file = tmp_path / "file"
    file.touch()
    for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", *caches.LIBRARIES):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(file))
    monkeypatch.setenv("JAXMM_CACHE", str(file / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(caches.tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(caches.atexit, "register", lambda *args, **kwargs: None)
    return tmp_path


def test_libraries_get_folders_of_their_own_where_the_home_is_not_writable(no_home, monkeypatch):
    caches.give_libraries_folders()
    made, = (no_home / "temporary").iterdir()
    assert os.environ["MPLCONFIGDIR"] == str(made) and made.stat().st_mode & 0o077 == 0

    monkeypatch.setenv("MPLCONFIGDIR", "/chosen")
    caches.give_libraries_folders()
    assert os.environ["MPLCONFIGDIR"] == "/chosen"

    monkeypatch.delenv("MPLCONFIGDIR")
    monkeypatch.setenv("JAXMM_CACHE", str(no_home / "cache"))
    caches.give_libraries_folders()
    assert os.environ["MPLCONFIGDIR"] == str(no_home / "cache/mplconfigdir")
    assert list((no_home / "temporary").iterdir()) == [made]


def test_a_writable_home_is_left_alone(no_home, monkeypatch):
    monkeypatch.setenv("HOME", str(no_home / "home"))
    caches.give_libraries_folders()
    assert not set(caches.LIBRARIES) & set(os.environ)
    assert not list((no_home / "temporary").iterdir())


def test_who_has_no_home_gets_a_temporary_one_and_no_folder_named_tilde(no_home, monkeypatch):
    def unknown(uid):
        raise KeyError(uid)

    monkeypatch.chdir(no_home)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    caches.give_libraries_folders()
    assert pathlib.Path(os.environ["HOME"]).parent == no_home / "temporary"
    assert not (no_home / "~").exists()


def test_it_says_so_when_nothing_is_writable(no_home, monkeypatch):
    monkeypatch.setattr(caches.tempfile, "tempdir", None)
    monkeypatch.setattr(caches.tempfile, "_candidate_tempdir_list", lambda: [
        os.environ.get("TMPDIR", str(no_home / "file"))])
    monkeypatch.setenv("TMPDIR", str(no_home / "file"))
    with pytest.raises(OSError, match="name one by TMPDIR or JAXMM_CACHE"):
        caches.give_libraries_folders()
    monkeypatch.setenv("JAXMM_CACHE", str(no_home / "cache"))
    caches.give_libraries_folders()
    assert os.environ["TMPDIR"] == str(no_home / "cache/tmp")


def test_the_cache_of_programs_is_left_out_with_one_warning(no_home):
    code = ("from jaxmm.commands import app; app.use_compilation_cache(); import jax; "
            "print(jax.config.jax_compilation_cache_dir)")
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert done.stdout == "None\n", done.stderr
    assert done.stderr.count("\n") == 1 and "every start compiles again" in done.stderr
