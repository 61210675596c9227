import csv
import json

from jaxmm.report import flat

TRAINING = {"kind": "train", "step": 4, "epoch": 1, "task": 0, "loss": 0.5, "loss/replayed/fused": 0.25,
            "accuracy/sound": 0.125, "seconds": 2.0}
EVALUATION = {"kind": "eval", "step": 4, "epoch": 1, "task": -1, "split": "val",
              "scores": {"fused": {"accuracy": 0.75, "nll": float("inf")}},
              "class_incremental": {"fused": [0.5, None, 1.0]}}


def test_every_number_is_a_row(tmp_path):
    for name, records in (("mla/seed_0", [TRAINING]), ("=late", [EVALUATION])):
        (tmp_path / "all" / name).mkdir(parents=True)
        (tmp_path / "all" / name / "metrics.jsonl").write_text(
            "".join(json.dumps(r) + "\n" for r in records) + "cut sho")
    folder = tmp_path / "all"
    flat.write(folder, [folder / "mla/seed_0", folder / "=late", folder / "not started"])
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    trained, evaluated = ("all/mla/seed_0", "4", "1", "1", "train"), ("all/=late", "4", "1", "0", "val")
    assert rows == [
        (*trained, "", "loss", "0.5"), (*trained, "replayed/fused", "loss", "0.25"),
        (*trained, "sound", "accuracy", "0.125"), (*trained, "", "seconds", "2.0"),
        (*evaluated, "fused", "accuracy", "0.75"), (*evaluated, "fused", "nll", "inf"),
        (*evaluated, "fused", "class_incremental/task_1", "0.5"),
        (*evaluated, "fused", "class_incremental/task_3", "1.0")]
