import jax
import numpy as np
import pytest

from jaxmm import data
from jaxmm.config import DataConfig
from jaxmm.data import synthetic
from jaxmm.data.synthetic import DELTA, KINDS
from jaxmm.errors import UserError


def config(kind, **options):
    return DataConfig(name="synthetic", kind=kind, **options)


@pytest.mark.parametrize("kind, classes", [("A", 2), ("B", 2), ("C", 3)])
def test_splits_have_the_sizes_of_the_paper_and_equal_shares_of_the_labels(kind, classes):
    dataset = data.load(config(kind))
    assert dataset.name == f"synthetic_{kind.lower()}" and dataset.num_classes == classes
    shapes = {s: {m: x.shape for m, x in b["inputs"].items()} for s, b in dataset.splits.items()}
    assert shapes == {s: {"first": (n, 200), "second": (n, 100)}
                      for s, n in (("train", 3600), ("val", 400), ("test", 1000))}
    share = [np.bincount(b["label"]) / len(b["label"]) for b in dataset.splits.values()]
    np.testing.assert_allclose(share[1:], [share[0]] * 2, atol=0.003)
    if kind == "C":
        assert share[0][0] == pytest.approx(0.42, abs=1e-3)


def test_examples_are_drawn_by_the_seed_alone_and_none_is_in_two_splits():
    first, again, other = (data.load(config("B", seed=seed)) for seed in (3, 3, 4))
    jax.tree.map(np.testing.assert_array_equal, first.splits, again.splits)
    rows = [{x.tobytes() for b in d.splits.values() for x in b["inputs"]["first"]}
            for d in (first, other)]
    assert len(rows[0]) == 5000 and not rows[0] & rows[1]


def test_labels_follow_from_the_latent_vectors():
    # The direction u of kinds A and C is the first thing that is drawn.
    u, = synthetic.unit(np.random.default_rng(0), 1)
    for kind, draw in KINDS.items():
        latent, label = draw(np.random.default_rng(0), 500)
        v, t = latent["first"], latent["second"]
        np.testing.assert_allclose(np.linalg.norm([v, t], axis=2), 1)
        uv, ut, vt = v @ u, t @ u, np.einsum("nd,nd->n", v, t)
        if kind == "A":
            np.testing.assert_array_equal(v, t)
            np.testing.assert_array_equal(label, ut > 0)
            assert (np.abs(ut) > DELTA).all()
        if kind == "B":
            np.testing.assert_array_equal(label, vt > 0)
            assert (np.abs(vt) > DELTA).all()
            # Neither alone knows the label: 3 deviations of the mean of 500 are 0.02.
            assert np.abs(np.mean((2 * label - 1) * [uv, ut], axis=1)).max() < 0.02
        if kind == "C":
            shared = label == 0
            np.testing.assert_array_equal(v[shared], t[shared])
            assert (ut[shared] > DELTA).all()
            assert (np.maximum(uv, ut)[~shared] <= DELTA).all()
            np.testing.assert_array_equal(label[~shared] == 1, vt[~shared] > 0)
            assert (np.abs(vt[~shared]) > DELTA).all()


def test_observations_are_a_linear_image_of_the_latent_vectors():
    for m, x in data.load(config("A")).splits["train"]["inputs"].items():
        assert x.dtype == np.float32
        assert np.linalg.matrix_rank(x.astype(np.float64), tol=1e-3) == 50, m
        # P t has variance |t|^2 / 12 in each entry.
        assert x.var() == pytest.approx(1 / 12, rel=0.05)


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match="data.kind='D'; expected one of A, B, C"):
        data.load(config("D"))
    for fraction in (1.0, 0.0005, float("nan")):
        with pytest.raises(UserError, match=f"data.val_fraction={fraction} leaves too few examples"):
            data.load(config("A", val_fraction=fraction))
    with pytest.raises(UserError, match="data.seed=-1; expected a number of at least 0"):
        data.load(config("A", seed=-1))
