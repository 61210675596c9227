"""D&R: purity of clusters, and what it does to the encoders."""
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.errors import UserError
from jaxmm.methods.relearn import RelearnConfig, draw_back, purity
from jaxmm.train import setup as setup_lib

ONE = jax.devices()[:1]


def blobs(labels, seed=0):
    """Features [N, 3] in groups by label, far apart in units that differ by a factor of a million."""
    groups = np.eye(3)[labels] * 10 + np.random.default_rng(seed).normal(size=(len(labels), 3)) * 0.1
    return groups * np.array([1.0, 1e3, 1e-3])


def test_purity_by_hand():
    """Of separated groups it is 1; with 2 of 10 labels wrong 0.8; of features that are all alike the largest share."""
    labels = np.arange(30) % 3
    assert purity(blobs(labels), labels, 3) == 1.0
    groups = np.repeat([0, 1], 5)
    assert purity(blobs(groups), np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0]), 2) == 0.8
    assert purity(np.ones((10, 4)), np.array([0] * 6 + [1] * 4), 2) == 0.6
    assert purity(blobs(labels), labels, 3) == purity(blobs(labels)[::-1], labels[::-1], 3)


def test_drawing_back_by_hand():
    """A gap of 0.2 draws back by tanh(0.6) = 0.5370; what is at its start, or has no gap, keeps its bits."""
    params = {"w": jnp.array([1.1, 3.3]), "b": jnp.array([0.7])}
    start = {"w": jnp.array([0.1, 3.3]), "b": jnp.array([0.7])}
    found = draw_back(params, start, np.tanh(3 * 0.2))
    np.testing.assert_allclose(found["w"][0], 1.1 - 0.5370, atol=5e-5)
    chex.assert_trees_all_equal((found["w"][1], found["b"]), (start["w"][1], start["b"]))
    chex.assert_trees_all_equal(draw_back(params, start, 0.0), params)


@pytest.fixture(scope="module")
def setup(make_dataset, make_config):
    config = make_config(RelearnConfig(every=2, times=2), epochs=8)     # of 4 steps each
    return setup_lib.build(config, dataset=make_dataset(), devices=ONE)


def moved_state(setup):
    """The state as it starts, and with encoders elsewhere."""
    start = setup.programs.begin(setup_lib.init_state(setup))
    moved = {m: jax.tree.map(lambda x: x + 0.3, start.params[m]) for m in ("sound", "image")}
    return start, start._replace(params=start.params | moved)


def rows_with(labels, clusters):
    """Rows of a split whose image features are in these clusters; those of sound are in clusters of the labels."""
    features = {"image": blobs(clusters), "sound": blobs(labels)}
    return {"label": labels, "features": features, "present": {m: np.ones(len(labels), bool) for m in features}}


def ended(setup, state, epoch, splits):
    return setup.programs.end_epoch(state._replace(step=jnp.int32(4 * epoch)), lambda split, share, run: splits[split])


def test_encoders_go_back_by_the_gap_of_their_own_purity(setup):
    """Purity of image 1 in train and 0.8 in validation; sound has none: its bits, and all else, stay."""
    labels, wrong = np.arange(30) % 3, np.arange(30) % 3
    wrong[:6] = (wrong[:6] + 1) % 3
    splits = {"train": rows_with(labels, labels), "val": rows_with(labels, wrong)}
    start, state = moved_state(setup)
    found = ended(setup, state, 2, splits)
    expected = jax.tree.map(lambda x: x + 0.3 * (1 - np.tanh(0.6)), start.params["image"])
    chex.assert_trees_all_close(found.params["image"], expected, rtol=1e-5)
    for part in ("sound", "head"):
        chex.assert_trees_all_equal(found.params[part], state.params[part])
    chex.assert_trees_all_equal((found.opt_state, found.extra), (state.opt_state, state.extra))
    for epoch, drawn in ((1, False), (2, True), (3, False), (4, True), (6, False), (8, False)):
        new = ended(setup, state, epoch, splits).params["image"]
        assert drawn == any((x != y).any() for x, y in zip(jax.tree.leaves(new), jax.tree.leaves(state.params["image"])))


def test_no_encoder_moves_where_it_cannot_be_told(setup, caplog):
    """Too few rows of validation have it, which is said; features of a run that diverged."""
    labels = np.arange(30) % 3
    splits = {split: rows_with(labels, labels) for split in ("train", "val")}
    splits["val"]["present"]["image"][2:] = False
    splits["val"]["features"]["sound"][4] = np.nan
    _, state = moved_state(setup)
    chex.assert_trees_all_equal(ended(setup, state, 2, splits).params, state.params)
    assert "the encoder of image stays as it is: 30 and 2 rows of train and val have it, and 3" in caplog.text


def test_never_after_the_last_epoch(make_dataset, make_config):
    setup = setup_lib.build(make_config(RelearnConfig(every=1, times=3), epochs=2), dataset=make_dataset(), devices=ONE)
    labels = np.arange(30) % 3
    splits = {"train": rows_with(labels, labels), "val": rows_with(labels, np.sort(labels))}
    _, state = moved_state(setup)
    for epoch in (1, 2):
        new = ended(setup, state, epoch, splits).params["image"]
        assert (epoch < 2) == any((x != y).any() for x, y in zip(*map(jax.tree.leaves, (new, state.params["image"]))))


@pytest.mark.parametrize("options, message", [
    (RelearnConfig(every=0), "method.every=0"), (RelearnConfig(times=-1), "method.times=-1"),
    (RelearnConfig(strength=float("nan")), "method.strength=nan")])
def test_options_out_of_range(options, message, make_dataset, make_config):
    with pytest.raises(UserError, match=message):
        setup_lib.build(make_config(options), dataset=make_dataset(), devices=ONE)
