import json
import types

import pytest

from jaxmm.commands import app
from jaxmm.errors import UserError, WriteError
from jaxmm.experiments import folders
from jaxmm.train.options import differences

PROBE = """
import json
from absl import flags
from jaxmm.experiments import configs
from jaxmm.train.options import to_dict

FLAGS = flags.FlagValues()
CONFIG = "Config."

def main(chosen, command):
    config = chosen.config
    print(json.dumps([to_dict(config), to_dict(configs.config_for(chosen, "mla")),
                      configs.default_methods(chosen.path), config.encoders["new"].width]))
"""
CONFIG = {"data": {"name": "synthetic", "kind": "A"}, "method": {"name": "umt", "weight": 3},
          "train": {"epochs": 2}, "encoders": {"a b": {"width": 7}}}


def test_a_config_in_json_is_one_like_any_other(tmp_path, launch):
    """With options on the command line, a method after a colon, and a colon in its path."""
    scratch = tmp_path / "streams"
    scratch.mkdir()
    (scratch / "probe.py").write_text(PROBE)
    folder = tmp_path / "a:b"
    folder.mkdir()
    path = folder / "next.json"
    path.write_text(json.dumps(CONFIG))
    (folder / "bad.json").write_text(json.dumps(CONFIG | {"train": {"epochs": "2"}}))
    odd = ["a b", "c.d", "$\\frac{$", "in", "x=y"]
    sections = {"encoders": {m: {"width": i} for i, m in enumerate(odd)}}
    before = {"encoders": {m: {} for m in odd}}
    widths = [f"--config.{path}={i}" for path, _, i in differences(before, sections)]
    cases = [
        [f"--config={path}", "--config.train.seed=5", "--config.method.weight=4",
         "--config.encoders.new.width=9"],
        [f"--config={path}:late", *widths],
        [f"--config={folder / 'bad.json'}"], [f"--config={folder / 'none.json'}"],
        [f"--config={path}", "--config.train.epoch=5"], [f"--config={path}", "--config.train.epochs=x"],
        [f"--config={path}", "--config.encoders.a b.width=5"],
        [f"--config={path}", "--config.encoders['a=b'].width=5"],
        [f"--config={path}", f"--x\x1b[2J={tmp_path}"]]
    done = launch("probe", cases)
    assert [code for code, _, _ in done] == [0, 0] + 7 * [2], done
    config, other, methods, width = json.loads(done[0][1])
    assert config["train"]["epochs"] == 2 and config["train"]["seed"] == 5 and width == 9
    assert config["method"]["name"] == "umt" and config["method"]["weight"] == 4
    assert config["encoders"]["a b"]["width"] == 7
    assert other["method"]["name"] == "mla" and "weight" not in other["method"]
    assert other["data"] == config["data"] and other["train"] == config["train"]
    assert methods is None
    config, *_ = json.loads(done[1][1])
    assert config["method"] == {"name": "late", "modalities": ""}
    assert {m: c["width"] for m, c in config["encoders"].items() if m != "new"} == {
        name: i for i, name in enumerate(odd)}
    for (_, _, err), expected in zip(done[2:], (
            'bad.json cannot be read (train.epochs is "2"', "none.json cannot be read (No such file",
            "TrainConfig has no option 'epoch'", "epochs", "Could not parse", "", "x\\x1b")):
        assert expected in err and err.count("\n") == 1 and "\x1b" not in err


@pytest.mark.parametrize("error, code, said", [
    (WriteError("x could not be written (No space left on device)"), 74, "free some space, and"),
    (WriteError("x could not be written (File too large)"), 74, "free some space, and"),
    (WriteError("x could not be written (Permission denied)"), 74, "mend that, and"),
    (OSError(28, "No space left on device", "report.md"), 74, "free some space, and"),
    (PermissionError(13, "Permission denied", "report.md"), 2, "report.md: Permission denied"),
    (FloatingPointError("work: all 2 runs diverged"), 3, "error: work: all 2 runs diverged"),
])
def test_only_a_full_disk_is_told_to_want_space(error, code, said, capsys, monkeypatch):
    def main():
        raise error

    monkeypatch.setattr(app, "use_compilation_cache", lambda: None)
    with pytest.raises(SystemExit) as ended:
        app._guarded(types.SimpleNamespace(main=main), [""])
    message = capsys.readouterr().err
    assert ended.value.code == code and said in message and message.count("\n") == 1
    assert ("space, and" in message) == ("free some space" in said)


def test_a_run_folder_is_one_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.workdir("~/runs/one", "") == tmp_path / "runs/one"
    assert str(folders.workdir("a:b/../c d", "")) == "a:b/../c d"
    assert str(folders.workdir("", "two")) == "runs/two"
    for address in ("gs://bucket/run", "s3://bucket/run", "file:///data/run"):
        with pytest.raises(UserError, match="expected a folder of this machine"):
            folders.workdir(address, "")
    for name in ("{teacher}", "{seed}"):
        with pytest.raises(UserError, match=f"{name} stands for those of teachers"):
            folders.workdir(f"runs/{name}/one", "")
