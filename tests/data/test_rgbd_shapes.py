"""The made rooms: what their classes look like in each modality, and what no modality alone can tell."""
import numpy as np
import pytest

from jaxmm import data
from jaxmm.config import DataConfig
from jaxmm.data.rgbd_shapes import CLASS_NAMES
from jaxmm.errors import UserError

NUMBER = {name: i for i, name in enumerate(CLASS_NAMES)}


@pytest.fixture(scope="module")
def train():
    return data.load(DataConfig(name="rgbd_shapes")).splits["train"]


def test_sizes_and_forms_and_the_seed():
    found = data.load(DataConfig(name="rgbd_shapes", target="classes"))
    assert {s: len(x["label"]) for s, x in found.splits.items()} == {"train": 240, "val": 60, "test": 100}
    assert (found.modalities, found.target) == (("depth", "rgb"), "classes")
    assert {m: (x.dtype.name, x.shape[1:]) for m, x in found.splits["test"]["inputs"].items()} == {
        "rgb": ("uint8", (64, 64, 3)), "depth": ("uint16", (64, 64)), "classes": ("int16", (64, 64))}
    assert all(sorted(x["present"]) == ["depth", "rgb"] for x in found.splits.values())
    again, other = (data.load(DataConfig(name="rgbd_shapes", seed=seed)).splits["val"]["inputs"] for seed in (0, 1))
    np.testing.assert_array_equal(again["rgb"], found.splits["val"]["inputs"]["rgb"])
    assert not np.array_equal(again["classes"], other["classes"])


def colour(train, name):
    """The mean colour of a class, by picture that shows enough of it, less that of its room."""
    rgb, classes = (train["inputs"][m] for m in ("rgb", "classes"))
    rows = [i for i, x in enumerate(classes) if (x == NUMBER[name]).sum() > 30]
    return np.array([rgb[i][classes[i] == NUMBER[name]].mean(0) - rgb[i][classes[i] == 0].mean(0) for i in rows])


def distance(train, name):
    """The median depth of a class, by picture that shows enough of it, less that of the room in the same rows."""
    depth, classes = (train["inputs"][m].astype(float) for m in ("depth", "classes"))
    found = []
    for z, x in zip(depth, classes):
        own, room = x == NUMBER[name], x == 0
        if own.sum() > 30:
            behind = np.array([np.median(row[there]) if there.any() else np.nan for row, there in zip(z, room)])
            found.append(np.nanmedian((z - behind[:, None])[own]))
    return np.array(found)


def test_what_colour_shows(train):
    for name in "raised", "sunken":
        assert np.abs(colour(train, name)).max() < 10                   # as the room
    assert (np.ptp(colour(train, "red"), axis=1) > 80).all() and (np.ptp(colour(train, "green"), axis=1) > 80).all()
    for name in "match", "mismatch":                                    # yellow or violet, both as often
        violet = colour(train, name)[:, 2] > colour(train, name)[:, 1]
        assert 0.3 < violet.mean() < 0.7


def test_what_depth_shows(train):
    for name in "red", "green":
        assert np.abs(distance(train, name)).max() < 60                 # as the room
    assert np.abs(distance(train, "raised") + 400).max() < 60 and np.abs(distance(train, "sunken") - 400).max() < 60
    for name in "match", "mismatch":                                    # 1.0 or 1.8 m, both as often
        levels = distance(train, name)
        near = levels < -1400
        assert np.abs(levels - np.where(near, -1800, -1000)).max() < 60 and 0.3 < near.mean() < 0.7


def test_what_both_together_show(train):
    for name in "match", "mismatch":
        violet, near = colour(train, name)[:, 2] > colour(train, name)[:, 1], distance(train, name) < -1400
        np.testing.assert_array_equal(violet, near if name == "match" else ~near)


def test_some_pixels_are_void_and_all_classes_there(train):
    share = np.bincount(train["inputs"]["classes"].ravel() + 1, minlength=8) / train["inputs"]["classes"].size
    assert 0.002 < share[0] < 0.03 and share[1] > 0.5 and (share[2:] > 0.02).all()


def test_other_targets_are_refused():
    with pytest.raises(UserError, match="data.target='rgb': rgbd_shapes has the class maps 'classes'; leave it out"):
        data.load(DataConfig(name="rgbd_shapes", target="rgb"))
    with pytest.raises(UserError, match="data.target='rgb': av_digits has no class maps"):
        data.load(DataConfig(name="av_digits", target="rgb"))
    with pytest.raises(UserError, match="data.missing_rate=0.5 is not for a segmentation"):
        data.load(DataConfig(name="rgbd_shapes", missing_rate=0.5))
