"""From wav, jpg and txt files with words as labels to predictions, by the commands that the config names."""
import csv
import json
import re
import shutil

import pytest

from jaxmm.data.prepared import open_prepared
from jaxmm.experiments.prepare import options, prepare

SMALL = ["encoders.audio.name=mlp", "encoders.audio.depth=1", "encoders.visual.name=mlp", "encoders.visual.depth=1",
         "data.preprocess.visual.height=8", "data.preprocess.visual.width=8",
         "data.preprocess.visual.size=8", "data.preprocess.text.length=4", "train.epochs=2", "train.batch_size=8"]


def test_a_table_of_files_is_trained_on_and_its_predictions_have_the_accuracy(layouts, launch, tmp_path):
    rows = []
    for i in range(25):
        word = ("cat", "dog")[i % 2]
        layouts.write_wav(tmp_path / f"in/{i}.wav", pitch=300 + 300 * (i % 2) + i)
        layouts.write_image(tmp_path / f"in/{i}.jpg", (200 * (i % 2), 100, i))
        layouts.write_lines(tmp_path / f"in/{i}.txt", [f"a {word} {i}"])
        rows.append(f"{word},{i}.wav,{i}.jpg,{i}.txt")
    layouts.write_lines(tmp_path / "in/t.csv", ["label,audio,visual,text", *rows])
    said = prepare("table", str(tmp_path / "in/t.csv"), str(tmp_path), options(0, 0, 0, ""), spectrograms_of="",
                   workers=1, allow_skipped=0, progress=False)
    config = re.search(r"train (--config=\S+)$", said)[1].replace(":mla,", ":concat,")
    (code, out, error), other = launch("launch.train", [
        [config, f"--workdir={tmp_path}/run", *(f"--config.{option}" for option in SMALL)],
        ["--config=table:concat", f"--config.data.path={tmp_path}/table", f"--workdir={tmp_path}/other"]])
    assert code == 0, error
    spectrogram = json.loads((tmp_path / "run/config.json").read_text())["data"]["preprocess"]["audio"]
    assert spectrogram["seconds"] == 0.25       # of the longest sound
    assert "--data=NEW.csv --output=predictions.csv" in out
    assert other[0] == 2 and f"expected 'spectrogram': name the folder behind the method, --config=table:METHOD,{tmp_path}" in other[2]
    (code, out, error), = launch("launch.evaluate", [[f"--workdir={tmp_path}/run", f"--predictions={tmp_path}/p.csv"]])
    assert code == 0, error
    with open(tmp_path / "p.csv", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert len(found) == 5 and {row["label/class"] for row in found} == {"cat", "dog"}
    for head in ("audio", "text", "visual", "fused"):
        accuracy = sum(row[f"{head}/class"] == row["label/class"] for row in found) / len(found)
        shown, = re.findall(rf"\| {head} +\| +([\d.]+)%", out)
        assert float(shown) == pytest.approx(100 * accuracy)
    # The same files, predicted from a table of them after what was prepared of them is gone.
    keys = [record["key"] for record in open_prepared(tmp_path / "table").splits["test"]]
    layouts.write_lines(tmp_path / "in/new.csv", ["id,visual,text,audio", *(
        ",".join([key, *(f"{int(key.split()[1]) - 2}.{end}" for end in ("jpg", "txt", "wav"))]) for key in keys)])
    shutil.rmtree(tmp_path / "table")
    (code, _, error), = launch("launch.predict", [[f"--workdir={tmp_path}/run", f"--data={tmp_path}/in/new.csv",
                                                   f"--output={tmp_path}/new.csv"]])
    assert code == 0, error
    with open(tmp_path / "new.csv", encoding="utf-8") as file:
        again = list(csv.DictReader(file))
    assert [row.pop("id") for row in again] == keys
    assert again == [{column: row[column] for column in again[0]} for row in found]
