import itertools

import numpy as np
import pytest

from jaxmm.evaluate import decomposition
from jaxmm.evaluate.decomposition import decompose

BITS = list(itertools.product((0, 1), repeat=2))


def gate(fn):
    """p(x_1, x_2, y) of two fair bits."""
    joint = np.zeros((2, 2, 4))
    for a, b in BITS:
        joint[a, b, fn(a, b)] += 0.25
    return joint


@pytest.mark.parametrize("joint, expected", [
    (gate(lambda a, b: a ^ b), (0, 0, 0, 1)),
    (gate(lambda a, b: a & b), (0.3113, 0, 0, 0.5)),
    (gate(lambda a, b: a), (0, 1, 0, 0)), (gate(lambda a, b: b), (0, 0, 1, 0)),
    (gate(lambda a, b: 2 * a + b), (0, 1, 1, 0)),
    (np.diag([0.5, 0.5])[..., None] * np.eye(2), (1, 0, 0, 0))], ids=["xor", "and", "first", "second", "both", "same"])
def test_gates_by_hand(joint, expected):
    found = decompose(joint)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.total == pytest.approx(sum(expected), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_least_information_of_bits_against_a_grid(seed):
    """With the margins p(x_1, y) and p(x_2, y), a number for each y is free: the mass at (0, 0)."""
    p = np.random.default_rng(seed).dirichlet(np.full(8, 0.7)).reshape(2, 2, 2)
    grids = []
    for y in (0, 1):
        (row, _), (column, _) = p[..., y].sum(1), p[..., y].sum(0)
        total = p[..., y].sum()
        x = np.linspace(max(0, row + column - total), min(row, column), 801)
        grids.append(np.stack([x, row - x, column - x, total - row - column + x]).clip(0))
    q = np.stack(np.broadcast_arrays(grids[0][:, :, None], grids[1][:, None, :]))       # [y, cell, ., .]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = q / (q.sum(0) * q.sum(1, keepdims=True))
        least = np.where(q > 0, q * np.log2(ratio), 0).sum((0, 1)).min()
    found = decompose(p)
    both = decomposition.information(p.reshape(4, 2))
    first = decomposition.information(p.sum(1))
    assert found.total == pytest.approx(both)
    assert found.synergy == pytest.approx(both - least, abs=2e-4)
    assert found.unique_2 == pytest.approx(least - first, abs=2e-4)
    assert min(found) > -1e-6


def test_information_by_hand():
    assert decomposition.information(np.array([[0.5, 0], [0, 0.5]])) == 1
    assert decomposition.information(np.full((3, 4), 1 / 12)) == pytest.approx(0)
    assert decomposition.information(np.array([[0.5, 0], [0, 0.5], [1e-300, 0], [0, 1e-320]])) == pytest.approx(1)


def test_frequencies_are_of_the_values_that_occur():
    joint = decomposition.frequencies([3, 3, 9, 9], [0, 0, 0, 7], [5, 5, 5, 6])
    np.testing.assert_allclose(joint, [[[0.5, 0], [0, 0]], [[0.25, 0], [0, 0.25]]])
    assert decomposition.cells([3, 3, 9, 9], [0, 0, 0, 7], [5, 5, 5, 6]) == joint.size


def test_shuffled_labels_have_what_counting_gives():
    """About (n_12y - n_12 - n_y + 1) / (2 N ln 2) bits of occupied cells."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(4, size=(2, 2000))
    labels = (first + second) % 3
    found = decomposition.shuffled(first, second, labels, np.random.default_rng(1))
    assert found.total == pytest.approx((48 - 16 - 3 + 1) / (2 * 2000 * np.log(2)), rel=0.2)
    assert decompose(decomposition.frequencies(first, second, labels)).synergy > 1


def test_by_example_by_hand():
    found = decomposition.by_example(np.array([1.0, 0.5]), np.array([0.25, -1.0]), np.array([2.0, 0.0]))
    assert {name: x.tolist() for name, x in found.items()} == {
        "redundant": [0.25, -1], "unique_1": [0.75, 1.5], "unique_2": [0, 0], "synergy": [1, -0.5]}
    np.testing.assert_allclose(sum(found.values()), [2, 0])


def test_clusters_are_those_of_the_training_features():
    train = np.array([[0.0, 0], [0, 1], [10, 0], [10, 1]])
    found = decomposition.cluster(train, np.array([[1.0, 5], [9, -3], [0, 0]]), 2, 0)
    assert found[0] == found[2] != found[1]
