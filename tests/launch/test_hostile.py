"""Hostile command lines, files, configs and folders over all commands: each ends in one line that names
what is wrong, with exit code 2, and leaves everything as it was."""
import json
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest

from configs import arrays
from jaxmm.train.options import to_dict

ARRAYS = str(pathlib.Path("configs/arrays.py").absolute())
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"


def snapshot(folder):
    """What there is, without what the launchers print."""
    found = {path: (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in folder.rglob("*")
             if path.name != "streams"}
    return {path: x for path, x in found.items() if "streams" not in path.parts}


@pytest.fixture(name="refused")
def make_refused(tmp_path, launch):
    """refused(module, [(what the line says, arguments)]): checks that each is refused."""
    def check(module, cases):
        (tmp_path / "streams").mkdir(exist_ok=True)
        before = snapshot(tmp_path)
        results = launch(module, [arguments for _, arguments in cases])
        for (expected, arguments), (code, out, err) in zip(cases, results):
            assert (code, out) == (2, "") and "Traceback" not in err, (arguments, code, out, err)
            line = err.splitlines()[-1]
            assert line.startswith("error: ") and expected in line and "\x1b" not in err, (arguments, err)
        assert snapshot(tmp_path) == before

    return check


def write_npz(path, **changes):
    rng, label = np.random.default_rng(0), np.arange(24) % 3
    content = {f"{split}/label": label for split in ("train", "val", "test")} | {
        f"{split}/{m}": rng.normal(size=(24, 4)).astype("f")
        for split in ("train", "val", "test") for m in ("sound", "image")}
    np.savez(path, **content | {k.replace("__", "/"): v for k, v in changes.items()})
    return path


def options(tmp_path, method="late"):
    return [f"--config={ARRAYS}:{method}", f"--config.data.path={write_npz(tmp_path / 'good.npz')}",
            "--config.train.batch_size=8", f"--workdir={tmp_path / 'new'}"]


def test_files_in_the_place_of_data(tmp_path, refused):
    contents = {"empty": b"", "html": b"<!DOCTYPE html>", "pickle": b"\x80\x04cos\nsystem\n", "lfs": LFS,
                "cut": write_npz(tmp_path / "good.npz").read_bytes()[:999]}
    for name, content in contents.items():
        (tmp_path / f"{name}.npz").write_bytes(content)
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "loop.npz").symlink_to("loop.npz")
    (tmp_path / "gone.npz").symlink_to("nowhere")
    (tmp_path / "folder.npz").mkdir()
    for name, changes in {
            "whole": {"train__label": np.arange(24) / 2}, "wide": {"train__label": np.arange(24) + 2**32},
            "high": {"train__label": np.arange(24) * 10**7}, "mask": {"train__present__sound": np.full(24, 2)},
            "objects": {"train__sound": np.array([{}] * 24)}, "text": {"train__sound": np.full((24, 4), "a")},
            "fractions": {"test__sound": np.ones((24, 4), int)}, "extra": {"dev/sound": np.ones((24, 4))},
            "fused": {f"{s}__fused": np.ones((24, 4)) for s in ("train", "val", "test")}}.items():
        write_npz(tmp_path / f"{name}.npz", **changes)
    refused("launch.train", [(expected, [*options(tmp_path), f"--config.data.path={path}"])
                             for expected, path in [
        ("empty.npz: is empty", "../empty.npz"), ("html.npz: is not an .npz file", "../html.npz"),
        ("pickle.npz: is not an .npz file", "../pickle.npz"), ("`git lfs pull`", "../lfs.npz"),
        ("cut.npz: is damaged or cut short", "../cut.npz"),
        ("pipe.npz: is not a regular file", "../pipe.npz"),
        ("loop.npz: ", "../loop.npz"), ("gone.npz: is a link that leads nowhere", "../gone.npz"),
        ("folder.npz: is a folder", "../folder.npz"), ("/dev/zero: is not a regular file", "/dev/zero"),
        ("/dev/null: is not a regular file", "/dev/null"), ("/: is a folder", "/"), ("too long", "x" * 300),
        ("good.npz", "../GOOD.NPZ"), ("but good.npz", "../good"), ("https:", "https://a.org/b.npz"),
        ("\\x1b[2J", "\x1b[2J"), ("a b: no such file", "a\nb"), ("path is empty", ""),
        ("val/label is int64, train/label float64", "../whole.npz"), ("value 4294967296 in row 0", "../wide.npz"),
        ("up to 230000000", "../high.npz"), ("value 2 in row 0", "../mask.npz"),
        ("may run code", "../objects.npz"), ("train/sound is <U1", "../text.npz"),
        ("test/sound holds integers", "../fractions.npz"), ("'dev/sound'", "../extra.npz"),
        ("'fused'", "../fused.npz")]])


def test_options(tmp_path, refused):
    def with_option(expected, option, method="late"):
        return expected, [*options(tmp_path, method), f"--config.{option}"]

    refused("launch.train", [with_option(*case) for case in [
        ("train.epochs=0", "train.epochs=0"), ("1.5", "train.epochs=1.5"), ("1e3", "train.epochs=1e3"),
        ("train.epochs", "train.epochs="), ("train.epochs", f"train.epochs={10**20}"),
        ("train.batch_size=0", "train.batch_size=0"), ("train.seed=-1", "train.seed=-1"),
        ("train.seeds=0", "train.seeds=0"), ("keep_checkpoints", "train.keep_checkpoints=0"),
        ("'explode'", "train.on_save_error=explode"), ("maybe", "train.tensorboard=maybe"),
        ("learning_rate=-1", "optimizer.learning_rate=-1"), ("schedule", "optimizer.schedule=cos"),
        ("momentum", "optimizer.momentum=-1"), ("'arrrays'", "data.name=arrrays"),
        ("missing_rate", "data.missing_rate=nan"), ("missing_rate", "data.missing_rate=1"),
        ("smell", "data.missing_modality=smell"), ("'half'", "data.missing_scheme=half"), ("data.placement", "data.placement=moon"),
        ("data.workers=-1", "data.workers=-1"), ("'klass'", "stream.kind=klass"),
        ("encoders.sound: encoder: found 'x'", "encoders.sound.name=x"),
        ("encoders.sound: encoder 'cnn'", "encoders.sound.name=cnn"),
        ("encoders.sound: encoder width=-1", "encoders.sound.width=-1"),
        ("encoders.sound: dtype", "encoders.sound.dtype=int32"), ("augment.smell", "augment.smell.noise=1"),
        ("augment.sound", "augment.sound.noise=-1"), ("methods", "methods.x=1"),
    ]])


def test_flags_of_train(tmp_path, refused):
    refused("launch.train", [(expected, [*options(tmp_path), *arguments]) for expected, arguments in [
        ("'bogus'", ["--bogus"]), ("'rest'", ["rest"]), ("--sweep=x", ["--sweep=x"]),
        ("--sweep==1", ["--sweep==1"]), ("expected numbers", ["--sweep=optimizer.learning_rate="]),
        ("'train.epochs'", ["--sweep=train.epochs=1,2"]), ("'method.alpha'", ["--sweep=method.alpha=1"]),
        ("learning_rate=nan", ["--sweep=optimizer.learning_rate=nan"]),
        ("learning_rate=-1", ["--sweep=optimizer.learning_rate=-1,1"]),
        ("no stream of tasks", ["--describe_stream"]),
        ("99 tasks cannot share 3", ["--describe_stream", "--config.stream.kind=class",
                                     "--config.stream.num_tasks=99"]),
        ("HOST:PORT", ["--coordinator=x"]), ("num_processes", ["--num_processes=x"]),
        ("good.npz", [f"--workdir={tmp_path / 'good.npz'}"]),
        ("good.npz/a", [f"--workdir={tmp_path / 'good.npz/a'}"]), ("/proc/x", ["--workdir=/proc/x"]),
        ("{teacher}", ["--workdir={teacher}"]), ("s3://x", ["--workdir=s3://x"]),
        ("a*b", ["--workdir=a*b"]), ("too long", [f"--workdir={'x' * 300}"])]])


def test_configs(tmp_path, refused):
    start = "from jaxmm.config import Config\ndef get_config(method=''):\n    c = Config()\n    "
    contents = {
        "syntax.py": "def get_config(:", "raises.py": "raise RuntimeError('boom')", "nothing.py": "",
        "imports.py": "import nowhere", "none.py": "def get_config(m=''): pass", "nul.py": "\0",
        "number.py": "def get_config(m=''): return 3", "dict.py": "def get_config(m=''): return {}",
        "train.py": f"{start}c.train = None; return c", "method.py": f"{start}c.method = 'x'; return c",
        "list.json": "[]", "null.json": "null", "cut.json": '{"train": {"epochs": 1', "deep.json": "[" * 10**5,
        "twice.json": '{"train": {}, "train": {}}', "nan.json": '{"optimizer": {"momentum": NaN}}',
        "long.json": '{"train": {"epochs": 1%s}}' % ("0" * 5000), "bool.json": '{"train": {"epochs": true}}',
        "field.json": '{"train": {"epoch": 1}}', "section.json": '{"trian": {}}',
        "encoder.json": '{"encoders": {"a": 3}}', "kind.json": '{"data": {"preprocess": {"a": {"kind": "x"}}}}',
        "html.json": "<html>", "name.json": '{"method": {"name": "\\u001b[2J"}}'}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    expected = {"nothing.py": "get_config", "name.json": "\\x1b[2J", "nan.json": "NaN is not a finite number"}
    os.mkfifo(tmp_path / "pipe.json")
    refused("launch.train", [
        *((expected.get(name, name.removesuffix(".py")), [f"--config={tmp_path / name}"]) for name in contents),
        ("nowhere.json", ["--config=nowhere.json"]), ("nowhere.py", ["--config=nowhere.py"]),
        ("pipe.json", [f"--config={tmp_path / 'pipe.json'}"])])


def test_run_folders(tmp_path, refused):
    """Wrong types, links, pipes and folders in the place of a run's files, for train and evaluate."""
    config = app_config(tmp_path)
    changes = {"train": {"train": 3}, "encoders": {"encoders": []}, "method": {"method": None},
               "name": {"data": {"name": 5}}, "gone": {"data": {"name": "arrays", "path": "gone.npz"}},
               "rate": {"optimizer": {"learning_rate": "0.1"}}, "extra": {"extra": 1},
               "unknown": {"method": {"name": "mlb"}}, "batch": {"train": {"batch_size": 0}}}
    texts = {f"{name}_": json.dumps(config | change) for name, change in changes.items()} | {
        "empty_": "", "list_": "[1]", "cut_": '{"train"', "deep_": "[" * 10**5, "null_": "null",
        "none_": json.dumps(config), "link_": json.dumps(config), "file_": json.dumps(config)}
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "file_/checkpoints").write_text("x")
    (tmp_path / "link_/checkpoints").symlink_to(tmp_path)
    (tmp_path / "link_/lock").symlink_to(tmp_path / "good.npz")
    (tmp_path / "pipe_").mkdir()
    os.mkfifo(tmp_path / "pipe_/config.json")
    (tmp_path / "folder_/config.json").mkdir(parents=True)
    said = {"train_": "train is 3", "encoders_": "encoders is a list", "method_": "method is null",
            "name_": "data.name is 5", "gone_": "no checkpoint", "rate_": 'learning_rate is "0.1"',
            "extra_": "no option", "unknown_": "no checkpoint", "batch_": "no checkpoint", "none_": "no checkpoint",
            "file_": "no checkpoint"}
    refused("launch.evaluate", [
        *((said.get(name, name), [f"--workdir={tmp_path / name}"]) for name in
          [*(set(texts) - {"link_"}), "pipe_", "folder_"]),
        ("is not a run folder", [f"--workdir={tmp_path}"]), ("is not a run folder", ["--workdir=/dev/null"]),
        ("s3://x", ["--workdir=s3://x"]), ("--step=x", ["--step=x"]), ("'bogus'", ["--bogus"]),
        ("probe", ["--probe=2"]), ("--reference is for", [f"--workdir={tmp_path}", "--reference=x"]),
        ("--drop and --noise", [f"--workdir={tmp_path}", "--gap", "--drop=a"])])
    train = options(tmp_path)
    refused("launch.train", [(expected, [*train, f"--workdir={tmp_path / name}"]) for expected, name in [
        ("another config", "link_"), ("pipe_", "pipe_"), ("config.json", "folder_"), ("another config", "batch_"),
        ("list_", "list_"), ("cut_", "cut_"), ("deep_", "deep_")]])


def app_config(tmp_path):
    """The config.json of a run on the arrays in `tmp_path`."""
    config = arrays.get_config("late")
    config.data.path = str(write_npz(tmp_path / "good.npz"))
    return to_dict(config)


def test_compare(tmp_path, refused):
    refused("launch.compare", [(expected, [f"--config={ARRAYS}", *options(tmp_path)[1:], *arguments])
                               for expected, arguments in [
        ("'mlb'", ["--methods=mlb"]), ("--methods is empty", ["--methods="]), ("''", ["--methods=,"]),
        ("'er:'", ["--methods=er:"]), ("'late+'", ["--methods=late+"]), ("'../x'", ["--methods=../x"]),
        ("every option once", ["--methods=mla+alpha=1+alpha=2"]), ("alpha='x'", ["--methods=mla+alpha=x"]),
        ("'beta'", ["--methods=mla+beta=1"]), ("alpha=nan", ["--methods=mla+alpha=nan"]),
        ("each once", ["--methods=mla:sound&sound"]), ("smell", ["--methods=unimodal:smell"]),
        ("joint", ["--methods=joint"]), ("--seeds=0", ["--methods=late", "--seeds=0"]),
        ("1 is not in [0, 1)", ["--missing_rates=0.1,1"]), ("--missing_rates is empty", ["--missing_rates="]),
        ("needs --missing_rates", ["--missing_modality=sound"]),
        ("does not go with --folds", ["--missing_rates=0.1", "--folds=3"]),
        ("seeds=x", ["--methods=late", "--seeds=x"]), ("seeds", ["--methods=late", f"--seeds={10**8}"]),
        ("--capacities", ["--methods=late", "--capacities=5"]), ("--capacities=-5", ["--capacities=-5"]),
        ("no such file", ["--methods=late", "--config.data.path=x.npz"])]])


def test_advise(tmp_path, refused):
    refused("launch.advise", [(expected, [*options(tmp_path), *arguments]) for expected, arguments in [
        ("--seeds=0", ["--seeds=0"]), ("'nothing' is unknown", ["--methods=nothing"]), ("--budget=0", ["--budget=0"]),
        ("leave out --methods", ["--rule", "--methods=late"]), ("s3://x", ["--workdir=s3://x"]),
        ("no such file", ["--config.data.path=x.npz"]), ("stream", ["--config.stream.kind=class"]),
        ("'rest'", ["rest"])]])


def test_bench(tmp_path, refused):
    refused("launch.bench", [
        ("'x' is unknown", ["--workloads=x"]), ("'all' is unknown", ["--workloads=all,x"]),
        ("--seconds=-1", ["--seconds=-1"]), ("--seconds=nan", ["--seconds=nan"]),
        ("--seconds=inf", ["--seconds=inf"]), ("none/x", ["--workloads=mla_small", "--output=none/x"]),
        ("expected a file", ["--workloads=mla_small", f"--output={tmp_path}"]),
        ("expected a folder", ["--scaling", "--output=/dev/null"]), ("'bogus'", ["--bogus"]),
        ("choose one", ["--scaling", "--accelerator"]), ("'x' is unknown", ["--accelerator", "--workloads=x"]),
        ("workloads of its own", ["--scaling", "--workloads=all"]),
        ("--minutes=nan", ["--accelerator", "--minutes=nan"]), ("--minutes=-1", ["--minutes=-1"]),
        ("--minutes is for --accelerator", ["--workloads=mla_small", "--minutes=1"])])


def test_export(tmp_path, refused):
    (tmp_path / "no_run").mkdir()
    (tmp_path / "file").write_text("")
    workdir = f"--workdir={tmp_path / 'no_run'}"
    refused("launch.export", [
        ("--workdir is missing", []), ("is not a run folder", [workdir]),
        ("--format='onnx'; expected one of stablehlo, safetensors", [workdir, "--format=onnx"]),
        ("is a file; name a folder", [workdir, f"--output={tmp_path / 'file'}"]),
        ("expected a folder of this machine", [workdir, "--output=gs://bucket/x"])])


def test_convert(tmp_path, refused):
    """Files in the place of weights, and outputs that are there."""
    contents = {"empty.pth": b"", "html.pth": b"<!DOCTYPE html>", "lfs.bin": LFS, "cut.pt": b"PK\3\4",
                "list.pkl": pickle.dumps([1]), "code.pkl": b"\x80\x04cos\nsystem\nU\x04trueR.", "random.pth": bytes(range(256)),
                "there.safetensors": b"", "objects.pkl": pickle.dumps({"a": np.array([{}])})}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    write_npz(tmp_path / "good.npz")
    os.mkfifo(tmp_path / "pipe.pth")

    def arguments(weights, output="new.safetensors"):
        return [f"--weights={tmp_path / weights}" * bool(weights), f"--output={tmp_path / output}"][not weights:]

    refused("launch.convert", [
        ("--weights is empty", []), ("--weights is empty", arguments("")), ("--output is empty", ["--weights=x"]),
        ("no folder", arguments("list.pkl", "none/x.safetensors")), ("ends in .safetensors", arguments("list.pkl", "x.pth")),
        ("there.safetensors exists", arguments("list.pkl", "there.safetensors")),
        ("gone.pth cannot be read (No such file", arguments("gone.pth")), ("(Is a directory", arguments("")[:0] + [
            f"--weights={tmp_path}", f"--output={tmp_path / 'new.safetensors'}"]),
        ("pipe.pth is not a regular file", arguments("pipe.pth")), ("needs no conversion", arguments("good.npz")),
        ("needs no conversion", arguments("there.safetensors")), ("empty.pth is empty", arguments("empty.pth")),
        ("html.pth is damaged", arguments("html.pth")), ("`git lfs pull`", arguments("lfs.bin")),
        ("cut.pt is damaged", arguments("cut.pt")), ("holds no arrays that have names, but list", arguments("list.pkl")),
        ("code.pkl holds no arrays", arguments("code.pkl")), ("random.pth is damaged", arguments("random.pth")),
        ("an array of the type 'O8'", arguments("objects.pkl")), ("'bogus'", [*arguments("list.pkl"), "--bogus"])])


def test_encode(tmp_path, refused):
    (tmp_path / "file").write_text("")
    (tmp_path / "no_run").mkdir()
    config, output = options(tmp_path)[:-1], f"--output={tmp_path / 'new'}"
    refused("launch.encode", [
        ("--output is missing", config), ("file exists", [*config, f"--output={tmp_path / 'file'}"]),
        ("no_run exists", [*config, f"--output={tmp_path / 'no_run'}"]),
        ("file/x", [*config, f"--output={tmp_path / 'file/x'}"]), ("/proc/x", [*config, "--output=/proc/x"]),
        ("expected a folder of this machine", [*config, "--output=gs://bucket/x"]),
        ("no such file", [*config, output, "--config.data.path=x.npz"]),
        ("--config does not go with --workdir", [*config, output, f"--workdir={tmp_path / 'no_run'}"]),
        ("is not a run folder", [output, f"--workdir={tmp_path / 'no_run'}"]),
        ("--data and --step go with --workdir", [*config, output, "--step=3"]),
        ("data.folds", [*config, output, "--config.data.folds=3"]), ("'bogus'", [output, "--bogus"])])


def test_prepare(tmp_path, layouts, refused):
    """Flags, and files in the place of a data set's; what is there already is not touched."""
    layouts.cremad(tmp_path / "source")
    for name, content in {"lfs": LFS, "html": b"<!DOCTYPE html>", "empty": b"", "binary": bytes(range(256))}.items():
        shutil.copytree(tmp_path / "source", tmp_path / name)
        for path in sorted((tmp_path / name / "AudioWAV").iterdir())[:6]:
            path.write_bytes(content)
    shutil.copytree(tmp_path / "source", tmp_path / "pipe")
    for path in sorted((tmp_path / "pipe/AudioWAV").iterdir())[:6]:
        path.unlink()
        os.mkfifo(path)
    shutil.copytree(tmp_path / "source", tmp_path / "gone")
    for path in sorted((tmp_path / "gone/AudioWAV").iterdir())[:6]:
        path.unlink()
    (tmp_path / "nothing").mkdir()
    (tmp_path / "file").write_text("x")

    def arguments(**changes):
        # Beside what is looked at: a list of what cannot be used stays there for the next attempt.
        output = tmp_path / "streams" / pathlib.Path(str(changes.get("source", "source"))).name[:9]
        return [f"--{name}={value}" for name, value in (
            {"dataset": "cremad", "source": tmp_path / "source", "output": output,
             "workers": 1, "progress": False} | changes).items()]

    refused("launch.prepare", [(expected, arguments(**changes)) for expected, changes in [
        ("'cremat'", {"dataset": "cremat"}), ("'../cremad'", {"dataset": "../cremad"}),
        ("--dataset is empty", {"dataset": ""}), ("--source is empty", {"source": ""}),
        ("--output is empty", {"output": ""}), ("no such folder", {"source": tmp_path / "none"}),
        ("no such folder", {"source": tmp_path / "file"}), ("nothing", {"source": tmp_path / "nothing"}),
        ("too long", {"source": "x" * 300}), ("too long", {"output": tmp_path / ("x" * 300)}),
        ("s3://x", {"output": "s3://x"}), ("file", {"output": tmp_path / "file"}),
        ("file/out", {"output": tmp_path / "file/out"}), ("/proc/out", {"output": "/proc/out"}),
        ("'x'", {"variant": "x"}), ("--audio_rate=-1", {"audio_rate": -1}), ("audio_rate", {"audio_rate": "x"}),
        ("--audio_rate=100000000", {"audio_rate": 10**8}), ("--fps=nan", {"fps": "nan"}),
        ("--fps=inf", {"fps": "inf"}), ("--fps=-1", {"fps": -1}), ("--short_side=-1", {"short_side": -1}),
        ("--short_side=1000000000", {"short_side": 10**9}), ("--allow_skipped=2", {"allow_skipped": 2}),
        ("--allow_skipped=nan", {"allow_skipped": "nan"}), ("--workers=-1", {"workers": -1}),
        ("--workers=1000000", {"workers": 10**6}), ("maybe", {"allow_broken": "maybe"}),
        ("none.py", {"spectrograms_of": tmp_path / "none.py"}),
        ("source cannot be", {"spectrograms_of": tmp_path / "source"}), ("'bogus'", {"bogus": 1}),
        ("a git-lfs pointer in place of the file", {"source": tmp_path / "lfs"}), ("6 broken audio", {"source": tmp_path / "html"}),
        ("6 broken audio", {"source": tmp_path / "empty"}), ("6 broken audio", {"source": tmp_path / "binary"}),
        ("6 ", {"source": tmp_path / "pipe"}), ("6 no audio", {"source": tmp_path / "gone"}),
    ]])


def test_prepared_data(tmp_path, layouts, launch, refused):
    """Damaged and hostile files in the place of a prepared data set's."""
    layouts.cremad(tmp_path / "source")
    command = ["--dataset=cremad", f"--source={tmp_path / 'source'}", f"--output={tmp_path}", "--workers=1",
               "--noprogress"]
    (code, _, err), = launch("launch.prepare", [command])
    assert code == 0, err
    good = tmp_path / "cremad/1.1.0"
    summary = json.loads((good / "summary.json").read_text())
    shards = sorted(summary["shards"])
    texts = {"list": "[]", "null": "null", "cut": '{"name"', "deep": "[" * 10**5, "nothing": "", "html": "<html>",
             "number": json.dumps(summary | {"class_names": 3}), "twice": json.dumps(summary | {"class_names": ["a", "a"]}),
             "kind": json.dumps(summary | {"modalities": {"audio": {"kind": "x"}}}),
             "none": json.dumps(summary | {"modalities": {}}),
             "shards": json.dumps(summary | {"shards": {"../x": {"size": 1, "sha256": "0"}}}),
             "fewer": json.dumps(summary | {"shards": {shards[0]: summary["shards"][shards[0]]}}),
             "size": json.dumps(summary | {"shards": {s: {"size": "1", "sha256": ""} for s in shards}}),
             "files": json.dumps(summary | {"files": {"/etc/passwd": "0"}})}
    for name, text in texts.items():
        shutil.copytree(good, tmp_path / name)
        (tmp_path / name / "summary.json").write_text(text)
    bad = {"flipped": lambda folder, data: data[:99] + bytes([data[99] ^ 1]) + data[100:],
           "cutshard": lambda folder, data: data[:-9], "emptied": lambda folder, data: b"",
           "swapped": lambda folder, data: (folder / shards[1]).read_bytes()}
    for name, change in bad.items():
        shutil.copytree(good, tmp_path / name)
        path = tmp_path / name / shards[0]
        path.write_bytes(change(path.parent, path.read_bytes()))
    for name, file in {"missing": shards[0], "pipe": shards[0], "info": "dataset_info.json",
                       "pipeinfo": "dataset_info.json", "pipesummary": "summary.json"}.items():
        shutil.copytree(good, tmp_path / name)
        (tmp_path / name / file).unlink()
        if name.startswith("pipe"):
            os.mkfifo(tmp_path / name / file)
    config = pathlib.Path("configs/cremad.py").absolute()
    said = {"pipesummary": "found none"}
    refused("launch.train", [(said.get(name, f"{tmp_path / name}"), [
        f"--config={config}:late", f"--config.data.path={tmp_path / name}", f"--workdir={tmp_path / 'new'}"])
        for name in [*texts, *bad, "missing", "pipe", "info", "pipeinfo", "pipesummary"]])
