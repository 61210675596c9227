"""Parts that the configs of real data sets share."""
import csv
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxmm.config import (Config, EncoderConfig, FramesConfig, MapConfig, OptimizerConfig, PictureConfig,
                          SpectrogramConfig, TextConfig, TrainConfig)
from jaxmm.encoders import NETWORKS
from jaxmm.errors import UserError
from jaxmm.experiments import configs
from jaxmm.methods import method_config
from jaxmm.report import variants

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
RAW = {"mean": (0.0,), "std": (1.0,)}       # spectrograms are left as they are
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


def make_config(argument: str) -> tuple[Config, bool]:
    """(config, whether it is a smoke test) for an argument "METHOD" or "METHOD,smoke".

    Training is as for MLA and its baselines (arXiv 2311.10707): SGD, learning rate 1e-3, reduced to a
    tenth after epoch 70 of 100, momentum 0.9, weight decay 1e-4, batches of 64.
    """
    method, _, size = argument.partition(",")
    if size not in ("", "smoke"):
        raise UserError(f"--config=...:{argument}: found {size!r} after the method; expected "
                        "nothing, or smoke for a size that runs in seconds")
    config = Config(
        method=method_config(method),
        optimizer=OptimizerConfig(name="sgd", learning_rate=1e-3, momentum=0.9, weight_decay=1e-4,
                                  schedule="step", decay_epochs=70, decay_rate=0.1),
        train=TrainConfig(epochs=100, batch_size=64))
    if hasattr(config.method, "capacity"):
        config.method.capacity = 1000
    return config, size == "smoke"


def with_tuned(config: Config, stream: str, argument: str) -> Config:
    """The config with the options of `tuned.csv` beside the configs for an argument "METHOD,BUFFER" or "METHOD".

    Rows of the file without a buffer hold for any; a METHOD alone has those or, if there are none, its options as
    they are. The method may have options of its own, as in comparisons, see `jaxmm.report.variants`.

    Args:
      config: of the method; it is changed.
      stream: as shipped configs are called.
      argument: of the config.

    Raises:
      UserError: nothing was chosen for the method with a memory of so many examples.
    """
    row, _, buffer = argument.partition(",")
    where, (_, _, options) = f"--config={stream}:{argument}", variants.parse(row)
    memory = {"capacity": buffer} if buffer and hasattr(config.method, "capacity") else {}
    set_options(config, {f"method.{name}": value for name, value in (options | memory).items()}, where)
    with open(configs.folder() / "tuned.csv", encoding="utf-8", newline="") as file:
        known = {found["buffer"]: found["options"] for found in csv.DictReader(file)
                 if (found["stream"], found["method"]) == (stream, row)}
    found = known.get(buffer, known.get(""))
    if buffer and found is None:
        listed = f"with memories of {', '.join(known)}, not of {buffer}" if known else f"on {stream}, for any memory"
        raise UserError(f"{where}: configs/tuned.csv has {'' if known else 'no '}options of {row} {listed}; leave out "
                        f"{f',{buffer}'!r}, and set --config.method.capacity where it has a memory")
    set_options(config, dict(pair.split("=") for pair in (found or "").split()), "configs/tuned.csv")
    return config


def set_options(config: Config, options: Mapping[str, str], where: str) -> None:
    """Sets options of a config by their paths from text; `where` is what messages call their source."""
    for path, value in options.items():
        *sections, name = path.split(".")
        section: Any = config
        for key in sections:
            section = section[key] if isinstance(section, dict) else getattr(section, key)
        variants.set_option(section, name, value, where)


def on_features(config: Config, modalities: Sequence[str]) -> Config:
    """The config with three dense layers of 128 for each modality and Adam, as for vectors of features.

    `dcca` and `dccae` get batches of 1024, as the code has that they are compared with: correlations of few
    rows are noise.
    """
    config.optimizer.name = "adam"
    config.encoders |= {m: EncoderConfig(name="mlp", width=128, depth=3) for m in modalities}
    if config.method.name in ("dcca", "dccae"):
        config.train.batch_size = 1024
    return config


def fuse_plainly(config: Config) -> Config:
    """The config with fusion by the plain mean in methods that can fuse by certainty, which needs classes."""
    for option in ("dynamic_fusion", "dynamic"):
        if hasattr(config.method, option):
            setattr(config.method, option, False)
    return config


def log_mel(**options) -> SpectrogramConfig:
    """The filterbank [1024, 128] of ten seconds: 25 ms windows every 10 ms, as Kaldi does it."""
    return SpectrogramConfig(**{
        "rate": 16000, "seconds": 10.24, "fill": "zeros", "n_fft": 512, "window": 400, "hop": 160,
        "center": False, "preemphasis": 0.97, "mels": 128, "columns": 1024} | options)


def cav_mae_sound() -> SpectrogramConfig:
    """The filterbank [1024, 128] of CAV-MAE (arXiv 2210.07839), by the mean and deviation of its training."""
    return log_mel(seconds=10.255, fill="columns", kaldi=True, mean=(-5.081,), std=(4.4849,))


def m3ae_images() -> FramesConfig:
    """Pictures as MLA gives them to M3AE: 256 pixels; in training crops, mirrored, of other colours."""
    return FramesConfig(height=256, width=256, fit="crop_bicubic", size=256, jitter=1.0, **IMAGENET)


def m3ae_text() -> TextConfig:
    """Text as MLA gives it to M3AE: 256 tokens of BERT-uncased, without [CLS] and [SEP]."""
    return TextConfig(vocabulary="weights/bert_uncased.txt", length=256, special=False)


def m3ae() -> EncoderConfig:
    """M3AE-base (arXiv 2205.14204) as MLA uses it: the feature is the mean of all tokens, padding too."""
    return EncoderConfig(name="m3ae", weights="weights/m3ae_base.safetensors", pool="all")


def clip_images() -> FramesConfig:
    """Pictures as CLIP was evaluated on them (arXiv 2103.00020): their middle at 224 pixels."""
    return FramesConfig(height=224, width=224, fit="crop_bicubic", size=224, min_area=0.0, flip=False, **CLIP)


def shrink(config: Config) -> Config:
    """The config with one layer for each modality, without files, on small inputs, for two short epochs.

    Transformers stay what they are, as small as can be, and convolutions become a dense layer.
    """
    sections = config.data.preprocess
    for m, section in sections.items():
        if isinstance(section, SpectrogramConfig):
            sections[m] = dataclasses.replace(
                section, rate=4000, seconds=0.5, n_fft=128, window=0, hop=64,
                crop_seconds=0.25 if section.crop_seconds else 0.0,
                mels=min(section.mels, 8), columns=min(section.columns, 32))
        elif isinstance(section, FramesConfig):
            sections[m] = dataclasses.replace(
                section, frames=min(section.frames, 4), crop_frames=min(section.crop_frames, 2),
                height=16, width=16, size=8)
        elif isinstance(section, (PictureConfig, MapConfig)):
            sections[m] = dataclasses.replace(section, height=32, width=32)
        elif isinstance(section, TextConfig):
            sections[m] = dataclasses.replace(section, length=8, vocabulary="")
    for m, encoder in config.encoders.items():
        network = NETWORKS.get(encoder.name)
        name = "mlp" if network and network.convolves else encoder.name
        # Of texts: without a vocabulary of its own there is no token at the end to take the feature from.
        pool = encoder.pool or "mean" if network and network.attends else ""
        config.encoders[m] = EncoderConfig(name, width=4, depth=1, features=4, pool=pool)
    if hasattr(config.method, "capacity"):
        config.method.capacity = 4
    if hasattr(config.method, "k"):
        config.method.k = 2
    config.data.val_fraction = 0.25
    config.train.epochs, config.train.batch_size = 2, 2
    config.optimizer.warmup_epochs = min(config.optimizer.warmup_epochs, 1.0)
    return config
