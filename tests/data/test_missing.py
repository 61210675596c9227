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


# Of three modalities: what is missing and the share of examples with two or more, by formulas of their own.
TABLE = {0.3: (0.291, 0.78, 0.300, 0.80), 0.5: (0.458, 0.50, 0.500, 0.44), 0.6: (0.528, 0.35, 0.600, 0.19),
         0.7: (0.586, 0.22, 0.667, 0.0)}


@pytest.mark.parametrize("rate", TABLE)
@pytest.mark.parametrize("scheme", missing.SCHEMES)
def test_shares_of_both_schemes(rate, scheme, dataset):
    masked = missing.mask(dataset, DataConfig(missing_rate=rate, missing_scheme=scheme))
    share, several = TABLE[rate][:2] if scheme == "independent" else TABLE[rate][2:]
    found = missing.shares(masked.splits["train"])
    assert found == pytest.approx((share, several), abs=0.015)
    for split, batch in masked.splits.items():
        kept = masks(masked, split)
        assert kept.any(axis=0).all()
        assert missing.shares(batch) == pytest.approx((1 - kept.mean(), (kept.sum(axis=0) > 1).mean()))
        if scheme == "exact":       # to the last modality, and each is as rare as the others
            assert (~kept).sum() == round(min(rate, 2 / 3) * kept.size)
            np.testing.assert_allclose(kept.mean(axis=1), kept.mean(), atol=0.06)
            assert (kept.sum(axis=0) == 1).all() or rate < 2 / 3


def test_a_rate_that_cannot_be_met_is_said(dataset, caplog):
    missing.mask(dataset, DataConfig(missing_rate=0.75, missing_scheme="exact"))
    assert "data.missing_rate=0.75: one modality of each example is kept, so 66.7% are missing" in caplog.text


def test_exact_shares_of_what_examples_have(make_dataset):
    """Rows with one modality keep it, and those with more make up for it; of one modality its share counts."""
    dataset = make_dataset(SHAPES, rows=(600, 60, 60), missing=True)
    before = masks(dataset)
    masked = masks(missing.mask(dataset, DataConfig(missing_rate=0.25, missing_scheme="exact")))
    assert not (masked & ~before).any() and masked.any(axis=0).all()
    assert (before & ~masked).sum() == round(0.25 * before.sum())
    options = {"missing_rate": 0.4, "missing_scheme": "exact", "missing_modality": "flow"}
    only = missing.mask(dataset, DataConfig(**options))
    flow, *others = masks(only)
    assert (before[0] & ~flow).sum() == round(0.4 * before[0].sum()) and flow[before.sum(axis=0) == 1].tolist() == \
        before[0][before.sum(axis=0) == 1].tolist()
    np.testing.assert_array_equal(others, before[1:])
    np.testing.assert_array_equal(masks(only, "test"), masks(dataset, "test"))


def unpaired(dataset):
    """Every training row has one modality."""
    rows = np.arange(6000) % 3
    train = dataset.splits["train"] | {"present": {m: rows == i for i, m in enumerate(SHAPES)}}
    return dataset._replace(splits=dataset.splits | {"train": train})


def alone(dataset):
    """There is one modality."""
    return dataset._replace(splits={split: batch | {part: {"flow": batch[part]["flow"]} for part in
                                                    ("inputs", "present")}
                                    for split, batch in dataset.splits.items()})


@pytest.mark.parametrize("options, message, change", [
    ({"missing_rate": 1.0}, "data.missing_rate=1.0; expected a share in .0, 1., as one", None),
    ({"missing_rate": -0.1}, "missing_rate=-0.1", None),
    ({"missing_modality": "smell"}, "missing_modality='smell'; expected one of flow, image, sound", None),
    ({"missing_scheme": "exakt"}, "data.missing_scheme='exakt'; did you mean exact", None),
    ({"missing_rate": 0.5}, "missing_rate=0.5: no training example of tiny has two modalities, and one", alone),
    ({"missing_rate": 0.5}, "no training example of tiny has two modalities", unpaired),
    ({"missing_rate": 0.5, "missing_modality": "flow"}, "of tiny has flow and another modality", unpaired)])
def test_mistakes(options, message, change, dataset):
    with pytest.raises(UserError, match=message):
        missing.mask(change(dataset) if change else dataset, DataConfig(**options))
    assert missing.mask(alone(dataset), DataConfig()).modalities == ("flow",)


def test_every_data_set_can_be_masked():
    masked = data.load(DataConfig(missing_rate=0.5)).splits["test"]["present"]
    assert 0.4 < masked["audio"].mean() < 0.85 and (masked["audio"] | masked["visual"]).all()
