"""Synthetic pairs whose labels need one modality (A), both at once (B), or either (C).

Every example comes from latent vectors of length 1 in 50 dimensions, redrawn until they are at least
DELTA away from the decision boundary. The modality "first" is a random 200 x 50 matrix times one of
them, "second" a 100 x 50 matrix times one. With a direction u that is fixed for the whole data set:

    A   label [u.t > 0]; both modalities show t: each suffices
    B   label [v.t > 0]; one shows v, the other t: alone they say nothing
    C   label 0: both show t with u.t > DELTA; labels 1 and 2: as 0 and 1 of B, with u.v and u.t
        at most DELTA

References:
  UMT and UME, arXiv 2305.01233, section A.10, tables 20 and 21, after Hessel and Lee, EMNLP 2020.
  The share of label 0 in C is not published. A model of one modality can at best tell it from
  the others and guess among them, an accuracy of share + (1 - share) / 2; the published 71%
  give the share.
"""
from collections.abc import Callable

import numpy as np

from jaxmm.batch import make_batch
from jaxmm.config import DataConfig
from jaxmm.data.av_digits import divide
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError, check_choice

LATENT = 50
OBSERVED = {"first": 200, "second": 100}
EXAMPLES = 5000
TEST = 1000
DELTA = 0.25
SHARE = 0.42        # of label 0 in C
CLASSES = 3         # at most


def load(config: DataConfig) -> Dataset:
    """The data set of `config.kind`, all of it drawn by `config.seed`.

    1000 examples are test data, `config.val_fraction` of the others validation data, each label
    with the same share of all. Modalities: "first" float32 [N, 200], "second" float32 [N, 100].

    Raises:
      UserError: no such kind, or a fraction that leaves a split empty.
    """
    check_choice("data.kind", config.kind, KINDS)
    share = config.val_fraction
    val = round(share * (EXAMPLES - TEST)) if 0 < share < 1 else 0
    if not CLASSES <= val <= EXAMPLES - TEST - CLASSES:
        raise UserError(f"data.val_fraction={share} leaves too few examples for training or "
                        "validation; expected a share in (0, 1), of one example for each class")
    rng = np.random.default_rng(config.seed)
    latent, label = KINDS[config.kind](rng, EXAMPLES)
    inputs = {m: (latent[m] @ rng.uniform(-0.5, 0.5, (LATENT, size))).astype(np.float32)
              for m, size in OBSERVED.items()}
    sizes = {"train": EXAMPLES - TEST - val, "val": val, "test": TEST}
    splits = {split: make_batch({m: x[rows] for m, x in inputs.items()}, label[rows])
              for split, rows in divide(label, sizes, rng).items()}
    return Dataset(f"synthetic_{config.kind.lower()}", splits,
                   tuple(map(str, range(label.max() + 1))))


def uni_modal(rng: np.random.Generator, size: int):
    """A: latent vectors [N, 50] by modality and labels [N]."""
    u, = unit(rng, 1)
    t, = draw(rng, size, 1, lambda t: np.abs(t @ u) > DELTA)
    return {"first": t, "second": t}, (t @ u > 0).astype(int)


def paired(rng: np.random.Generator, size: int):
    """B, as `uni_modal`."""
    v, t = draw(rng, size, 2, lambda v, t: np.abs(dot(v, t)) > DELTA)
    return {"first": v, "second": t}, (dot(v, t) > 0).astype(int)


def mixed(rng: np.random.Generator, size: int):
    """C, as `uni_modal`."""
    u, = unit(rng, 1)
    zeros = round(SHARE * size)
    shared, = draw(rng, zeros, 1, lambda t: t @ u > DELTA)
    v, t = draw(rng, size - zeros, 2, lambda v, t: (
        (v @ u <= DELTA) & (t @ u <= DELTA) & (np.abs(dot(v, t)) > DELTA)))
    latent = {"first": np.concatenate([shared, v]), "second": np.concatenate([shared, t])}
    return latent, np.concatenate([np.zeros(zeros, int), np.where(dot(v, t) > 0, 1, 2)])


KINDS = {"A": uni_modal, "B": paired, "C": mixed}


def draw(rng: np.random.Generator, size: int, vectors: int,
         accept: Callable[..., np.ndarray]) -> list[np.ndarray]:
    """`vectors` arrays [size, LATENT] of unit vectors, rows of which are drawn until accepted.

    Args:
      accept: (array [N, LATENT], ...) -> bool [N].
    """
    parts, found = [], 0
    while found < size:
        candidates = [unit(rng, size) for _ in range(vectors)]
        accepted = accept(*candidates)
        parts.append([x[accepted] for x in candidates])
        found += accepted.sum()
    return [np.concatenate(x)[:size] for x in zip(*parts)]


def unit(rng: np.random.Generator, size: int) -> np.ndarray:
    """[size, LATENT] vectors of length 1 in directions that are uniform."""
    x = rng.standard_normal((size, LATENT))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[N] inner products of rows."""
    return np.sum(a * b, axis=1)
