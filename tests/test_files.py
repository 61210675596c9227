import logging
import os

import pytest

from jaxmm import files
from jaxmm.errors import UserError, WriteError


def test_write_replaces_the_file_at_once_or_leaves_it(tmp_path, full_disk):
    path = tmp_path / "report.md"
    files.write(path, "old ü")
    assert path.read_text() == "old ü"
    files.write(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"
    with full_disk(100_000), pytest.raises(WriteError, match="report.md could not be .*too large"):
        files.write(path, "longer" * 100_000)
    assert path.read_bytes() == b"\x00new"
    assert list(tmp_path.iterdir()) == [path]


def test_append_adds_all_or_nothing(tmp_path, full_disk):
    path = tmp_path / "metrics.jsonl"
    files.append(path, "a\n")
    files.append(path, b"b" * 60_000)
    with full_disk(100_000), pytest.raises(WriteError, match="metrics.jsonl"):
        files.append(path, "c" * 60_000)    # of which 40 000 fit
    files.append(path, "d")
    assert path.read_text() == f"a\n{'b' * 60_000}d"


def test_the_policy_decides_what_an_error_is(caplog):
    with files.on_error("continue"):
        raise WriteError("x could not be written")
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, "x could not be written; training continues")]
    with pytest.raises(WriteError, match="^x could"), files.on_error("stop"):
        raise WriteError("x could not be written")


@pytest.fixture
def victim(tmp_path):
    """A file elsewhere that nothing may change."""
    path = tmp_path / "elsewhere"
    path.write_text("precious")
    yield path
    assert path.read_text() == "precious"


def test_links_are_not_written_through(victim, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("report.md.part", "report.md", "metrics.jsonl", "lock"):
        (folder / name).symlink_to(victim)
    files.write(folder / "report.md", "new")
    assert (folder / "report.md").read_text() == "new" and not (folder / "report.md").is_symlink()
    with pytest.raises(WriteError, match="metrics.jsonl could not be .* symbolic link"):
        files.append(folder / "metrics.jsonl", "more")
    with pytest.raises(UserError, match="run/lock cannot be .* symbolic link.*; rename it"):
        with files.lock(folder / "lock", "rename it"):
            pass
    for name in ("metrics.jsonl", "lock"):
        with pytest.raises(UserError, match=f"{name} is not this folder's own.* link"):
            files.check_own(folder / name)
    files.check_own(folder / "report.md")
    files.check_own(folder / "missing")


def test_copies_of_a_folder_by_hard_links_do_not_stop_it(tmp_path):
    files.append(tmp_path / "metrics.jsonl", "one\n")
    os.link(tmp_path / "metrics.jsonl", tmp_path / "copy")
    files.check_own(tmp_path / "metrics.jsonl")
    files.append(tmp_path / "metrics.jsonl", "two\n")
    assert (tmp_path / "metrics.jsonl").read_text() == "one\ntwo\n"


def test_folders_behind_links_are_neither_used_nor_emptied(victim, tmp_path):
    (tmp_path / "other").mkdir()
    victim.rename(tmp_path / "other/file")
    (tmp_path / "run").symlink_to(tmp_path / "other")
    with pytest.raises(UserError, match="run is not this folder's own"):
        files.own_folder(tmp_path / "run")
    files.remove(tmp_path / "run")
    assert not (tmp_path / "run").exists() and (tmp_path / "other/file").exists()
    (tmp_path / "other/file").rename(victim)
    files.remove(files.own_folder(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_pipe_is_neither_read_nor_waited_for(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(UserError, match="pipe is not a regular file"):
        files.read(path)
    with pytest.raises(WriteError):
        files.append(path, "x")
    files.write(path, "x")
    assert files.read(path) == "x"


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "text").write_bytes(b"ok\xff")
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(2**40)
    for name, message in (("text", "is not UTF-8 text .byte 2."), ("huge", "expected at most"),
                          ("none", "No such file"), ("", "not a regular file|directory")):
        with pytest.raises(UserError, match=message):
            files.read(tmp_path / name)


def test_bytes_that_are_no_text_in_a_name_are_written_as_escapes(tmp_path):
    files.write(tmp_path / "report.md", "\udcff")
    assert (tmp_path / "report.md").read_text() == "\\udcff"


@pytest.mark.parametrize("text, message", [
    ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' stands twice"), ("[NaN]", "NaN is not a finite"),
    ("[1, -Infinity]", "-Infinity is no"), ("1e999", "1e999 is no"), ("[" * 10**5, "too deeply"),
    ("9" * 5000, "digits"), ("{", "Expecting"), (b"\xff", "decode")])
def test_parse_json_is_strict(text, message):
    with pytest.raises(ValueError, match=message):
        files.parse_json(text)


def test_parse_json_reads_the_rest():
    assert files.parse_json('{"a": [1, -2.5e3, null, "x"]}') == {"a": [1, -2500.0, None, "x"]}


def test_expand_finds_the_home_folder_and_leaves_other_names(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.expand("~/a b") == tmp_path / "a b" and files.expand("~") == tmp_path
    for name in ("a/~/b", "~nobody-of-this-name/x", "/x~", "."):
        assert str(files.expand(name)) == name
