import functools
import json
import os
import re
import socket
import subprocess
import sys

import pytest

from jaxmm import files
from jaxmm.config import AugmentConfig, EncoderConfig, FlowConfig, PreprocessConfig, TrainConfig
from jaxmm.errors import UserError
from jaxmm.methods.mla import MLAConfig
from jaxmm.methods.taught import UMTConfig
from jaxmm.train import folder as folder_lib, options


def test_config_survives_the_file(make_config, tmp_path):
    config = make_config(MLAConfig(alpha=0.3))
    config.augment["sound"] = AugmentConfig(noise=0.5)
    with folder_lib.claim_folder(tmp_path / "run", config):
        pass
    read = folder_lib.read_config(tmp_path / "run")
    assert read == config and isinstance(read.method, MLAConfig)
    with folder_lib.claim_folder(tmp_path / "run", config):
        pass


def test_a_folder_from_before_an_option_was_there_belongs_to_its_run(make_config, tmp_path):
    config = make_config("samm")
    values = options.to_dict(config)
    del values["task"], values["method"]["replay_batch"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert folder_lib.read_config(tmp_path) == config and folder_lib.check_folder(tmp_path, config)


def test_differences_are_listed_by_path():
    old = {"a": {"x": 1, "y": 2}, "b": 3}
    new = {"a": {"x": 1, "y": 5}, "c": 4}
    assert list(options.differences(old, new)) == [("a.y", 2, 5), ("b", 3, None), ("c", None, 4)]
    assert [path for path, _, _ in options.differences(
        {"a": {}}, {"a": {m: {"x": 1} for m in ("b c", "in", "d.e", "f")}})] == [
            "a['b\\x20c']", "a['in']", "a['d.e']", "a.f"]


@pytest.mark.parametrize("content", ["{", "{}", "[]", json.dumps({"data": {"colour": "red"}}),
                                     "[" * 10**5, '{"data": {}, "data": {}}'])
def test_damaged_config(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="config.json cannot be read.*of another version") as error:
        folder_lib.read_config(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path, value, message", [
    ("train.epochs", "2", 'train.epochs is "2"; expected a whole number'),
    ("train.epochs", True, "train.epochs is true; expected a whole number"),
    ("train.epochs", 2.0, "train.epochs is 2.0; expected a whole number"),
    ("train.seed", 10**30, "train.seed is a number of more than 64 bits; expected a whole"),
    ("train.tensorboard", 1, "train.tensorboard is 1; expected true or false"),
    ("optimizer.learning_rate", None, "optimizer.learning_rate is null; expected a number"),
    ("optimizer.learning_rate", 10**400, "learning_rate is a number of more than 64 bits; expected"),
    ("optimizer.name", ["sgd"], "optimizer.name is a list; expected text"),
    ("optimizer", 3, "optimizer is 3; expected an object with options"),
    ("optimizer.colour", 3, 'optimizer has no option "colour"; expected one of name, learning_rate'),
    ("method.name", None, "method.name is null; expected a method"),
    ("method.capacity", 3, 'method has no option "capacity"; expected one of name, modalities, projection'),
    ("encoders", [], "encoders is a list; expected an object by modality"),
    ("encoders.sound", "cnn", 'encoders.sound is "cnn"; expected an object'),
    ("data.preprocess", {"a b": {"kind": []}}, "preprocess['a\\x20b'].kind is a list; expected one of"),
    ("data.preprocess", {"x": {"kind": "text", "mean": 1}}, "preprocess.x.mean is 1; expected a list"),
    ("data.preprocess", {"x": {"kind": "flow", "std": ["a"]}}, "std[0] is \"a\"; expected a number"),
])
def test_a_config_with_other_types_is_refused_by_option(path, value, message, make_config):
    values = options.to_dict(make_config("mla"))
    *sections, name = path.split(".")
    functools.reduce(dict.__getitem__, sections, values)[name] = value
    with pytest.raises(UserError, match=re.escape(message)):
        options.from_dict(values)


def test_whole_numbers_are_numbers_and_what_is_left_out_has_its_default():
    config = options.from_dict({"method": {"name": "umt", "weight": 3}, "encoders": {"a b": {"width": 7}},
                             "data": {"preprocess": {"s": {"kind": "flow", "mean": [1, 0.5]}}}})
    assert type(config.method.weight) is float and config.method == UMTConfig(weight=3.0)
    assert config.encoders["a b"] == EncoderConfig(width=7)
    assert config.encoders["other"] == EncoderConfig()
    assert config.data.preprocess == {"s": FlowConfig(mean=(1.0, 0.5))}
    assert config.train == TrainConfig()


@pytest.mark.parametrize("name", folder_lib.OWN)
def test_a_run_folder_with_links_is_refused_and_nothing_behind_them_is_touched(
        name, make_config, tmp_path):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    with folder_lib.claim_folder(folder, make_config()):
        pass
    path = folder / name
    content = path.read_bytes() if path.exists() else b"precious"
    path.unlink(missing_ok=True)
    elsewhere.write_bytes(content)
    path.symlink_to(elsewhere)
    with pytest.raises(UserError, match=f"run/{name} is not this folder's own: it is a symbolic link"):
        with folder_lib.claim_folder(folder, make_config()):
            pass
    assert elsewhere.read_bytes() == content


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        folder_lib.read_config(tmp_path / "nothing")


def test_folder_that_cannot_be_made(make_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        with folder_lib.claim_folder(tmp_path / "file" / "run", make_config()):
            pass


def test_options_that_leave_the_result_as_it_is_may_change(make_config, tmp_path):
    config = make_config()
    with folder_lib.claim_folder(tmp_path, config):
        pass
    config.train.on_save_error, config.train.keep_checkpoints = "continue", 7
    config.data.placement, config.data.workers = "host", 2      # as on a smaller machine
    config.data.path = "moved.npz"
    with folder_lib.claim_folder(tmp_path, config):
        assert folder_lib.read_config(tmp_path) == config
    config.train.epochs = 1
    with pytest.raises(UserError, match="another config: train.epochs was 2, is 1. Name"):
        with folder_lib.claim_folder(tmp_path, config):
            pass


@pytest.mark.parametrize("option, value", [
    ("seed", 1), ("val_fraction", 0.2), ("missing_rate", 0.5), ("missing_modality", "sound"),
    ("missing_scheme", "exact"), ("kind", "B"), ("preprocess", {"sound": PreprocessConfig(mean=(1.0,))})])
def test_options_that_decide_what_the_data_are_may_not_change(option, value, make_config, tmp_path):
    config = make_config()
    with folder_lib.claim_folder(tmp_path, config):
        pass
    setattr(config.data, option, value)
    with pytest.raises(UserError, match=rf"another config: data\.{option}.* (was|is)"):
        with folder_lib.claim_folder(tmp_path, config):
            pass


def contents(folder):
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}


def test_a_folder_in_use_is_refused_with_its_owner_and_nothing_is_written(make_config, tmp_path):
    with folder_lib.claim_folder(tmp_path, make_config()):
        owner = json.loads((tmp_path / "lock").read_text())
        (tmp_path / "lock").write_text(json.dumps(owner | {"since": owner["since"] - 7200}))
        before = contents(tmp_path)
        with pytest.raises(UserError) as error:
            with folder_lib.claim_folder(tmp_path, make_config()):
                pass
        assert str(error.value) == (
            f"{tmp_path} is in use by process {os.getpid()} on {socket.gethostname()}, for 2 hours; "
            "wait for it, stop it, or name another --workdir")
        assert contents(tmp_path) == before
    with folder_lib.claim_folder(tmp_path, make_config()):
        pass


HOLD = """
import fcntl, json, os, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    json.dump({"host": "here", "pid": os.getpid(), "since": time.time()}, file)
    file.flush()
    print("locked", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_gone(make_config, tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "lock"],
                             stdout=subprocess.PIPE)
    try:
        assert owner.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match=f"in use by process {owner.pid} on here, for . seconds;"):
            with folder_lib.claim_folder(tmp_path, make_config()):
                pass
        assert [p.name for p in tmp_path.iterdir()] == ["lock"]
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    with folder_lib.claim_folder(tmp_path, make_config()):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_folder_where_the_first_start_was_killed_is_no_other_folder(make_config, tmp_path):
    for name in ("lock", "config.json.part"):
        (tmp_path / name).write_text("{")
    with folder_lib.claim_folder(tmp_path, make_config()):
        assert folder_lib.read_config(tmp_path) == make_config()


def test_the_faster_of_two_that_make_a_folder_keeps_it(make_config, tmp_path, monkeypatch):
    """Another process makes the folder its own between the look at it and the lock."""
    lock = folder_lib.lock

    def other_then_lock(workdir):
        files.write(workdir / "config.json",
                         json.dumps(options.to_dict(make_config(epochs=5))))
        return lock(workdir)

    monkeypatch.setattr(folder_lib, "lock", other_then_lock)
    with pytest.raises(UserError, match="train.epochs was 5, is 2"):
        with folder_lib.claim_folder(tmp_path, make_config()):
            pass
    assert folder_lib.read_config(tmp_path).train.epochs == 5


def test_a_file_system_without_locks_is_warned_of(make_config, tmp_path, monkeypatch, caplog):
    def flock(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with folder_lib.claim_folder(tmp_path, make_config()):
        assert "cannot be locked (Function not implemented)" in caplog.text
