import pytest

from jaxmm.errors import UserError, WriteError
from launch import app


@pytest.mark.parametrize("error, code, said", [
    (WriteError("x could not be written (No space left on device)"), 74, "free some space, and"),
    (WriteError("x could not be written (File too large)"), 74, "free some space, and"),
    (WriteError("x could not be written (Permission denied)"), 74, "mend that, and"),
    (OSError(28, "No space left on device", "report.md"), 74, "free some space, and"),
    (PermissionError(13, "Permission denied", "report.md"), 2, "report.md: Permission denied"),
])
def test_only_a_full_disk_is_told_to_want_space(error, code, said, capsys, monkeypatch):
    def main():
        raise error

    monkeypatch.setattr(app, "use_compilation_cache", lambda: None)
    with pytest.raises(SystemExit) as ended:
        app._guarded(main, None)
    message = capsys.readouterr().err
    assert ended.value.code == code and said in message and message.count("\n") == 1
    assert ("space, and" in message) == ("free some space" in said)


def test_a_run_folder_is_one_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert app.workdir_flag("~/runs/one", "") == tmp_path / "runs/one"
    assert str(app.workdir_flag("a:b/../c d", "")) == "a:b/../c d"
    assert str(app.workdir_flag("", "two")) == "runs/two"
    for address in ("gs://bucket/run", "s3://bucket/run", "file:///tmp/run"):
        with pytest.raises(UserError, match="expected a folder of this machine"):
            app.workdir_flag(address, "")
