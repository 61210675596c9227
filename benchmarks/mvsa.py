"""MVSA-Single from end to end: files in the published layout, prepared, trained on from scratch.

    python benchmarks/mvsa.py --arrays=mvsa_single.npz [--methods=concat,late,mla] [--seeds=3]

The arrays are {split}/visual uint8 [N, H, W, 3], {split}/text [N] and {split}/label [N] (0
positive, 1 neutral, 2 negative) of the splits train, val and test. They are written out as images
and lists {train,dev,test}.jsonl in a temporary folder, which goes when all is done: no text is
printed or kept. A bag of words or a small transformer reads the text, by a vocabulary made of the
training texts, and a small convolutional network sees the picture at 64 pixels. Prints the
accuracy on test data of every head after the last epoch, mean and standard deviation over seeds,
beside that of the majority class.
"""
import argparse
import json
import pathlib
import tempfile

import jax
import numpy as np
from PIL import Image

from jaxmm import data
from jaxmm.config import (Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig,
                          TextConfig, TrainConfig)
from jaxmm.prepare.run import prepare
from jaxmm.methods import method_config
from jaxmm.train.schedule import train

LABELS = ("positive", "neutral", "negative")
LISTS = {"train": "train", "val": "dev", "test": "test"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrays", type=pathlib.Path, required=True)
    parser.add_argument("--methods", default="concat,late,mla")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning_rate", type=float, default=5e-3)
    parser.add_argument("--text", default="bag", help="encoder of text: transformer or bag")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_layout(args.arrays, folder / "source")
        summary = prepare("mvsa", folder / "source", folder, progress=False)
        print(f"{summary['used']} examples used, {summary['left_out']} skipped")
        config = make_config(folder / "mvsa", args.text, args.epochs)
        config.optimizer.learning_rate = args.learning_rate
        dataset = data.load(config.data)
        sizes = {split: len(part["label"]) for split, part in dataset.splits.items()}
        counts = np.bincount(dataset.splits["test"]["label"])
        print(f"{sizes}; majority class {100 * counts.max() / counts.sum():.1f}%")
        for method in args.methods.split(","):
            scores = {}
            for seed in range(args.seeds):
                config.method, config.train.seed = method_config(method), seed
                run = train(config, folder / f"{method}_{seed}", dataset=dataset, progress=False)
                for head, found in run.history[-1]["scores"].items():
                    scores.setdefault(head, []).append(100 * found["accuracy"])
            print(f"{method}: " + ", ".join(
                f"{head} {np.mean(x):.1f} ± {np.std(x, ddof=1) if len(x) > 1 else 0:.1f}"
                for head, x in scores.items()), flush=True)


def write_layout(path: pathlib.Path, folder: pathlib.Path) -> None:
    """Images and lists, as the data set is published."""
    (folder / "data").mkdir(parents=True)
    with np.load(path, allow_pickle=False) as arrays:
        for split, name in LISTS.items():
            with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as lines:
                rows = [arrays[f"{split}/{part}"] for part in ("visual", "text", "label")]
                for i, (image, text, label) in enumerate(zip(*rows)):
                    file = f"data/{split}{i}.jpg"
                    Image.fromarray(image).save(folder / file, quality=95)
                    lines.write(json.dumps({"id": f"{split}{i}", "label": LABELS[label],
                                            "text": str(text), "img": file}) + "\n")


def make_config(path: pathlib.Path, text: str, epochs: int) -> Config:
    """Small networks of 64 features each."""
    config = Config(
        data=DataConfig(name="mvsa", path=str(path), preprocess={
            "text": TextConfig(length=64),
            "visual": FramesConfig(height=64, width=64, size=56, min_area=0.0, center=True)}),
        optimizer=OptimizerConfig(name="adam", weight_decay=0.0, schedule="cosine"),
        train=TrainConfig(epochs=epochs, batch_size=64, eval_epochs=epochs,
                          checkpoint_epochs=epochs))
    config.encoders["text"] = EncoderConfig(text, width=64, depth=1, features=64)
    config.encoders["visual"] = EncoderConfig("cnn", width=16, depth=3, features=64)
    return config


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    main()
