"""What a run is built of, predictions for splits that are none of its data set, absurd options."""
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import SpectrogramConfig, replace
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError
from jaxmm.train import options, setup as setup_lib, together
from jaxmm.train.predictions import predict_split
from jaxmm.train.setup import build, init_state
from jaxmm.train.together import join

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
    rows, _ = setup.programs.feed(datasets[name].splits["train"], "host").at(np.arange(8)[None])
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


@pytest.mark.parametrize("option, value, said", [
    ("optimizer.learning_rate", float("nan"), "learning_rate=nan; expected a finite number"),
    ("optimizer.momentum", float("-inf"), "momentum=-inf; expected a finite number"),
    ("optimizer.weight_decay", 1e39, "weight_decay=1e\\+39; expected at most 3.4"),
    ("optimizer.clip_norm", 1e-60, "clip_norm=1e-60 is 0 in float32"),
    ("data.missing_rate", float("nan"), "data.missing_rate=nan"),
    ("method.hidden", 2**31, "method.hidden=2147483648; expected at most 2147483647"),
    ("train.keep_checkpoints", 10**30, "keep_checkpoints=1000000000000000000000000000000"),
    ("train.seed", 2**31, "train.seed=2147483648"),
    ("train.seeds", 1001, "train.seeds=1001; expected at most 1000"),
    ("data.preprocess", {"sound": SpectrogramConfig(mels=10**6)},
     "data.preprocess.sound.mels=1000000; expected at most 16384"),
    ("data.preprocess", {"sound": SpectrogramConfig(std=(1.0, float("inf")))},
     "data.preprocess.sound.std=inf; expected a finite number"),
])
def test_numbers_that_are_none_or_absurd_are_named(option, value, said, make_config):
    with pytest.raises(UserError, match=said):
        options.check_counts(replace(make_config(), {option: value}))


def test_numbers_at_the_edge_are_taken(make_config):
    options.check_counts(replace(make_config(), {
        "optimizer.learning_rate": -0.0, "optimizer.weight_decay": 1e-37, "train.seeds": 1000,
        "train.seed": 2**31 - 1000, "train.epochs": 2**31 - 1}))
    with pytest.raises(UserError, match="train.seeds=1000 reaches the seed 2147483648"):
        options.check_counts(replace(make_config(), {"train.seeds": 1000, "train.seed": 2**31 - 999}))


def test_runs_that_do_not_fit_into_memory_together_are_trained_apart(make_config, make_dataset,
                                                                     monkeypatch):
    setups = list(together.build_many([replace(make_config(), {"train.seed": seed, "stream.seed": seed})
                                       for seed in range(3)], dataset=make_dataset()))
    assert len({id(setup.programs) for setup in setups}) == 1       # there is no stream
    assert [(setup.config.train.seed, setup.config.stream.seed) for setup in setups] == [(0, 0), (1, 1), (2, 2)]
    size = setup_lib.state_size(setups[0])
    assert size > 4 * 6 * (3 + 5)       # the encoders' first layers alone
    monkeypatch.setattr(setup_lib, "memory_size", lambda: 3 * size)
    assert together.find_obstacle(setups) == ""
    monkeypatch.setattr(setup_lib, "memory_size", lambda: 3 * size - 1)
    assert "memory does not hold" in together.find_obstacle(setups)
    monkeypatch.setattr(setup_lib, "memory_size", lambda: size - 1)
    with pytest.raises(UserError, match="more than the 0.0 GiB of memory"):
        setup_lib.build(make_config(), dataset=make_dataset())
