import jax
import numpy as np
import pytest

from jaxmm import shapley
from jaxmm.batch import take
from jaxmm.errors import UserError
from jaxmm.evaluate import contribution as numbers
from jaxmm.evaluate import decomposition
from jaxmm.evaluate.contribution import ABSENT, MEAN, ZERO
from jaxmm.metrics import log_prior
from jaxmm.state.calibration import fit_temperature
from jaxmm.evaluate.composed import compile_head, predict_from_features, predict_from_inputs
from jaxmm.evaluate.measure import Options, choose_rows, measure, mean_features
from jaxmm.train.predictions import predict_split, split_features
from jaxmm.train.setup import Run, build, init_state

PAIR = ("image", "sound")


@pytest.fixture(name="start", scope="module")
def make_start(make_dataset, make_config):
    """Untrained runs by method, of data in which modalities are missing."""
    def start(method, **options):
        config = make_config(method)
        for name, value in options.items():
            setattr(config.method, name, value)
        setup = build(config, dataset=make_dataset(missing=True, noise=2.0), devices=jax.devices()[:1])
        return Run(setup, init_state(setup), [])

    return start


@pytest.fixture(name="mla", scope="module")
def make_mla(start):
    """Entropy fusion gives a modality another weight if the other one is missing than if its features are 0."""
    return start("mla")


@pytest.fixture(name="concat", scope="module")
def make_concat(start):
    return start("concat")


def complete(batch):
    """The rows that have both modalities."""
    rows = np.flatnonzero(batch["present"]["image"] & batch["present"]["sound"])
    assert 2 < len(rows) < len(batch["label"])
    return take(batch, rows)


def without(batch, modality):
    return batch | {"present": batch["present"] | {modality: np.zeros(len(batch["label"]), bool)}}


def test_games_are_what_the_run_predicts_without_modalities(mla):
    batch = mla.setup.dataset.splits["test"]
    found, rows = measure(mla, batch, Options(value="nll")), complete(batch)
    assert found.modalities == PAIR and found.head == "fused" and found.ids.tolist() == rows["id"].tolist()
    assert found.notes == [f"{16 - len(rows['id'])} of 16 rows, which lack a modality"]
    labels, own = rows["label"], np.arange(len(rows["label"]))
    z = {(): None} | {s: predict_split(mla.setup, mla.state, part)["fused"] for s, part in (
        (PAIR, rows), (("image",), without(rows, "sound")), (("sound",), without(rows, "image")))}
    z[()] = np.broadcast_to(log_prior(mla.setup.dataset.splits["train"]["label"], 3), z[PAIR].shape)
    for s in shapley.subsets(PAIR):
        for value, u in numbers.scores(z[s], labels, z[PAIR].argmax(1)).items():
            np.testing.assert_allclose(found.games["method"][value][s], u, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sum(found.phi.values()), found.game[PAIR] - found.game[()])
    np.testing.assert_array_equal(found.predicted, z[PAIR].argmax(1))
    np.testing.assert_allclose(found.probability, np.exp(found.game[PAIR]), rtol=1e-6)
    assert not np.allclose(found.games["zero"]["nll"]["sound",], found.game["sound",], atol=1e-3)
    assert found.additive[0].rows.tolist() == own.tolist() and found.additive[0].distance > 1e-3
    assert {m: len(x) for m, x in found.perceptual.items()} == dict.fromkeys(PAIR, numbers.DRAWS)


def test_composed_examples_from_features_and_from_inputs(mla):
    rows = complete(mla.setup.dataset.splits["test"])
    count = len(rows["label"])
    fast = predict_from_features(compile_head(mla.setup), mla.setup, mla.state, rows, {})
    slow = predict_from_inputs(mla.setup, mla.state, rows)
    own, other = np.arange(count), np.roll(np.arange(count), 1)
    for at in ({"image": own, "sound": other}, {"image": np.full(count, ABSENT), "sound": own}):
        np.testing.assert_allclose(fast(at), slow(at), rtol=1e-5, atol=1e-6)
    swapped = rows | {"inputs": rows["inputs"] | {"sound": rows["inputs"]["sound"][other]}}
    np.testing.assert_allclose(slow({"image": own, "sound": other}),
                               predict_split(mla.setup, mla.state, swapped)["fused"])


def test_zero_and_mean_by_hand_and_no_interaction_in_an_additive_head(concat):
    splits, params = concat.setup.dataset.splits, jax.device_get(concat.state.params["head"])
    found, rows = measure(concat, splits["test"], Options("mean", "prob")), complete(splits["test"])
    h, train = (split_features(concat.setup, concat.state, x) for x in (rows, splits["train"]))
    means = {m: train[m][splits["train"]["present"][m]].mean(0) for m in PAIR}
    np.testing.assert_allclose(mean_features(concat, compile_head(concat.setup))["image"], means["image"], rtol=1e-5)
    for baseline, other in (("mean", means), ("zero", {m: 0 * x for m, x in means.items()})):
        for s in shapley.subsets(PAIR):
            z = sum((h[m] if m in s else np.broadcast_to(other[m], h[m].shape)) @ params["kernel"][m] for m in PAIR)
            p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            np.testing.assert_allclose(found.games[baseline]["prob"][s], p[np.arange(len(p)), rows["label"]],
                                       rtol=1e-4)
    (additive,) = found.additive
    np.testing.assert_allclose(additive.emap, additive.logits, atol=1e-5)
    assert found.game is found.games["mean"]["prob"]


def test_information_is_that_of_readouts_calibrated_on_validation_data(concat):
    splits = concat.setup.dataset.splits
    found, rows, val = measure(concat, splits["test"]), complete(splits["test"]), complete(splits["val"])
    z, known = (predict_split(concat.setup, concat.state, x) for x in (rows, val))
    values = [z[m].argmax(1) for m in PAIR]
    measured, control = found.pairs[PAIR]
    assert measured == decomposition.decompose(decomposition.frequencies(*values, rows["label"]))
    assert 0 < control.total and control != measured
    prior = log_prior(splits["train"]["label"], 3)
    told = {}
    for head in ("image", "sound", "fused"):
        scaled = z[head] / float(fit_temperature(known[head], val["label"]))
        p = np.exp(scaled) / np.exp(scaled).sum(1, keepdims=True)
        told[head] = np.log2(p[np.arange(len(p)), rows["label"]] / np.exp(prior[rows["label"]]))
    expected = decomposition.by_example(told["image"], told["sound"], told["fused"])
    for part, x in found.by_example[PAIR].items():
        np.testing.assert_allclose(x, expected[part], rtol=1e-3, atol=1e-3)


def test_encoders_that_exchange_are_asked_with_whole_inputs(start):
    run = start("mmtm")
    found = measure(run, run.setup.dataset.splits["test"], Options("permute"))
    assert list(found.games) == ["method", "permute"] and found.additive == []
    assert "baselines zero and mean are left out" in found.notes[-1]
    rows = complete(run.setup.dataset.splits["test"])
    np.testing.assert_allclose(
        found.games["method"]["prob"]["sound",], numbers.scores(
            predict_split(run.setup, run.state, without(rows, "image"))["fused"], rows["label"],
            rows["label"])["prob"], rtol=1e-6)
    with pytest.raises(UserError, match="baseline=zero is a feature in place of another, and mmtm does not"):
        measure(run, rows, Options("zero"))


def test_what_cannot_be_measured_is_said_in_a_line(mla, concat, start):
    batch = concat.setup.dataset.splits["test"]
    for options, message in ((Options("none"), "baseline='none'.*one of method, zero, mean, permute"),
                             (Options(value="loss"), "value='loss'"), (Options(clusters=-1), "clusters=-1"),
                             (Options(clusters=99), r"clusters=99: \d+ training rows have image")):
        with pytest.raises(UserError, match=message):
            measure(concat, batch, options)
    with pytest.raises(UserError, match="of two or more, and this run has only sound; name a run of several"):
        measure(start("unimodal", modality="sound"), batch)
    present = {"image": np.arange(16) < 8, "sound": np.arange(16) > 6}
    with pytest.raises(UserError, match="1 of 16 rows have all of image, sound.*choose another split"):
        measure(mla, batch | {"present": present})


def test_more_rows_than_there_is_room_for_are_drawn(concat, monkeypatch):
    monkeypatch.setattr("jaxmm.evaluate.measure.ROOM", 20)
    notes, batch = [], concat.setup.dataset.splits["test"]
    chosen = choose_rows(batch, PAIR, np.random.default_rng(0), notes)
    assert len(chosen["id"]) == 5 == len(set(chosen["id"]) & set(complete(batch)["id"]))
    assert notes[1].startswith("all but 5 rows, which were drawn")


def test_more_modalities_than_have_exact_values_are_sampled(concat, monkeypatch):
    """Of two, an order and its reverse are all there are, so both ways agree; nothing else is drawn anew."""
    batch = concat.setup.dataset.splits["test"]
    exact = measure(concat, batch, Options("mean", "nll"))
    phi = exact.phi
    assert exact.orders == [] and Options("mean", "nll").permutations == 64
    with pytest.raises(UserError, match="permutations=8 is for more than 10 modalities; .* of 2 are exact"):
        measure(concat, batch, Options(permutations=8))
    monkeypatch.setattr(shapley, "MAX_PLAYERS", 1)
    for count in (0, 2, 7):
        with pytest.raises(UserError, match=f"permutations={count}; expected an even number of at least 4"):
            measure(concat, batch, Options(permutations=count))
    found = measure(concat, batch, Options("mean", "nll", permutations=6))
    assert len(found.orders) == 6 and found.orders[1::2] == [order[::-1] for order in found.orders[::2]]
    assert found.notes == [*exact.notes, "the interaction index of pairs, which needs all 4 subsets of 2 modalities"]
    for baseline, games in exact.games.items():
        for value, game in games.items():
            for s, u in game.items():
                np.testing.assert_array_equal(found.games[baseline][value][s], u)
    for m in PAIR:
        np.testing.assert_array_equal(found.perceptual[m], exact.perceptual[m])
        np.testing.assert_allclose(found.phi[m], phi[m], rtol=1e-12, atol=1e-12)


def test_rows_that_there_is_room_for_go_by_the_subsets_of_orders(concat, monkeypatch):
    monkeypatch.setattr("jaxmm.evaluate.measure.ROOM", 24)
    names = [f"m{i}" for i in range(4)]
    there = {m: np.ones(20, bool) for m in names}
    batch = {"inputs": {}, "label": np.zeros(20, int), "id": np.arange(20), "present": there}
    orders, notes = [tuple(names), tuple(names[::-1])], []
    chosen = choose_rows(batch, names, np.random.default_rng(0), notes, orders)
    assert len(chosen["id"]) == 2       # of none and all, four times of one and of three, and two of two: 12 subsets
    assert notes == ["all but 2 rows, which were drawn: as many subsets as the orders need are predicted for each"]


def test_codes_stand_for_rows_of_their_own(concat):
    """MEAN and ZERO are given, not absent."""
    rows = complete(concat.setup.dataset.splits["test"])
    h = split_features(concat.setup, concat.state, rows)
    means = {m: np.full(6, 2.0, np.float32) for m in PAIR}
    predict = predict_from_features(compile_head(concat.setup), concat.setup, concat.state, rows, means)
    kernel = jax.device_get(concat.state.params["head"]["kernel"])
    found = predict({"image": np.array([3, MEAN]), "sound": np.array([ZERO, 1])})
    np.testing.assert_allclose(found, [h["image"][3] @ kernel["image"], 2 * kernel["image"].sum(0)
                                       + h["sound"][1] @ kernel["sound"]], rtol=1e-4, atol=1e-5)
