import numpy as np
import pytest
from sklearn.decomposition import PCA

from jaxmm.evaluate.gap import modality_gap, normalize, principal_plane


def test_gap_by_hand():
    features = {"a": np.array([[3.0, 4.0], [0.0, 2.0]]),    # unit: (0.6, 0.8), (0, 1); mean (0.3, 0.9)
                "b": np.array([[5.0, 0.0]]),                # mean (1, 0)
                "c": np.array([[-7.0, 0.0], [0.0, 0.0]]),   # unit: (-1, 0), and zero; mean (-0.5, 0)
                "d": np.ones((2, 3))}                       # another width
    found = modality_gap(features)
    assert found == {("a", "b"): pytest.approx(np.hypot(0.7, 0.9)),
                     ("a", "c"): pytest.approx(np.hypot(0.8, 0.9)), ("b", "c"): pytest.approx(1.5)}
    assert modality_gap({"b": features["b"], "d": features["d"]}) == {}


def test_gap_knows_no_scale_and_no_rotation():
    rng = np.random.default_rng(0)
    features = {m: rng.normal(size=(20, 4)) + 1 for m in "ab"}
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    changed = {m: scale * h @ rotation for (m, h), scale in zip(features.items(), (3.0, 0.01))}
    assert modality_gap(changed)["a", "b"] == pytest.approx(modality_gap(features)["a", "b"])
    assert modality_gap({"a": features["a"], "b": 2 * features["a"]})["a", "b"] < 1e-12


def test_principal_plane_is_that_of_scikit_learn_up_to_signs():
    rng = np.random.default_rng(1)
    features = {"a": rng.normal(size=(30, 5)) + 1, "b": rng.normal(size=(12, 5)) * [3, 1, 1, 1, 1]}
    found = principal_plane(features)
    unit = np.concatenate([h / np.linalg.norm(h, axis=1, keepdims=True) for h in features.values()])
    expected = PCA(2, svd_solver="full").fit_transform(unit)
    stacked = np.concatenate(list(found.values()))
    assert [x.shape for x in found.values()] == [(30, 2), (12, 2)]
    np.testing.assert_allclose(np.abs(stacked), np.abs(expected), atol=1e-10)
    again = principal_plane({m: 2 * h for m, h in features.items()})
    np.testing.assert_allclose(again["a"], found["a"], atol=1e-10)     # signs are fixed


def test_normalize_leaves_rows_of_zeros():
    np.testing.assert_allclose(normalize(np.float32([[0, 0], [0, -2]])), [[0, 0], [0, -1]])
