import logging

import pytest

from jaxmm import files
from jaxmm.errors import WriteError


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
        (logging.WARNING, "x could not be written; training goes on")]
    with pytest.raises(WriteError, match="^x could"), files.on_error("stop"):
        raise WriteError("x could not be written")
