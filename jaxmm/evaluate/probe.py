"""Linear probes: what a linear classifier can read from the frozen features of an encoder.

Modality laziness shows where the probe of an encoder trained jointly is far below that of the same
encoder trained alone.

References:
  UMT and UME, arXiv 2305.01233, tables 1 and 7, figure 2.
"""
from collections.abc import Mapping

import chex
import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from jaxmm.batch import Batch
from jaxmm.errors import UserError

L2 = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)      # weights of |W|^2 / 2 beside the mean cross-entropy
MAX_ITERATIONS = 1000
SMALL = 10**7       # numbers in the features up to which threads cost more than they save


def probe(features: Mapping[str, chex.Array], labels: Mapping[str, chex.Array]) -> float:
    """Test accuracy, in [0, 1], of multinomial logistic regression on features.

    It is fitted on "train", with features scaled to mean 0 and standard deviation 1 there. The weight
    of L2 is the one that is best on "val", the largest of equals. The result is deterministic.

    Args:
      features: [N, s] by split "train", "val", "test".
      labels: int [N] by split.

    Raises:
      UserError: a split without examples, or a training split of a single class.
    """
    for split, x in features.items():
        chex.assert_rank([x, labels[split]], [2, 1])
        chex.assert_equal_shape_prefix([x, labels[split]], 1)
        if not len(x):
            raise UserError(f"a linear probe needs examples in train, val and test; {split} has "
                            "none with this modality")
    labels = {split: np.asarray(y) for split, y in labels.items()}
    classes = np.unique(labels["train"])
    if len(classes) < 2:
        raise UserError("a linear probe needs two classes or more in train; found only class "
                        f"{classes[0]}")
    x = standardize(features)
    model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)
    best, accuracy = -1.0, 0.0
    with threadpool_limits(1 if x["train"].size <= SMALL else None):
        for l2 in L2:
            model.C = 1 / (l2 * len(x["train"]))    # scikit-learn weighs the summed cross-entropy
            model.fit(x["train"], labels["train"])
            on_val = model.score(x["val"], labels["val"])
            if on_val > best:
                best, accuracy = on_val, model.score(x["test"], labels["test"])
    return float(accuracy)


def probe_encoders(features: Mapping[str, Mapping[str, chex.Array]],
                   splits: Mapping[str, Batch]) -> dict[str, float]:
    """`probe` of every encoder, over the examples that have its modality.

    Args:
      features: encoder outputs [N, s] by split and modality, as `jaxmm.train.predictions.split_features`
        gives them.
      splits: labels and masks, by split.
    """
    return {m: probe({s: np.asarray(x[m])[splits[s]["present"][m]] for s, x in features.items()},
                     {s: splits[s]["label"][splits[s]["present"][m]] for s in features})
            for m in features["train"]}


def standardize(features: Mapping[str, chex.Array]) -> dict[str, np.ndarray]:
    """Every split [N, s] in float64, normalised by mean and deviation of "train".

    Features that are constant in "train" become 0.
    """
    x = {split: np.asarray(f, np.float64) for split, f in features.items()}
    mean, std = x["train"].mean(0), x["train"].std(0)
    # Dividing by a deviation that is only rounding would blow up a constant feature in other splits.
    alive = std > 1e-6 * np.abs(mean).clip(1e-6)
    scale = np.divide(1.0, std, out=np.zeros_like(std), where=alive)
    return {split: (f - mean) * scale for split, f in x.items()}
