import csv
import json

import jax
import numpy as np
import pytest

from jaxmm.config import replace
from jaxmm.errors import UserError
from jaxmm.experiments import missing
from jaxmm.train import schedule
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]


pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(name="chosen")
def make_chosen(choose_arrays):
    """A config of arrays of two modalities in an .npz file, with exact shares."""
    return choose_arrays((24, 8, 8), {"train.epochs": 1, "train.batch_size": 8, "data.missing_scheme": "exact"})


def masks(folder):
    splits = restore(folder, devices=ONE).setup.dataset.splits
    return {split: np.stack([*batch["present"].values()]) for split, batch in splits.items()}


def test_every_rate_has_its_runs_and_masks_which_methods_share(chosen, tmp_path, capsys):
    folder = tmp_path / "work"

    def compare(methods, rates):
        return missing.compare(chosen, methods, rates, "", 1, str(folder), "command")

    said = compare(["late"], ["0.25"])
    metrics = folder / "late/missing_0.25/seed_0/metrics.jsonl"
    written = metrics.stat().st_mtime_ns
    capsys.readouterr()
    said = compare(["late", "ume"], ["0.25", "0"])
    assert metrics.stat().st_mtime_ns == written                    # reused
    assert "[1/2]" in capsys.readouterr().out
    config = json.loads((folder / "ume/missing_0.25/seed_0/config.json").read_text())
    assert config["data"]["missing_rate"] == 0.25
    late, ume = (masks(folder / f"{method}/missing_0.25/seed_0") for method in ("late", "ume"))
    for split, rows in {"train": 24, "val": 8, "test": 8}.items():
        assert (~late[split]).sum() == 0.25 * 2 * rows
        np.testing.assert_array_equal(late[split], ume[split])
        # Teachers are of the same rate: at another one they would have seen what is missing.
        np.testing.assert_array_equal(late[split], masks(folder / "unimodal_image/missing_0.25/seed_0")[split])
    assert all(m.all() for m in masks(folder / "late/missing_0/seed_0").values())
    with open(folder / "seeds.csv", encoding="utf-8") as file:
        value, = (float(r["value"]) for r in csv.DictReader(file) if (
            r["method"], r["rate"], r["head"], r["metric"]) == ("late", "0.25", "fused", "accuracy"))
    run = restore(folder / "late/missing_0.25/seed_0", devices=ONE)
    assert run.history[-1]["scores"]["fused"]["accuracy"] == value
    assert f"{100 * value:.1f}" in said and "| late" in said and f"{folder}/report.md" in said
    # Alone it is the same run.
    alone = schedule.train(replace(chosen.config, {"data.missing_rate": 0.25}), tmp_path / "alone", devices=ONE,
                           progress=False)
    assert alone.history[-1]["scores"]["fused"]["accuracy"] == value
    # Other masks are another comparison, which is found before anything is made.
    other = chosen._replace(config=replace(chosen.config, {"data.missing_scheme": "independent"}))
    with pytest.raises(UserError, match="data.missing_scheme was 'exact', is 'independent'"):
        missing.compare(other._replace(overrides=chosen.overrides | {"data.missing_scheme": "independent"}),
                        ["late"], ["0.125", "0.25"], "", 1, str(folder), "command")
    assert not (folder / "late/missing_0.125").exists()


def test_one_modality_in_training_alone(chosen, tmp_path):
    said = missing.compare(chosen, ["late"], ["0.5"], "sound", 1, str(tmp_path / "work"), "command")
    found = masks(tmp_path / "work/late/missing_0.5/seed_0")
    assert sorted((~found["train"]).sum(axis=1)) == [0, 12] and found["val"].all() and found["test"].all()
    assert [line.split("|")[2].strip() for line in said.splitlines() if "| late" in line] == [
        "image", "sound", "fused"]


@pytest.mark.parametrize("rates, modality, overrides, others, message", [
    (["1"], "", {}, {}, r"--missing_rates=1: 1 is not in \[0, 1\); one modality of each example is kept"),
    (["0.1", "nan"], "", {}, {}, "--missing_rates=0.1,nan: nan is not in"),
    (["a"], "", {}, {}, "--missing_rates=a; expected numbers, as in 0.1,0.3,0.5"),
    ([], "", {}, {}, "--missing_rates is empty"),
    (["0.1", "0.10"], "", {}, {}, "--missing_rates=0.1,0.10 has 0.1 twice"),
    (["0.1"], "smell", {}, {}, "--missing_modality='smell'; expected one of image, sound"),
    ([], "sound", {}, {}, "--missing_modality=sound needs --missing_rates"),
    (["0.1"], "", {"data.missing_rate": 0.5}, {}, "--missing_rates sets data.missing_rate; leave out --config"),
    (["0.1"], "sound", {"data.missing_modality": "image"}, {}, "leave out --config.data.missing_modality"),
    (["0.1"], "", {"data.missing_scheme": "half"}, {}, "data.missing_scheme='half'"),
    (["0.1"], "", {"stream.kind": "class"}, {}, "--missing_rates does not go with stream.kind=class"),
    (["0.1"], "", {}, {"folds": 0, "capacities": ["9"]}, "--missing_rates does not go with --capacities"),
])
def test_what_rates_do_not_go_with_is_refused(chosen, rates, modality, overrides, others, message, tmp_path):
    chosen = chosen._replace(config=replace(chosen.config, overrides), overrides=chosen.overrides | overrides)
    with pytest.raises(UserError, match=message):
        missing.check_alone(others, rates, modality)
        missing.compare(chosen, ["late"], rates, modality, 1, str(tmp_path / "work"), "")
    assert not (tmp_path / "work").exists()
