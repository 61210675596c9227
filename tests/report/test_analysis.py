import csv
import re

import jax
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.errors import UserError
from jaxmm.evaluate import robustness
from jaxmm.evaluate.class_level import class_accuracy
from jaxmm.evaluate.gap import modality_gap
from jaxmm.evaluate.probe import probe_encoders
from jaxmm.report import analysis
from jaxmm.report.analysis import Trained, all_features, predict, unimodal, write
from jaxmm.report.tables import percent
from jaxmm.evaluate.measure import Options, measure
from jaxmm.train.schedule import train
from jaxmm.train.restore import restore_each
from jaxmm.train.setup import Run, build, init_state

ONE = jax.devices()[:1]


@pytest.fixture(name="trained", scope="module")
def make_trained(make_dataset, make_config, tmp_path_factory):
    """Runs by name, of data on which the test split has no example of class 2."""
    dataset, root = make_dataset(missing=True), tmp_path_factory.mktemp("runs")
    test = dataset.splits["test"]
    test["label"] = np.arange(16, dtype=np.int32) % 2

    def run(name, method, **options):
        config = make_config(method, epochs=3, keep_checkpoints=9)
        for option, value in options.items():
            setattr(config.method, option, value)
        return Trained(train(config, root / name, dataset=dataset, devices=ONE, progress=False),
                       root / name)

    return {"concat": run("concat", "concat"), "sound": run("sound", "unimodal", modality="sound"),
            "late": run("late", "late")}


def untrained(config, dataset):
    """A run of which nothing but the start is made."""
    setup = build(config, dataset=dataset, devices=ONE)
    return Run(setup, init_state(setup), [])


def tables(text):
    """Rows of every Markdown table in a text, as lists of cells."""
    found = re.findall(r"(?:^\|.*\n)+", text + "\n", flags=re.MULTILINE)
    return [[[cell.strip() for cell in line.split("|")[1:-1]]
             for i, line in enumerate(table.splitlines()) if i != 1] for table in found]


def test_probes_are_compared_with_the_readout_and_with_unimodal_training(trained):
    subject, alone = trained["concat"], trained["sound"]
    text = write(subject.run, subject.workdir, ["probe"], "test", [alone, trained["late"]])
    header, image, sound = tables(text)[0]
    assert header == ["encoder", "probe", "readout", "unimodal", "probe, unimodal", "difference"]
    probes = probe_encoders(all_features(subject.run), subject.run.setup.dataset.splits)
    other = probe_encoders(all_features(alone.run), subject.run.setup.dataset.splits)["sound"]
    readouts = subject.run.history[-1]["scores"]
    assert image == ["image", percent(probes["image"]), percent(readouts["image"]["accuracy"]),
                     "", "", ""]
    assert sound == ["sound", percent(probes["sound"]), percent(readouts["sound"]["accuracy"]),
                     percent(alone.run.history[-1]["scores"]["sound"]["accuracy"]), percent(other),
                     f"{100 * (probes['sound'] - other):+.1f}"]
    assert (subject.workdir / "probes.png").exists() and "(probes.png)" in text


def test_the_probe_curve_has_a_point_for_every_checkpoint(trained, monkeypatch):
    """The size of the features, in place of the probe, tells one checkpoint from the next."""
    def size(features, splits):
        return {m: float(np.abs(x).sum()) for m, x in features["test"].items()}

    monkeypatch.setattr(analysis, "probe_encoders", size)
    subject = trained["concat"]
    curve = analysis.probe_curve(subject)
    assert {m: list(points) for m, points in curve.items()} == {
        "image": [4, 8, 12], "sound": [4, 8, 12]}
    step, first = next(restore_each(subject.run, subject.workdir))
    assert step == 4
    for step, run in ((4, first), (12, subject.run)):
        assert {m: points[step] for m, points in curve.items()} == size(all_features(run), None)
    assert all(abs(points[12] / points[4] - 1) > 1e-3 for points in curve.values())


def test_the_class_table_takes_unimodal_accuracies_from_references(trained):
    subject = trained["concat"]
    text = write(subject.run, subject.workdir, ["per_class"], "test",
                 [trained["sound"], trained["late"]])
    header, *rows = tables(text)[0]
    assert header == ["class", "examples", "image", "sound", "average", "late", "concat, fused",
                      "over the best", "over the sum"]
    batch = subject.run.setup.dataset.splits["test"]
    own, alone, late = (predict(trained[k], batch) for k in ("concat", "sound", "late"))
    everywhere = np.ones(16, bool)
    image = class_accuracy(own["image"], batch["label"], batch["present"]["image"])
    sound = class_accuracy(alone["sound"], batch["label"], batch["present"]["sound"])
    fused = class_accuracy(own["fused"], batch["label"], everywhere)
    by_class = {row[0]: row[1:] for row in rows}
    for c in (0, 1):
        found = by_class[f"class {c}"]
        assert found[:3] == ["8", percent(image[c]), percent(sound[c])]
        assert found[4] == percent(class_accuracy(late["fused"], batch["label"], everywhere)[c])
        assert found[5:] == [percent(fused[c]),
                             f"{100 * (fused[c] - max(image[c], sound[c])):+.1f}",
                             f"{100 * (fused[c] - image[c] - sound[c]):+.1f}"]
    assert by_class["class 2"] == ["0"] + 7 * [""]
    beats = [f"class {c}" for c in (0, 1) if fused[c] > image[c] + sound[c]]
    assert f"({len(beats)} of 3): {', '.join(beats) or 'none'}." in text
    with (subject.workdir / "per_class.csv").open() as file:
        assert list(csv.reader(file)) == [header, *rows]


def test_the_gap_is_that_of_the_features_that_are_there(trained, make_dataset, make_config, tmp_path):
    subject = trained["concat"]
    batch = subject.run.setup.dataset.splits["val"]
    features = {m: h[batch["present"][m]] for m, h in all_features(subject.run)["val"].items()}
    text = write(subject.run, subject.workdir, ["gap"], "val")
    assert tables(text)[0][1] == ["image, sound", f"{modality_gap(features)['image', 'sound']:.3f}"]
    assert (subject.workdir / "modality_gap.png").exists()
    config = make_config("concat", epochs=1)
    config.encoders["sound"] = EncoderConfig(name="mlp", width=4, depth=1)
    text = write(untrained(config, make_dataset()), tmp_path, ["gap"], "test")
    assert "No two modalities have features of one width (image 6, sound 4)" in text
    assert not (tmp_path / "modality_gap.png").exists()


def test_robustness_starts_from_the_scores_of_the_run(trained):
    subject = trained["concat"]
    text = write(subject.run, subject.workdir, ["robustness"], "test")
    *noise, missing, without = tables(text)
    scores = subject.run.history[-1]["scores"]
    expected = [percent(scores[h]["accuracy"]) for h in ("image", "sound", "fused")]
    for table, levels in zip([*noise, missing], 2 * [robustness.SIGMAS] + [robustness.RATES]):
        assert table[0][1:] == ["image", "sound", "fused"]
        assert table[1][1:] == expected
        assert [float(row[0]) for row in table[1:]] == list(levels)
    assert {row[2] for row in noise[0][1:]} == {expected[1]}        # noise on image, head sound
    assert [row[0] for row in without[1:]] == ["image", "sound"]
    assert without[1][1] == "" == without[2][2]


def test_sections_stay_until_they_are_made_again_and_the_report_links_to_them(trained):
    late = trained["late"]
    (late.workdir / "report.md").write_text("# Report\n")
    write(late.run, late.workdir, ["robustness", "gap"], "test")
    first = analysis.read_sections(late.workdir / analysis.FILE)
    write(late.run, late.workdir, ["gap"], "val")
    second = analysis.read_sections(late.workdir / analysis.FILE)
    assert list(first) == list(second) == ["Robustness", "Modality gap"]
    assert first["Robustness"] == second["Robustness"]
    assert "val split" in second["Modality gap"] and "test split" in first["Modality gap"]
    assert (late.workdir / "report.md").read_text().count("(analysis.md)") == 1


def test_what_cannot_be_analysed_is_said_in_a_line(trained, make_dataset, make_config, tmp_path):
    sound = trained["sound"]
    with pytest.raises(UserError, match="--per_class compares .* has only sound; name a run of"):
        write(sound.run, sound.workdir, ["per_class"], "test")
    other = Trained(untrained(make_config("concat"), make_dataset(seed=5)), tmp_path / "run")
    with pytest.raises(UserError, match="--reference=.*run: trained on other data"):
        write(sound.run, sound.workdir, ["probe"], "test", [other])
    assert unimodal([other, sound]) == {"sound": sound}


def test_sections_and_references_of_other_data_are_left_out(trained, caplog):
    late, sound = trained["late"], trained["sound"]
    write(late.run, late.workdir, ["robustness", "gap"], "test")
    setup = late.run.setup._replace(checksums=late.run.setup.checksums | {"test": "0"})
    changed = late.run._replace(setup=setup, changed=("test",))
    write(changed, late.workdir, ["gap"], "test")
    text = (late.workdir / analysis.FILE).read_text()
    assert list(analysis.read_sections(late.workdir / analysis.FILE)) == ["Modality gap"]
    assert "Note: the split test of tiny changed" in text
    assert "analysis.md: removed Robustness, of other data than there are now" in caplog.text
    dataset = sound.run.setup.dataset
    test = dataset.splits["test"]
    dataset = dataset._replace(splits=dataset.splits | {"test": test | {"label": 1 - test["label"]}})
    other = sound._replace(run=sound.run._replace(setup=sound.run.setup._replace(dataset=dataset)))
    with pytest.raises(UserError, match=r"other data than .*late \(test\)"):
        write(late.run, late.workdir, ["probe"], "test", [other])


def test_utilization_by_hand(make_dataset, make_config, tmp_path):
    """One stage, a dense layer each: z of image with sound's mean over training in the place of sound."""
    dataset = make_dataset(noise=3.0)
    run = untrained(make_config("mmtm"), dataset)
    params, test = jax.device_get(run.state.params), dataset.splits["test"]
    head = params["head"]["image"]
    exchange = params["exchange"]["stage_0"]
    units = {split: {m: np.maximum((batch["inputs"][m] - mean) / std @ params[m]["Dense_0"]["kernel"], 0)
                     for m, (mean, std) in run.setup.spec.norms.items()}
             for split, batch in dataset.splits.items()}

    def accuracy(image, sound):
        e = np.maximum(np.concatenate([image, sound], 1) @ exchange["squeeze"]["kernel"], 0)
        gate = 1 / (1 + np.exp(-e @ exchange["gate"]["image"]["kernel"]))
        return np.mean((image * gate @ head["kernel"]).argmax(1) == test["label"])

    sound = units["test"]["sound"]
    mean = np.broadcast_to(units["train"]["sound"].mean(0), sound.shape)
    whole, alone = (accuracy(units["test"]["image"], x) for x in (sound, mean))
    assert whole != alone
    header, image, _ = tables(write(run, tmp_path, ["utilization"], "test"))[0]
    assert header == ["head", "accuracy", "without the others", "utilization"]
    assert image == ["image", percent(whole), percent(alone), f"{100 * (whole - alone) / whole:+.1f}"]
    with pytest.raises(UserError, match="--utilization is for encoders that exchange.*concat do not"):
        write(untrained(make_config("concat"), dataset), tmp_path, ["utilization"], "test")


def test_the_contribution_is_that_of_the_run_at_every_checkpoint(trained):
    subject = trained["concat"]
    batch, options = subject.run.setup.dataset.splits["test"], Options("zero", "prob")
    text = write(subject.run, subject.workdir, ["contribution"], "test", options=options)
    found = measure(subject.run, batch, options)
    phi = {m: x.mean() for m, x in found.phi.items()}
    table = tables(text)[0]
    assert [row[0] for row in table] == ["modality", "image", "sound"]
    assert [row[3].split()[0] for row in table[1:]] == [percent(phi[m]) for m in ("image", "sound")]

    def rows_of(name):
        with (subject.workdir / f"contribution_{name}.csv").open() as file:
            return list(csv.DictReader(file))

    assert [int(row["id"]) for row in rows_of("examples")] == found.ids.tolist()
    assert {row["class"]: int(row["examples"]) for row in rows_of("classes")} == {
        f"class {c}": np.sum(found.labels == c) for c in (0, 1)}
    first, _, last = rows_of("training")
    assert [int(row["step"]) for row in rows_of("training")] == [4, 8, 12]
    assert {m: float(last[f"Shapley {m}"]) for m in phi} == pytest.approx(phi)
    assert {m: float(first[f"Shapley {m}"]) for m in phi} != pytest.approx(phi, rel=1e-2)
    for name in ("contribution", "contribution_classes", "contribution_training"):
        assert (subject.workdir / f"{name}.png").exists() and f"({name}.png)" in text
