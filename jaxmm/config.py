"""The options of every run, with types, units and defaults; those of a method are in its own file.

A config file builds a `Config` and returns it from `get_config(argument)`. The command line then
overrides single fields, as in `--config.optimizer.learning_rate=0.01`.
"""
import collections
import copy
import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def dependent(default: Any, **needs: Any) -> Any:
    """An option of a method that has an effect only where each of the options `needs` has that value, or one
    of a tuple of values."""
    return field(default=default, metadata={"needs": needs})


def scalar(default: float, **needs: Any) -> Any:
    """An option that enters a step only as a number; for `needs` see `dependent`. No shape, branch or structure
    of the state depends on it, so runs with other values of it can share a compiled program.
    """
    return field(default=default, metadata={"scalar": True, "needs": needs})


def on_device(default: Any) -> Any:
    """An option of what is computed of rows, on the device, and not of how they are read.

    It is not in the repr of its section, which is part of the checksum of rows.
    """
    return field(default=default, repr=False)


@dataclass
class PreprocessConfig:
    """How the stored values of one modality become the input of its encoder."""
    kind: str = ""                  # a key of `PREPROCESS`; "": vectors, as they are
    mean: tuple[float, ...] = ()    # subtracted last, one number or one for each channel;
    std: tuple[float, ...] = ()     # then divided by; (): those of the training data

    def __post_init__(self):
        self.mean, self.std = tuple(self.mean), tuple(self.std)     # lists when read from JSON


@dataclass
class SpectrogramConfig(PreprocessConfig):
    """Sound -> spectrogram [bins, columns], or [columns, mels] of a mel spectrogram."""
    kind: str = "spectrogram"
    rate: int = 16000               # Hz that sound is resampled to
    seconds: float = 10.0           # length that sound is cut or filled up to
    fill: str = "tile"              # how it is filled up: "tile" repeats it, "zeros" pads it, "columns" too,
                                    # and columns that reach past the end of the sound are 0
    crop_seconds: float = 0.0       # length of a random crop (the middle in evaluation); 0: no crop
    n_fft: int = 512                # samples of a Fourier transform
    window: int = 0                 # samples of the Hann window in its middle; 0: n_fft
    hop: int = 160                  # samples from one column to the next
    center: bool = True             # columns centred at multiples of hop; off: no column reaches past
                                    # an end
    preemphasis: float = 0.0        # x[t] - this * x[t-1]
    mels: int = 0                   # mel bands, from 20 Hz on; 0: all frequencies
    log: bool = True                # logarithm of magnitude (of the mel bands' power)
    columns: int = 0                # number of columns it is cut or zero-padded to; 0: as they come
    kaldi: bool = on_device(False)  # mel bands as Kaldi has them: mean and emphasis of each window by
                                    # itself, and triangles on the mel scale


@dataclass
class FramesConfig(PreprocessConfig):
    """Images -> [size, size, channels], or frames [T, size, size, channels]."""
    kind: str = "frames"
    frames: int = 0                 # T to read; 0: one image, from the middle
    sampling: str = "uniform"       # "uniform" (equal steps), middles of equal "segments", or
                                    # "consecutive" (in the middle)
    crop_frames: int = 0            # random crop of consecutive frames (the middle in evaluation);
                                    # 0: all
    height: int = 256               # pixels that images are resized to when they are read,
    width: int = 256                # and that random crops are taken from
    fit: str = "stretch"            # "stretch" to height and width, or scale and "crop" the middle
                                    # ("crop_bicubic": not bilinear)
    size: int = 224                 # pixels of each side of the result
    min_area: float = 0.08          # least share of the area of a random crop, which is resized to
                                    # `size`; 0: crops of `size` without resizing
    center: bool = False            # evaluation cuts `size` out of the middle; off: resizes the whole
    flip: bool = True               # left to right with probability 1/2
    jitter: float = on_device(0.0)  # training changes brightness, contrast and saturation by factors of
                                    # between 1 - jitter (at least 0) and 1 + jitter; 0: none


@dataclass
class FlowConfig(FramesConfig):
    """Optical flow -> [size, size, 2 T]: T horizontal images, then T vertical ones."""
    kind: str = "flow"


@dataclass
class TextConfig(PreprocessConfig):
    """Text -> token ids, 0 for padding."""
    kind: str = "text"
    vocabulary: str = ""            # file with one token a line (WordPiece), tokenizer.json, or CLIP's
                                    # bpe_simple_vocab_16e6.txt.gz; "": built from the training texts
    max_tokens: int = 8000          # largest size of a vocabulary that is built
    length: int = 256               # tokens of an example, with the special ones; the rest is cut
    special: bool = True            # the tokenizer's own tokens before and after a text: [CLS] and [SEP] of
                                    # BERT, start and end of CLIP; off for M3AE


@dataclass
class PictureConfig(PreprocessConfig):
    """One image, whole -> [height, width, channels]; of a segmentation."""
    kind: str = "picture"
    height: int = 480               # pixels that images are resized to when they are read,
    width: int = 640                # and their columns
    jitter: bool = on_device(False)     # training changes colours: hue and saturation by factors of between
                                    # 0.9 and 1.1, value by up to 25/255 (ESANet)


@dataclass
class MapConfig(PreprocessConfig):
    """Numbers that are no colours, such as depth or classes -> [height, width]; never interpolated."""
    kind: str = "map"
    height: int = 480               # as of pictures, which have the same size,
    width: int = 640                # and its columns
    holes: bool = on_device(False)  # 0 stands for no value, and is 0 after normalisation too


PREPROCESS = {"": PreprocessConfig, "spectrogram": SpectrogramConfig, "frames": FramesConfig,
              "flow": FlowConfig, "text": TextConfig, "picture": PictureConfig, "map": MapConfig}


@dataclass
class DataConfig:
    """Where examples come from."""
    name: str = "av_digits"         # data set, a key of `jaxmm.data.DATASETS`
    path: str = ""                  # file of the user's own arrays, for the data set "arrays";
                                    # folder that `jaxmm prepare` made, for one of its data sets
    preprocess: dict[str, PreprocessConfig] = field(default_factory=dict)   # by modality
    workers: int = 0                # processes that read streamed training data; 0: threads
    audio_rate: int = 8000          # of "av_digits", "avt_digits": Hz that sound is resampled to, 8000, 4000,
                                    # 2000 or 1000
    target: str = ""                # segmentation: input with the class of every pixel, [H, W], which is predicted
    zoom: float = 0.0               # segmentation: in training each row is enlarged by a factor of between 1 and
                                    # this, cut to its size and half of the time mirrored, all inputs alike; 0: no
    kind: str = ""                  # of "synthetic": labels in one modality "A", both "B", either "C"
    seed: int = 0                   # of what is drawn once for a data set: splits, pairs, noise
    val_fraction: float = 0.1       # share of train used for validation if there is no such split
    folds: int = 0                  # cross-validation: parts that data without a test split, or of drawn
                                    # splits, are divided into; 0: none
    fold: int = 0                   # of these, the one that is tested, from 0 on
    placement: str = "auto"         # "device" memory, "host" (streamed), or "auto" by size
    clips: int = 1                  # places in time of a video, or of sound, whose predictions evaluation averages
    crops: int = 1                  # squares along the longer side of images, the same; 1: as `center` says
    missing_rate: float = 0.0       # probability in [0, 1) of dropping a modality of an example; one is
                                    # always kept
    missing_scheme: str = "independent"     # each by itself with that probability, so that fewer are missing
                                    # in the end, or "exact": one kept at random, of the others as many
                                    # dropped as make the share that is missing the rate
    missing_modality: str = ""      # drop only this modality, and only in training


@dataclass
class TaskConfig:
    """What is predicted."""
    kind: str = "auto"              # "classification", "multilabel", "regression", "segmentation", or "auto"
                                    # by the labels: integers, bools, floats, class maps (data.target)
    label_smoothing: float = 0.0    # "classification": share of the target that is spread over all classes,
                                    # only in the training loss; in [0, 1)
    sentiment: bool = False         # "regression": add the scores of a scale from -3 to 3 (MOSI)


@dataclass
class StreamConfig:
    """A stream of tasks made from the data set, for continual learning."""
    kind: str = ""                  # "class", "domain", "group" or "generalized" incremental; "": no stream
    num_tasks: int = 5              # "generalized": at most, as the data may run out earlier
    joint: bool = False             # learn all tasks at once (upper bound), evaluate them one by one
    budget: int = 0                 # "joint": learn only so many examples, equally many of each class, drawn
                                    # by the seed; 0: all
    order: str = "shuffled"         # "class", "group": order of these, "shuffled" by the seed or "sorted"
    seed: int = 0                   # of the draw of classes for each task
    coarse: str = ""                # "domain": CSV file with the columns class, coarse
    phase_size: int = 1000          # "generalized": examples in a task
    max_classes: int = 50           # "generalized": classes in a task, at most
    long_tailed: bool = False       # "generalized": unequal shares of the classes


@dataclass
class EncoderConfig:
    """The network that turns one modality into features."""
    name: str = "auto"              # "mlp", "cnn", "resnet18", "resnet34", "resnet50", "esanet18",
                                    # "esanet34" (for segmentations), "bag" (of words),
                                    # "transformer" or those of papers: "m3ae", "cav_mae", "clip", "bert",
                                    # "vit" (Hugging Face), "mae" (and timm), "dinov2"; of clips "resnet3d18",
                                    # "slow14", "slow50", "slow101", "slowfast14", "slowfast50",
                                    # "slowfast101"; "identity" (the input itself); "auto" by the rank
    width: int = 0                  # channels of the first stage or hidden units; 0: the network's own
    depth: int = 3                  # layers of "mlp" and transformers, stages of "cnn"
    features: int = 0               # size s of the output; 0: the network's own
    patch: int = 0                  # transformers: side of a patch in pixels; 0: 16, or less
    heads: int = 0                  # transformers: of the attention; 0: one for 64 channels
    pool: str = ""                  # transformers: "mean" of the tokens, or of "all", padding too; "first";
                                    # of texts the "end", the highest id; "": the network's own
    stem: str = "small"             # ResNets of images: "standard" (7x7/2, max-pool) or "small" (3x3/1); those
                                    # of ESANet have the former whatever this says
    conv: str = "auto"              # lowering of convolutions: "xla", "matmul", or "auto" by shape
    dtype: str = "float32"          # of the computation ("bfloat16"); parameters stay float32
    remat: bool = False             # "cnn", ResNets, transformers: rematerialise; only outputs of
                                    # layers are kept for the backward pass
    weights: str = ""               # file of pretrained weights, .safetensors or .npz, which says the sizes,
                                    # too; "": drawn by the seed
    sha256: str = ""                # of that file; "": any, and a new run notes it here
    frozen: bool = False            # neither parameters nor batch statistics change
    rate: float = 1.0               # learning rate as a multiple of the optimizer's, > 0


@dataclass
class AugmentConfig:
    """Random changes to one modality during training; 0 or False is off."""
    crop: int = 0                   # pad by this many pixels on each side, crop back at random
    flip: bool = False              # mirror left to right with probability 1/2
    time_mask: int = 0              # longest run of columns (time) set to the mean
    frequency_mask: int = 0         # longest run of rows (frequency) set to the mean
    noise: float = 0.0              # standard deviation of Gaussian noise on normalised inputs


@dataclass
class MethodConfig:
    """A training method; methods with more options extend this class, beside their code."""
    name: str = ""                  # a key of `jaxmm.methods.METHODS`; required
    modalities: str = ""            # those it learns from, names separated by commas; "": all


@dataclass
class OptimizerConfig:
    """Optimizer and learning-rate schedule."""
    name: str = "sgd"               # "sgd", "rmsprop", "adagrad", "adadelta", "adam" or "adamw"
    learning_rate: float = scalar(1e-3)     # at the start
    momentum: float = 0.9           # of "sgd"
    nesterov: bool = False          # Nesterov's momentum, of "sgd"
    weight_decay: float = scalar(1e-4)      # added to the gradient (decoupled for "adamw")
    decay_vectors: bool = True      # off: no decay of biases and norms (parameters of rank 0 and 1)
    schedule: str = "step"          # "constant", "step", "cosine" (to 0), "one_cycle" (from 1/25, up for
                                    # 30% of the steps, down to 1/250000) or "plateau"; restarts with
                                    # every task
    warmup_epochs: float = 0.0      # the rate of any schedule rises linearly over this many epochs
    decay_epochs: int = 70          # "step": multiply by decay_rate each time this many are done
    patience: int = 1               # "plateau": multiply by decay_rate after more than this many
                                    # evaluations without a better train.score
    decay_rate: float = 0.1         # "step", "plateau": factor of the learning rate
    clip_norm: float = 0.0          # largest global norm of the gradient; 0: off


@dataclass
class TrainConfig:
    """Training loop, evaluation and checkpoints."""
    seed: int = 0                   # parameters, order of the data, augmentation
    seeds: int = 1                  # `jaxmm train`: runs with the seeds seed, seed + 1, ... at once
    epochs: int = 100               # of each task of a stream
    batch_size: int = 64            # over all devices
    class_weights: str = ""         # "balanced": the loss of an example is multiplied by rows / (classes *
                                    # rows of its class) of the training split; of a segmentation
                                    # "median_frequency", of pixels; "": all are alike
    accumulate: int = 1             # steps whose mean gradient makes one update of the parameters
    steps_per_call: int = 0         # steps scanned in one call; 0: 1 for convolutions on CPU and
                                    # for rows streamed from the host, otherwise up to 32
    eval_epochs: int = 1            # evaluate on validation data every N epochs; a stream is
                                    # evaluated at the end of every task
    init_from: str = ""             # run folder whose weights it starts from, wherever name and shape
                                    # are the same
    keep: str = "last"              # the model of the "last" epoch (as published), or the "best" on
                                    # validation: then that is tested, restored and predicts
    score: str = ""                 # HEAD/SCORE on validation that "best", patience and the schedule
                                    # "plateau" go by, as fused/accuracy; "": what reports lead with
    experts: str = ""               # add the head "experts", which reports lead with: the product of the
                                    # predictions of single modalities, calibrated on validation data, with
                                    # "equal" weights or "fitted" ones, or of "all" and the fused head, fitted
    patience: int = 0               # stop after more than this many evaluations without a better score;
                                    # 0: train all epochs
    checkpoint_epochs: int = 1      # save every N epochs, and at the end
    keep_checkpoints: int = 2       # newest checkpoints kept, besides that of the best epoch with
                                    # keep "best"; older ones go once a newer one has been read back
    on_save_error: str = "stop"     # when a checkpoint or a record cannot be written, as on a full
                                    # disk: "stop", or "continue" with a warning
    gradient_norm: bool = False     # record the norm of the gradient, before clipping; small steps take
                                    # up to 8% longer
    tensorboard: bool = False       # also write tensorboard events (extra "tensorboard")
    wandb: bool = False             # also log to Weights & Biases (extra "wandb"), to the project of
                                    # WANDB_PROJECT; with WANDB_MODE=offline into the run folder alone


@dataclass
class Config:
    """Everything that decides the result of a run."""
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    encoders: dict[str, EncoderConfig] = field(          # by modality
        default_factory=lambda: collections.defaultdict(EncoderConfig))
    augment: dict[str, AugmentConfig] = field(           # by modality
        default_factory=lambda: collections.defaultdict(AugmentConfig))
    method: MethodConfig = field(default_factory=MethodConfig)   # see `jaxmm.methods.method_config`
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def replace(config: Config, options: Mapping[str, Any]) -> Config:
    """A copy with new values of the options at these paths, such as "optimizer.learning_rate"."""
    config = copy.deepcopy(config)
    for path, value in options.items():
        *sections, name = path.split(".")
        setattr(functools.reduce(getattr, sections, config), name, value)
    return config


def with_encoders(config: Config, encoders: Mapping[str, Mapping[str, Any]]) -> Config:
    """A copy with these options of encoders, by modality."""
    config = copy.deepcopy(config)
    config.encoders.update({m: EncoderConfig(**options) for m, options in encoders.items()})
    return config


def scalar_paths(config: Config) -> list[str]:
    """Paths of the options that enter a step as numbers, see `scalar`."""
    return [f"{section}.{option.name}" for section in ("optimizer", "method")
            for option in dataclasses.fields(getattr(config, section)) if "scalar" in option.metadata]


def scalar_options(config: Config) -> dict[str, float]:
    """The values of these options by path."""
    start: Any = config
    return {path: functools.reduce(getattr, path.split("."), start) for path in scalar_paths(config)}
