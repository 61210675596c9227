"""What a run is built of, and predictions for splits that are none of its data set."""
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError
from jaxmm.train.setup import build, init_state, join, predict_split

OFFSET, STEP = 1.7e9, 2.0**-9        # seconds, milliseconds: float32 holds steps of 128 there


@pytest.fixture(name="datasets", scope="module")
def make_datasets(make_dataset):
    """The same small whole numbers as float32, and far from zero as float64 and 64-bit integers."""
    plain = make_dataset(rows=(16, 8, 8))
    make = {"plain": np.float32, "float64": lambda x: OFFSET + STEP * x.astype(float),
            "int64": lambda x: 2**60 + 16 * x.astype(int)}
    return {name: plain._replace(splits={
        split: batch | {"inputs": {m: fn(np.round(4 * x)) for m, x in batch["inputs"].items()}}
        for split, batch in plain.splits.items()}) for name, fn in make.items()}


@pytest.fixture(name="setups", scope="module")
def make_setups(datasets, make_config):
    return {name: build(make_config(batch_size=8), dataset=dataset)
            for name, dataset in datasets.items()}


@pytest.mark.parametrize("name", ["float64", "int64"])
def test_digits_that_float32_does_not_hold_reach_the_network(datasets, setups, name):
    """In training and evaluation, from Python and after `join`; the logits are those of small numbers."""
    expected = predict_split(setups["plain"], init_state(setups["plain"]), datasets["plain"].splits["test"])
    setup, split = setups[name], datasets[name].splits["test"]
    for each in (setup, join([setup])):
        for batch in (split, make_batch(split["inputs"], split["label"])):
            found = predict_split(each, init_state(setup), batch)
            for head, logits in expected.items():
                np.testing.assert_allclose(found[head], logits, rtol=1e-4, atol=1e-5)
    rows, _ = setup.programs.feed(datasets[name].splits["train"], "host")(np.arange(8)[None])
    assert {x.dtype for x in rows["inputs"].values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("change, message", [
    (lambda b: b["inputs"].update(sound=np.zeros((48, 3), np.float32)),
     "split/sound has 48 rows, split/label has 40; every modality needs one row for each label"),
    (lambda b: b["inputs"].pop("sound"), "split has the modalities \\['image'\\], train has"),
    (lambda b: b["inputs"].update(sound=np.zeros((40, 4))), "split/sound has rows of shape \\(4,\\)"),
    (lambda b: b["inputs"].update(sound=np.full((40, 3), np.nan)),
     "split/sound has values that are not finite"),
    (lambda b: b["inputs"].update(sound=np.full((40, 3), "a")), "split/sound is <U1"),
    (lambda b: b["present"].update(sound=np.ones(48, bool)), "split/present/sound has 48 rows"),
    (lambda b: b.update(id=np.arange(48)), "split/id has 48 rows"),
])
def test_splits_of_another_form_are_refused(setups, change, message):
    setup = setups["plain"]
    batch = make_batch({"sound": np.zeros((40, 3), np.float32), "image": np.zeros((40, 5), np.float32)},
                       np.zeros(40, int))
    change(batch)
    with pytest.raises(UserError, match=message):
        predict_split(setup, init_state(setup), batch)


def test_bytes_for_a_network_of_fractions_are_refused(make_config):
    rng = np.random.default_rng(0)
    inputs = {m: rng.random((8, 4)) for m in ("sound", "image")}
    label = np.arange(8) % 2
    dataset = Dataset("d", {s: make_batch(inputs, label) for s in ("train", "val", "test")}, ("a", "b"))
    setup = build(make_config(batch_size=8), dataset=dataset)
    other = make_batch({m: np.round(255 * x) for m, x in inputs.items()}, label)
    with pytest.raises(UserError, match="split/sound reaches 2.*: one holds fractions, the other bytes"):
        predict_split(setup, init_state(setup), other)
