import pathlib

import pytest

from jaxmm.report import files


def test_write_replaces_the_file_at_once(tmp_path, monkeypatch):
    path = tmp_path / "report.md"
    files.write(path, "old ü")
    assert path.read_text() == "old ü"
    files.write(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"
    assert list(tmp_path.iterdir()) == [path]

    def cut_short(self, content):
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError("disk full")

    monkeypatch.setattr(pathlib.Path, "write_bytes", cut_short)
    with pytest.raises(OSError, match="disk full"):
        files.write(path, "longer")
    assert path.read_bytes() == b"\x00new"
