"""The batch: what every data set provides and every method takes.

A batch is a plain dictionary::

    {"inputs":  {modality: array [B, ...]},
     "label":   array [B, ...],            # as the task says: int32 [B], float32 [B, K], bool [B, K]
     "id":      int32 [B],                 # stable index of the example in its split
     "present": {modality: bool [B]}}      # all True when nothing is missing

A whole split of a data set has the same form, with B its number of rows. In unpaired data each row has
one modality present.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxmm.errors import UserError

Batch = dict[str, Any]
Logits = dict[str, chex.Array]      # by head: each modality, "fused", and a method's own extras
Metrics = dict[str, chex.Array]


def make_batch(inputs: Mapping[str, Any], label: ArrayLike, *, ids: ArrayLike | None = None,
               present: Mapping[str, ArrayLike] | None = None, where: str = "batch") -> Batch:
    """A batch from the arrays of its modalities, complete unless `present` says otherwise.

    Args:
      inputs: arrays [B, ...] by modality, of real numbers.
      label: what is to be predicted, see `label_array`.
      ids: [B] stable indices of the examples; their positions by default.
      present: bool (or 0 and 1) [B] by modality; modalities that it leaves out are always present.
      where: what the batch is called in messages.

    Raises:
      UserError: different numbers of rows, inputs that are not real numbers, labels of no task, ids
        that are not whole or exceed 32 bits, or masks with other values or of an unknown modality.
    """
    label, present = label_array(f"{where}/label", label), present or {}
    unknown = sorted(set(present) - set(inputs))
    if unknown:
        raise UserError(f"{where}/present/{unknown[0]} names no modality; "
                        f"expected one of {sorted(inputs)}")
    size = len(label)
    batch = {
        "inputs": {m: real_numbers(f"{where}/{m}", x) for m, x in inputs.items()},
        "label": label,
        "id": (np.arange(size, dtype=np.int32) if ids is None
               else whole_numbers(f"{where}/id", ids)),
        "present": {m: _mask(f"{where}/present/{m}", present.get(m, np.ones(size, bool)))
                    for m in inputs},
    }
    check_rows(where, batch)
    return batch


def is_unpaired(present: Mapping[str, chex.Array]) -> bool:
    """Whether there are several modalities, with masks bool [B], and no row has two of them."""
    return len(present) > 1 and not (np.sum(list(present.values()), axis=0) > 1).any()


def real_numbers(where: str, x: Any) -> Any:
    """Inputs in the machine's byte order; lists become arrays, rows read on demand stay as they are.

    Raises:
      UserError: they are not arrays of integers, floats or bools.
    """
    if not hasattr(x, "dtype"):
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise UserError(f"{where} holds rows of several shapes; expected one array "
                            "[rows, ...]: cut or fill them up") from error
    _check_unmasked(where, x, "name rows that are missing by present")
    if x.dtype.kind not in "buif":
        remedy = {"c": "give real and imaginary parts as features of their own",
                  "M": "give numbers, such as seconds since the first row",
                  "m": "give numbers, such as seconds",
                  "U": "give token ids or embeddings of text", "S": "give token ids or embeddings of text",
                  }.get(x.dtype.kind, "give one array of integers or floats")
        raise UserError(f"{where} is {x.dtype} of shape {x.shape}; expected real numbers: {remedy}")
    if isinstance(x, np.ndarray) and not x.dtype.isnative:
        x = x.astype(x.dtype.newbyteorder("="))
    return x


def _check_unmasked(where: str, x, remedy: str) -> None:
    if isinstance(x, np.ma.MaskedArray):
        raise UserError(f"{where} is a masked array, whose mask would be lost; fill it up, and {remedy}")


def label_array(where: str, x: ArrayLike) -> np.ndarray:
    """Labels as a batch holds them; their type says what is predicted, and is kept.

    Integers [B] are class numbers, int32 [B]; bools [B, K] are labels that hold or not; floats [B]
    or [B, K] are numbers to predict, float32 [B, K].

    Raises:
      UserError: they are none of these, or do not fit 32 bits.
    """
    _check_unmasked(where, x, "leave out rows without a label")
    x = np.asarray(x)
    form = x.dtype.kind, x.ndim
    if form in (("i", 1), ("u", 1)):
        return whole_numbers(where, x)
    if form == ("b", 2) and x.shape[1]:
        return x
    if form == ("f", 1) or form == ("f", 2) and x.shape[1]:
        return _float32(where, x[:, None] if x.ndim == 1 else x)
    remedy = {
        ("b", 1): ": x.astype(int) makes two classes of it, x[:, None] one label that holds or not",
        ("i", 2): ": x[:, 0] takes off an axis of size 1, x.argmax(1) is the class of one-hot rows, "
                  "x.astype(bool) makes labels of 0 and 1",
    }.get((x.dtype.kind.replace("u", "i"), x.ndim), "")
    raise UserError(f"{where} is {x.dtype} of shape {x.shape}; expected integers [rows] (class numbers), "
                    f"bools [rows, labels] or floats [rows] or [rows, outputs]{remedy}")


def _float32(where: str, x: np.ndarray) -> np.ndarray:
    """Numbers [B, K] in float32; UserError if it cannot represent them or tell them apart."""
    with np.errstate(over="ignore"):
        result = x.astype(np.float32)
    lost = ~np.isfinite(result).all(axis=1)
    if lost.any():
        row = np.argmax(lost)
        raise UserError(f"{where} has the value {x[row][~np.isfinite(result[row])][0]} in row {row}; expected "
                        "finite numbers that float32 holds: repair or remove such rows")
    if len(x):
        coarse = np.abs(result - x).max(0) > 1e-3 * x.std(0, dtype=np.longdouble)
        coarse &= (x != x[0]).any(0)        # constant columns have nothing to tell apart
        if coarse.any():
            raise UserError(f"{where}: float32 does not tell the numbers of column {np.argmax(coarse)} apart; "
                            "subtract what they have in common, and scale them")
    return result


def whole_numbers(where: str, x: ArrayLike) -> np.ndarray:
    """Class numbers or ids as int32 [B]: integers, bools, or floats that are whole.

    Raises:
      UserError: a number is not whole or does not fit, which names the first such row.
    """
    x = np.asarray(x)
    if x.ndim != 1 or x.dtype.kind not in "buif":
        raise UserError(f"{where} is {x.dtype} of shape {x.shape}; expected whole numbers of shape [rows]")
    with np.errstate(invalid="ignore"):
        number = x.astype(np.float64)       # exact for 32-bit integers
        wrong = (number % 1 != 0) | ~(np.abs(number) < 2**31)
    if wrong.any():
        row = np.argmax(wrong)
        raise UserError(f"{where} has the value {x[row]} in row {row}; expected whole numbers below "
                        "2^31, such as class numbers from 0")
    return number.astype(np.int32)


def _mask(where: str, x) -> np.ndarray:
    x = np.asarray(x)
    if x.ndim != 1 or x.dtype.kind not in "buif" or not np.isin(x, (0, 1)).all():
        raise UserError(f"{where} is {x.dtype} of shape {x.shape}{_other_values(x)}; expected True "
                        "or False of shape [rows]: True where the row has the modality")
    return x.astype(bool)


def _other_values(x: np.ndarray) -> str:
    if x.ndim != 1 or x.dtype.kind not in "buif":
        return ""
    row = np.argmin(np.isin(x, (0, 1)))
    return f" with the value {x[row]} in row {row}"


def check_rows(where: str, batch: Batch) -> None:
    """Raises UserError unless the batch has rows, as many in every array as there are labels."""
    rows = batch_size(batch)
    if rows == 0:
        raise UserError(f"{where} has no rows; expected at least one example")
    named = {**batch["inputs"], "id": batch["id"],
             **{f"present/{m}": x for m, x in batch["present"].items()}}
    for name, x in named.items():
        if not x.shape or len(x) != rows:
            raise UserError(f"{where}/{name} has {len(x) if x.shape else 'no'} rows, {where}/label "
                            f"has {rows}; every modality needs one row for each label")


def batch_size(batch: Batch) -> int:
    """Number of rows B."""
    return batch["label"].shape[0]


def take(batch: Batch, index: ArrayLike) -> Batch:
    """The rows of a batch (or of a whole split) at the positions `index`."""
    return jax.tree.map(lambda x: x[index], batch)


def check_batch(batch: Batch, modalities: Sequence[str]) -> None:
    """Asserts that a batch has the form described above (ranks, lengths, types)."""
    chex.assert_trees_all_equal(sorted(batch["inputs"]), sorted(modalities))
    label = batch["label"]
    chex.assert_rank([label, batch["id"]], [1 if np.issubdtype(label.dtype, np.integer) else 2, 1])
    chex.assert_type(batch["id"], int)
    leaves = [batch["id"], *batch["inputs"].values(), *batch["present"].values()]
    chex.assert_equal_shape_prefix([batch["label"], *leaves], 1)
    chex.assert_type(list(batch["present"].values()), bool)
