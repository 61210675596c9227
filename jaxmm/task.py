"""What is predicted: the loss of an example, and the scores of a split."""
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmm import metrics
from jaxmm.config import TaskConfig
from jaxmm.errors import UserError, check_choice

# Labels in a batch, by task: type, rank, and what messages call them.
LABELS = {"classification": (np.integer, 1, "integers [rows], class numbers"),
          "multilabel": (np.bool_, 2, "bools [rows, labels]"),
          "regression": (np.floating, 2, "floats [rows, outputs]")}
DENSE = "segmentation"      # whose labels are a class map among the inputs, until the transform
VOID = -1                   # class number of pixels that have none

CLASS_SCORES = {"accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1,
                "weighted_f1": metrics.weighted_f1, "mean_recall": metrics.mean_recall,
                "ece": metrics.expected_calibration_error, "nll": metrics.negative_log_likelihood}
LATER = ("weighted_f1", "mean_recall")      # which runs of older versions have not


class Task(NamedTuple):
    """What the heads of a model predict, its loss and its scores.

    Of a segmentation outputs are [B, h, w, C], labels int [B, h, w], and scores are of counts of pixels
    [N, C, C], see `jaxmm.metrics`.
    """
    name: str                           # "classification", "multilabel", "regression", "segmentation"
    size: int                           # K outputs of a head
    names: tuple[str, ...]              # of the outputs
    loss: Callable                      # (outputs [B, K], labels) -> [B], >= 0
    progress: tuple[str, Callable]      # metric shown in training: name, (outputs, labels) -> [B]
    scores: Mapping[str, Callable]      # (outputs [N, K], labels) -> number; the headline first
    chance: float | None                # headline score of guessing, where it is known
    class_weights: chex.Array | None = None     # float32 [C] of a segmentation, for losses that weigh pixels

    @property
    def headline(self) -> str:
        """The score that reports lead with."""
        return next(iter(self.scores))


def classification(names: tuple[str, ...]) -> Task:
    """One of C classes, labels int [B]; outputs are logits, the loss is cross-entropy in nats."""
    return Task("classification", len(names), names, cross_entropy,
                ("accuracy", lambda z, y: z.argmax(-1) == y), CLASS_SCORES, 1 / len(names))


def multilabel(names: tuple[str, ...]) -> Task:
    """K labels that hold or not, bool [B, K]; the loss is their mean sigmoid cross-entropy in nats."""
    return Task("multilabel", len(names), names, binary_cross_entropy,
                ("label_accuracy", lambda z, y: jnp.mean((z > 0) == y, axis=-1)),
                {"macro_f1": partial(metrics.label_f1, average="macro"),
                 "micro_f1": partial(metrics.label_f1, average="micro"),
                 "map": metrics.mean_average_precision,
                 "label_accuracy": metrics.label_accuracy}, None)


def regression(names: tuple[str, ...], sentiment: bool = False) -> Task:
    """K numbers, labels float [B, K]; the loss is the mean squared error over them.

    `sentiment` adds Acc-7, Acc-2 and F1 of a scale from -3 to 3, as of MOSI.
    """
    scores = {"mae": metrics.mean_absolute_error, "rmse": metrics.root_mean_squared_error,
              "pearson": metrics.pearson}
    if sentiment:
        scores |= {"acc_7": metrics.seven_way_accuracy, "acc_2": metrics.sentiment_accuracy,
                   "f1": metrics.sentiment_f1}
    return Task("regression", len(names), names, squared_error,
                ("mae", lambda z, y: jnp.mean(jnp.abs(z - y), axis=-1)), scores, None)


def segmentation(names: tuple[str, ...], class_weights: chex.Array | None = None) -> Task:
    """One of C classes for every pixel; outputs are logits, the loss is the mean cross-entropy in nats."""
    return Task(DENSE, len(names), names, pixel_cross_entropy, ("pixel_accuracy", pixel_accuracy),
                {"mean_iou": metrics.mean_iou, "pixel_accuracy": metrics.pixel_accuracy}, None, class_weights)


def make_task(config: TaskConfig, names: tuple[str, ...], labels: chex.Array,
              where: str = "train", target: str = "") -> Task:
    """The task that `config.kind` names; "auto" goes by the type of the labels.

    Args:
      config: of the task.
      names: of classes or outputs.
      labels: of a split, which is called `where` in messages.
      where: see above.
      target: name of the class maps of a segmentation, which the labels of others have not.

    Raises:
      UserError: an unknown task, labels that do not fit it, or an option of another task.
    """
    check_choice("task.kind", config.kind, ("auto", *LABELS, DENSE))
    if config.kind == DENSE and not target:
        raise UserError(f"task.kind={DENSE} needs the class of every pixel; name the input that holds it by "
                        "--config.data.target=NAME")
    if target and config.kind not in ("auto", DENSE):
        raise UserError(f"task.kind={config.kind}: the class maps {target} are for a {DENSE}; leave task.kind out, "
                        "or data.target")
    name = DENSE if target else kind_of(labels) if config.kind == "auto" else config.kind
    if name is None:
        raise UserError(f"{where}/label is {labels.dtype}; expected integers (classes), bools "
                        "(labels that hold or not) or floats (numbers to predict)")
    if config.sentiment and name != "regression":
        raise UserError(f"task.sentiment=True is for a scale of real numbers; this is a {name}: "
                        "set --config.task.sentiment=false")
    if name == DENSE:
        return segmentation(tuple(names))
    options = {"sentiment": config.sentiment} if name == "regression" else {}
    makers = {"classification": classification, "multilabel": multilabel, "regression": regression}
    return check_labels(where, makers[name](tuple(names), **options), labels)


def kind_of(labels: chex.Array) -> str | None:
    """The task that labels of this type are for; None if there is none."""
    return next((name for name, (kind, *_) in LABELS.items() if np.issubdtype(labels.dtype, kind)), None)


def check_labels(where: str, task: Task, labels: chex.Array) -> Task:
    """The task itself, if the labels fit it; for class maps see `check_maps`.

    Raises:
      UserError: another type, rank or number of outputs, a class out of range, or a number that is
        not finite.
    """
    if task.name == DENSE:
        return task
    kind, rank, expected = LABELS[task.name]
    if not np.issubdtype(labels.dtype, kind) or labels.ndim != rank:
        form = ", ".join(["rows", *map(str, labels.shape[1:])])
        raise UserError(f"{where}/label is {labels.dtype} [{form}]; a {task.name} needs {expected}: "
                        "change the labels, or --config.task.kind")
    if rank == 2 and labels.shape[1] != task.size:
        raise UserError(f"{where}/label has rows of {labels.shape[1]}; expected {task.size}, one for "
                        f"each of {', '.join(task.names)}")
    if task.name == "classification" and not ((0 <= labels) & (labels < task.size)).all():
        raise UserError(f"{where}/label has values from {labels.min()} to {labels.max()}; expected "
                        f"class numbers from 0 to {task.size - 1}")
    if task.name == "regression" and not np.isfinite(labels).all():
        row = np.argmin(np.isfinite(labels).all(axis=1))
        raise UserError(f"{where}/label has a value that is not finite in row {row}; repair or "
                        "remove such rows")
    return task


def check_maps(where: str, maps: np.ndarray, size: int) -> None:
    """Raises UserError unless class maps [N, H, W] hold class numbers below `size`, or VOID, and not that alone.

    Args:
      where: what the maps are called in messages.
      maps: of a split, in memory.
      size: number of classes.
    """
    if maps.dtype.kind not in "iu" or maps.ndim != 3:
        raise UserError(f"{where} is {maps.dtype} of shape {maps.shape}; expected integers [rows, height, width], "
                        f"the class number of every pixel from 0, {VOID} where it has none")
    flat = maps.reshape(len(maps), -1)
    wrong = (flat.min(1) < VOID) | (flat.max(1) >= size)
    if wrong.any():
        row = np.argmax(wrong)
        raise UserError(f"{where} has values from {flat[row].min()} to {flat[row].max()} in row {row}; expected class "
                        f"numbers from 0 to {size - 1}, and {VOID} where a pixel has none")
    void = (flat == VOID).all(1)
    if void.any():
        raise UserError(f"{where} is void in every pixel of {void.sum()} rows, the first row {np.argmax(void)}; "
                        "remove such rows")


def likelihood(task: Task, outputs: chex.Array, labels: chex.Array) -> chex.Array:
    """exp(-loss) [B] in (0, 1]. For a classification it is the probability of the true class, even if
    the task's loss is smoothed or weighted."""
    loss = cross_entropy if task.name == "classification" else task.loss
    return jnp.exp(-loss(outputs, labels))


def averaged(task: Task, outputs: chex.Array) -> chex.Array:
    """Outputs [B, K] whose prediction is the mean of those of outputs [V, B, K].

    Means are over probabilities (their logarithms are the logits then) or, in a regression, over the numbers.
    """
    chex.assert_rank(outputs, 3)
    outputs = outputs.astype(jnp.float32)

    def log_mean(z):
        return jax.nn.logsumexp(z, axis=0) - jnp.log(z.shape[0])

    if task.name == "classification":
        return log_mean(jax.nn.log_softmax(outputs))
    if task.name == "multilabel":
        return log_mean(jax.nn.log_sigmoid(outputs)) - log_mean(jax.nn.log_sigmoid(-outputs))
    return outputs.mean(axis=0)


def with_smoothing(task: Task, smoothing: float) -> Task:
    """The classification whose loss has smoothed targets: 1 - smoothing for the label, plus
    smoothing / C for every class.

    Raises:
      UserError: another task, or a smoothing outside [0, 1).

    References:
      Szegedy et al., "Rethinking the inception architecture for computer vision", CVPR 2016.
    """
    need_classes(task, f"task.label_smoothing={smoothing}", "leave it 0")
    if not 0 <= smoothing < 1:
        raise UserError(f"task.label_smoothing={smoothing}; expected a number in [0, 1)")

    def loss(logits, labels):
        uniform = -jnp.mean(jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1)
        return (1 - smoothing) * task.loss(logits, labels) + smoothing * uniform

    return task._replace(loss=loss)


def with_weights(task: Task, labels: np.ndarray) -> Task:
    """The classification whose loss is multiplied by N / (C n_c) for label c, where n_c is how often c
    occurs in `labels` int [N]: the mean over them weighs all classes equally."""
    need_classes(task, "train.class_weights", "leave it empty")
    counts = np.bincount(labels, minlength=task.size)
    weights = jnp.asarray(len(labels) / (task.size * np.maximum(counts, 1)), jnp.float32)
    return task._replace(loss=lambda logits, labels: weights[labels] * task.loss(logits, labels))


def median_frequency(pixels: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Weights [C] of classes: median(f) / f_c, where f_c = pixels of c / all pixels of the pictures that hold c.

    Args:
      pixels: [C] pixels of each class.
      area: [C] pixels, void or not, of the pictures that hold it. Classes that no picture holds have the
        weight 0, and no share in the median.

    References:
      Eigen and Fergus, "Predicting depth, surface normals and semantic labels", ICCV 2015, section 4.3.2.
    """
    held = pixels > 0
    frequency = pixels[held] / area[held]
    weights = np.zeros(len(pixels), np.float32)
    weights[held] = np.median(frequency) / frequency
    return weights


def not_for_maps(task: Task, what: str, remedy: str = "leave it out") -> None:
    """Raises UserError if the task is a segmentation, which `what` is not for."""
    if task.name == DENSE:
        raise UserError(f"{what} takes one prediction for each example, and a {DENSE} has one for each pixel: "
                        f"{remedy}")


def need_classes(task: Task, what: str, remedy: str) -> None:
    """Raises UserError unless the task is a classification, which `what` needs."""
    if task.name != "classification":
        raise UserError(f"{what} needs a classification; the task is {task.name}: {remedy}")


def cross_entropy(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """Softmax cross-entropy (nats) [B] of logits [B, C] with class numbers [B]."""
    chex.assert_rank([logits, labels], [2, 1])
    chex.assert_type(labels, int)
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def binary_cross_entropy(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """Mean over the labels of the sigmoid cross-entropy (nats) [B]; both arguments [B, K]."""
    chex.assert_equal_shape([logits, labels])
    chex.assert_type(labels, bool)
    values = optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), labels)
    return jnp.mean(values, axis=-1)


def squared_error(outputs: chex.Array, labels: chex.Array) -> chex.Array:
    """Mean over the outputs of the squared difference [B]; both arguments [B, K]."""
    chex.assert_equal_shape([outputs, labels])
    chex.assert_type(labels, float)
    return jnp.mean((outputs.astype(jnp.float32) - labels) ** 2, axis=-1)


def pixel_cross_entropy(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """Mean softmax cross-entropy (nats) [B] of the pixels that are not void; 0 where all of an example's are.

    Args:
      logits: [B, h, w, C].
      labels: int [B, h, w], VOID or class numbers.
    """
    chex.assert_rank([logits, labels], [4, 3])
    chex.assert_type(labels, int)
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), jnp.maximum(labels, 0))
    return mean_over_pixels(losses, labels)


def pixel_accuracy(logits: chex.Array, labels: chex.Array) -> chex.Array:
    """Share [B] of the pixels that are not void whose largest logit is their class's, as above."""
    return mean_over_pixels(jnp.float32(logits.argmax(-1) == labels), labels)


def mean_over_pixels(values: chex.Array, labels: chex.Array) -> chex.Array:
    """Mean [B] of values [B, h, w] where labels are not VOID; 0 where none is."""
    chex.assert_equal_shape([values, labels])
    known = labels != VOID
    return jnp.where(known, values, 0).sum((1, 2)) / jnp.maximum(known.sum((1, 2)), 1)
