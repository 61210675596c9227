r"""Your own files by a table: sound, images, video, text and vectors that launch.prepare has read.

The table is a CSV file with the columns label and, as they come, id, split, group, audio, visual, text, and
NAME:KIND for others (sound, image, video, frames, text, vector); paths begin in its folder. See

    python -m launch.prepare --dataset=table --describe_layout

Prepared once, it is trained on, compared over seeds or, without a column split, by cross-validation:

    python -m launch.prepare --dataset=table --source=FILE.csv --output=data
    python -m launch.train --config=configs/table.py:mla
    python -m launch.compare --config=configs/table.py --methods=unimodal,concat,mla --seeds=3
    python -m launch.compare --config=configs/table.py --methods=unimodal,concat,mla --folds=5

`data` is where launch.prepare wrote to. Elsewhere, name the folder of the data set behind the method, as
what it holds decides how it is read: `table.py:mla,DIR/table`. With --variant=numbers (or another) of
launch.prepare it is DIR/table_numbers.

Sound becomes a mel spectrogram at 16 kHz, 50 columns of 64 bands a second, as long as the longest is but
at most 5 s (shorter sound is repeated; that longer sound is cut is said), an image
[112, 112, 3] (random crops of at least half of it in training), a video or a folder of images four of
those, text up to 128 tokens of WordPiece, and vectors stay as they are. Every such number is an option of
its modality, such as --config.data.preprocess.audio.seconds=2. The encoder follows from that (text: bag
of words, vector: mlp, otherwise cnn), with 128 features of each, as `mla` needs the same number from all;
choose another by --config.encoders.MODALITY.name=resnet18. For labels that hold or not, and for numbers,
`mla` and `samm` fuse by the plain mean.
"""
from jaxmm import files
from jaxmm.config import (Config, DataConfig, EncoderConfig, FramesConfig, OptimizerConfig, SpectrogramConfig,
                          TextConfig, TrainConfig)
from jaxmm.data.dataset import say
from jaxmm.data.prepared import open_prepared
from jaxmm.experiments.presets import fuse_plainly
from jaxmm.methods import method_config

SECONDS = 5.0           # of sound, at most
IMAGES = {"height": 128, "width": 128, "fit": "crop", "size": 112, "min_area": 0.5, "flip": False}


def get_config(argument: str = "mla") -> Config:
    method, _, folder = argument.partition(",")
    path = files.expand(folder or "data/table")
    config = Config(
        data=DataConfig(name="table", path=str(path)),
        method=method_config(method),
        optimizer=OptimizerConfig(name="adam", learning_rate=1e-3, schedule="cosine"),
        train=TrainConfig(epochs=20, batch_size=64))
    if not path.exists():       # which is said when it is to be read
        return config
    prepared = open_prepared(path)
    for m, info in prepared.modalities.items():
        if info.get("seconds", 0) > SECONDS:
            say(f"{path}: {m} of up to {info['seconds']:.3g} s is cut to {SECONDS:g} s; to read more, set "
                f"--config.data.preprocess.{m}.seconds")
        if section := make_section(info):
            config.data.preprocess[m] = section
        config.encoders[m] = EncoderConfig(features=128)
    return fuse_plainly(config) if prepared.outputs else config


def make_section(info: dict):
    """How a modality is read that the prepared data say this of; None for vectors."""
    if "spectrogram" in info:
        return SpectrogramConfig(**info["spectrogram"])
    if info["kind"] == "audio":
        seconds = min(max(info.get("seconds") or SECONDS, 0.1), SECONDS)
        return SpectrogramConfig(seconds=seconds, n_fft=1024, hop=320, mels=64)
    if info["kind"] == "frames":
        return FramesConfig(frames=0 if info["column"] == "image" else 4, **IMAGES)
    return TextConfig(length=128) if info["kind"] == "text" else None
