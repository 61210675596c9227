import numpy as np
import pytest

from benchmarks import missing
from jaxmm.config import DataConfig
from jaxmm.data import missing as masks


def test_the_reference_never_reads_what_is_missing(make_dataset):
    """Standardised by the training rows that have a modality; rows without it have 0 there."""
    data = masks.mask(make_dataset({"image": (3,), "sound": (2,)}, rows=(40, 5, 20)), DataConfig(missing_rate=0.4))
    train, test = data.splits["train"], data.splits["test"]
    filled = missing.fill(train, train)
    image, sound = (train["present"][m] for m in ("image", "sound"))
    for part, present in ((filled[:, :3], image), (filled[:, 3:], sound)):
        assert not part[~present].any()
        np.testing.assert_allclose(part[present].mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(part[present].std(0), 1)
    spoiled = {split: batch | {"inputs": {
        m: np.where(batch["present"][m][:, None], x, np.float32("nan")) for m, x in batch["inputs"].items()}}
        for split, batch in data.splits.items()}
    np.testing.assert_array_equal(missing.fill(spoiled["train"], spoiled["test"]), missing.fill(train, test))
    scores = missing.reference(data).scores["fused"]
    assert missing.reference(data._replace(splits=data.splits | spoiled)).scores["fused"] == scores
    assert set(scores) == {"accuracy", "weighted_f1", "mean_recall"}


def test_of_equal_learning_rates_the_smallest_is_chosen():
    assert missing.best({0.01: 0.5, 0.001: 0.5, 0.1: 0.4}) == 0.001


@pytest.mark.parametrize("scheme", masks.SCHEMES)
def test_masks_are_those_of_the_config(scheme, make_dataset):
    data = make_dataset(rows=(40, 5, 20))
    found = missing.mask(data, 0.4, scheme).splits["train"]["present"]
    wanted = masks.mask(data, DataConfig(missing_rate=0.4, missing_scheme=scheme)).splits["train"]["present"]
    for m, present in wanted.items():
        np.testing.assert_array_equal(found[m], present)
