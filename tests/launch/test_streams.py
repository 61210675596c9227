import collections
import csv
import pathlib

import numpy as np

from jaxmm.data.streams import read_coarse_map

ARRAYS = str(pathlib.Path("configs/arrays.py").absolute())
STREAM = ["--config.stream.kind=class", "--config.stream.num_tasks=2"]


def write_npz(path, rows=64, classes=4):
    rng = np.random.default_rng(0)
    content = {}
    for split in ("train", "val", "test"):
        label = content[f"{split}/label"] = np.arange(rows) % classes
        for m in ("sound", "image"):
            content[f"{split}/{m}"] = (rng.normal(size=(rows, 4)) + label[:, None]).astype("f")
    np.savez(path, **content)
    return str(path)


def test_train_shows_the_stream_or_trains_on_it(tmp_path, launch):
    data = f"--config.data.path={write_npz(tmp_path / 'data.npz')}"
    workdir = f"--workdir={tmp_path / 'run'}"
    command = [f"--config={ARRAYS}:sgd", data, workdir, "--config.train.epochs=1",
               "--config.train.batch_size=16"]
    shown, none, trained = launch("launch.train", [
        [*command, *STREAM, "--describe_stream"], [*command, "--describe_stream"],
        [*command, *STREAM]])
    code, out, err = shown
    assert code == 0, err
    head, _, first, second = out.strip().splitlines()
    assert head == "| task | classes | train | val | test |"
    groups = [set(line.split("|")[2].strip().split("; ")) for line in (first, second)]
    assert len(groups[0]) == len(groups[1]) == 2 and groups[0] | groups[1] == set("0123")
    assert first.endswith("| 32 | 32 | 32 |")
    code, out, err = none
    assert (code, out) == (2, "") and err.count("\n") == 1 and "has no stream of tasks" in err
    code, out, err = trained
    assert code == 0, err
    assert out.startswith("| head  | mean accuracy |") and (tmp_path / "run/stream.json").exists()

    evaluated, without, train_split = launch("launch.evaluate", [
        [workdir], [workdir, "--drop=sound"], [workdir, "--split=train"]])
    accuracy = out.splitlines()[2].split("|")[2].strip()
    by_task = evaluated[1].split("By task, in percent:")[1]
    assert by_task.split("\n\n")[1].splitlines()[2].split("|")[2].strip() == accuracy, evaluated
    assert without[0] == 0 and "Without sound" in without[1]
    assert train_split[0] == 0 and "By task" not in train_split[1]


def test_compare_on_a_stream(tmp_path, launch):
    data = f"--config.data.path={write_npz(tmp_path / 'data.npz')}"
    workdir = tmp_path / "compare"
    common = [f"--config={ARRAYS}", data, f"--workdir={workdir}", "--config.train.epochs=1",
              "--config.train.batch_size=16", *STREAM]
    good = [*common, "--methods=joint,er:image", "--capacities=16,32", "--seeds=2"]
    wrong = {"'betta'; expected one of": ["--methods=er+betta=1"],
             "numbers of examples": ["--methods=er", "--capacities=ten"],
             "smaller than the replay batch": ["--methods=er", "--capacities=5"]}
    *refused, (code, out, err) = launch("launch.compare", [
        *([*common, f"--workdir={tmp_path / 'refused'}", *case] for case in wrong.values()), good])
    assert code == 0, err
    assert not (tmp_path / "refused").exists()
    for expected, (code, stdout, err) in zip(wrong, refused):
        assert (code, stdout, err.count("\n")) == (2, "", 1) and expected in err, err
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in out.splitlines() if "|" in line]
    assert [row[:2] for row in rows[2:]] == [
        ["joint", ""], ["er:image", "16"], ["er:image", "32"]]
    assert rows[0] == ["method", "buffer", "image", "sound", "fused"]
    assert [[bool(cell) for cell in row[2:]] for row in rows[2:]] == [
        [True, True, True], *2 * [[True, False, False]]]
    assert sorted(p.name for p in workdir.iterdir() if p.is_dir()) == [
        "er_image_16", "er_image_32", "joint"]
    for seed in (0, 1):
        assert (workdir / f"er_image_16/seed_{seed}/stream.json").exists()
    with (workdir / "seeds.csv").open() as file:
        found = [float(r["value"]) for r in csv.DictReader(file) if r["metric"] == "mean_accuracy"
                 and (r["method"], r["buffer"], r["head"]) == ("er:image", "32", "image")]
    assert rows[4][2] == f"{100 * np.mean(found):.1f} ± {100 * np.std(found, ddof=1):.1f}"
    assert "## Over the tasks" in (workdir / "report.md").read_text()


def test_configs_of_vggsound(launch):
    """Their data set is not there to test on; everything else about them is."""
    from configs import dom_vggsound, gcil_vggsound, seq_vggsound
    for module, kind in ((seq_vggsound, "class"), (dom_vggsound, "domain"),
                         (gcil_vggsound, "generalized")):
        config = module.get_config("er")
        assert (config.stream.kind, config.method.capacity) == (kind, 1000)
        assert (config.optimizer.momentum, config.optimizer.weight_decay) == (0, 0)
        assert {e.stem for e in config.encoders.values()} == {"standard"}
        assert not hasattr(module.get_config("sgd").method, "capacity")
    # Not absolute: the run folder may move to another machine.
    coarse = dom_vggsound.get_config().stream.coarse
    assert coarse == "jaxmm/prepare/vggsound_mmcl.csv"
    with open(coarse, encoding="utf-8") as file:
        names = [row["class"] for row in csv.DictReader(file)]
    categories = read_coarse_map(coarse, names)
    assert len(names) == 100 and sorted(collections.Counter(categories.values()).items()) == [
        (name, 20) for name in ("animals", "music", "people", "sports", "vehicle")]
