import numpy as np
import pytest

from jaxmm import data
from jaxmm.config import DataConfig
from jaxmm.data import missing
from jaxmm.errors import UserError

SHAPES = {"sound": (1,), "image": (1,), "flow": (1,)}


def masks(dataset, split="train"):
    return np.stack([dataset.splits[split]["present"][m] for m in sorted(SHAPES)])


@pytest.fixture(scope="module")
def dataset(make_dataset):
    return make_dataset(SHAPES, rows=(6000, 600, 600))


def test_rate_and_at_least_one_kept_in_every_split(dataset):
    """Of 3 modalities dropped at 0.6, all are in 0.6 ** 3 of the rows, and one of them comes back."""
    masked = missing.mask(dataset, DataConfig(missing_rate=0.6))
    for split in ("train", "val", "test"):
        assert masks(masked, split).any(axis=0).all()
    np.testing.assert_allclose(masks(masked).mean(axis=1), 0.4 + 0.6**3 / 3, atol=0.02)
    np.testing.assert_allclose((masks(masked).sum(axis=0) == 3).mean(), 0.4**3, atol=0.015)
    assert dataset.splits["train"]["present"]["sound"].all()       # the original stays


def test_masks_follow_the_seed(dataset):
    one, same, other = (masks(missing.mask(dataset, DataConfig(missing_rate=0.3, seed=seed)))
                        for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_masks_follow_from_the_names_of_split_and_modality():
    """What sound loses does not depend on whether there is flow, nor on what else may be lost."""
    def lost(m, others, split="train", modalities=None):
        present = {m: np.ones(500, bool) for m in (m, *others)}
        return missing.drop({"present": present}, modalities or [m], 0.3, 0, split)["present"][m]

    alone = lost("sound", ["image"])
    np.testing.assert_array_equal(lost("sound", ["flow", "image"]), alone)
    together = lost("sound", ["flow", "image"], modalities=["flow", "image", "sound"])
    assert not (alone & ~together).any() and (together & ~alone).sum() < 15     # given back: 0.3^3 / 3
    assert (lost("sound", ["image"], "test") != alone).any() and (lost("image", ["sound"]) != alone).any()


def test_one_modality_in_training_only(dataset):
    masked = missing.mask(dataset, DataConfig(missing_rate=0.3, missing_modality="flow"))
    flow, image, sound = masks(masked)
    assert image.all() and sound.all() and abs(flow.mean() - 0.7) < 0.02
    assert masks(masked, "val").all() and masks(masked, "test").all()


def test_what_is_missing_already_stays_missing_and_nothing_is_left_empty(make_dataset):
    dataset = make_dataset(SHAPES, rows=(600, 60, 60), missing=True)
    masked = missing.mask(dataset, DataConfig(missing_rate=0.9))
    assert not (masks(masked) & ~masks(dataset)).any() and masks(masked).any(axis=0).all()
    alone = masks(dataset)[0] & (masks(dataset).sum(axis=0) == 1)       # flow is all they have
    masked = missing.mask(dataset, DataConfig(missing_rate=0.99, missing_modality="flow"))
    np.testing.assert_array_equal(masks(masked)[0][alone], True)
    assert masks(masked).any(axis=0).all() and masks(masked)[0].mean() < 0.3


@pytest.mark.parametrize("options, message", [
    ({"missing_rate": 1.0}, "data.missing_rate=1.0"), ({"missing_rate": -0.1}, "missing_rate=-0.1"),
    ({"missing_modality": "smell"}, "missing_modality='smell'; expected one of flow, image, sound")])
def test_mistakes(options, message, dataset):
    with pytest.raises(UserError, match=message):
        missing.mask(dataset, DataConfig(**options))


def test_every_data_set_can_be_masked():
    masked = data.load(DataConfig(missing_rate=0.5)).splits["test"]["present"]
    assert 0.4 < masked["audio"].mean() < 0.85 and (masked["audio"] | masked["visual"]).all()
