import itertools

import numpy as np
import pytest

from jaxmm import shapley
from jaxmm.evaluate import contribution
from jaxmm.evaluate.contribution import ABSENT, MEAN, ZERO
from jaxmm.metrics import log_prior

HALF = {(): 0.25, ("a",): 0.6, ("v",): 0.5, ("a", "v"): 0.8}
THREE = {s: float("1" in s and len(s) > 1) for s in shapley.subsets("123")}


def by_tables(tables, combine):
    """What predicts composed examples: `combine` of the rows [B, ...] of a table [N, ...] for each modality."""
    def predict(rows):
        return np.asarray(combine(**{m: tables[m][index] for m, index in rows.items()}), np.float32)

    return predict


def xor(a, b):
    """Logits [B, 2]: the second class is right where exactly one of a and b is 1."""
    z = np.where(a != b, 1.0, -1.0)
    return np.stack([-z, z], axis=-1)


def with_codes(x):
    """A table [N, s] with the rows for MEAN, ZERO and ABSENT at its end."""
    return np.concatenate([x, x.mean(0, keepdims=True), np.zeros((2, x.shape[1]))])


def test_numbers_of_two_modalities_by_hand():
    assert contribution.alone(HALF) == {"a": 0.6, "v": 0.5}
    assert contribution.lost(HALF) == pytest.approx({"a": 0.3, "v": 0.2})
    assert contribution.cooperation(HALF) == pytest.approx(-0.05)
    assert contribution.interactions(HALF) == {("a", "v"): pytest.approx(-0.05)}
    u = contribution.utilization(HALF)
    assert u == pytest.approx({"a": 0.375, "v": 0.25}) and u["a"] - u["v"] == pytest.approx(0.125)
    assert np.isnan(contribution.utilization(dict.fromkeys(HALF, 0.0))["a"])
    phi = shapley.values(HALF)
    assert contribution.shares(phi) == pytest.approx({"a": 0.325 / 0.55, "v": 0.225 / 0.55})


def test_shares_of_negative_contributions():
    assert contribution.absolute_shares({"a": -0.3, "v": 0.1}) == pytest.approx({"a": 0.75, "v": 0.25})
    assert all(np.isnan(x) for x in contribution.shares({"a": -0.3, "v": 0.1}).values())
    assert contribution.absolute_shares({"a": 0.0, "v": 0.0}) == {"a": 0.5, "v": 0.5}
    several = contribution.shares({"a": np.array([1.0, -1.0, 0.0]), "v": np.array([3.0, 2.0, 0.0])})
    np.testing.assert_array_equal(several["a"], [0.25, np.nan, np.nan])


def test_interactions_of_three_modalities_by_hand():
    assert contribution.interactions(THREE) == pytest.approx({("1", "2"): 0.5, ("1", "3"): 0.5, ("2", "3"): -0.5})
    assert contribution.cooperation(THREE) == 1


def test_interactions_against_their_recursion():
    """I_mn is the value of both as one player, less that of each where the other does not play."""
    rng = np.random.default_rng(0)
    game = {s: rng.normal() for s in shapley.subsets("wxyz")}
    found = contribution.interactions(game)
    assert len(found) == 6
    for m, n in itertools.combinations("wxyz", 2):
        rest = [k for k in "wxyz" if k not in (m, n)]
        merged = {(*s, *pair): game[tuple(sorted({*s, *(pair and (m, n))}))]
                  for s in shapley.subsets(rest) for pair in ((), ("both",))}
        without = [shapley.values({s: v for s, v in game.items() if gone not in s})[kept]
                   for kept, gone in ((m, n), (n, m))]
        assert found[m, n] == pytest.approx(shapley.values(merged)["both"] - sum(without))


def test_scores_by_hand():
    logits = np.log([[0.5, 0.25, 0.25], [0.4, 0.4, 0.2], [0.2, 0.2, 0.6]])
    found = contribution.scores(logits, np.array([0, 1, 0]), np.array([0, 0, 2]))
    np.testing.assert_allclose(found["correct"], [1, 0.5, 0])
    np.testing.assert_allclose(found["prob"], [0.5, 0.4, 0.2])
    np.testing.assert_allclose(found["nll"], np.log([0.5, 0.4, 0.2]))
    np.testing.assert_allclose(found["predicted"], [0.5, 0.4, 0.6])


@pytest.mark.parametrize("baseline", [ZERO, MEAN, "permute"])
def test_a_modality_that_is_ignored_contributes_nothing(baseline):
    rng = np.random.default_rng(0)
    tables = {m: with_codes(rng.normal(size=(40, 3))) for m in "abc"}
    labels = rng.integers(3, size=40)
    predict = by_tables(tables, lambda a, b, c: a * np.tanh(c) + c)
    if baseline == "permute":
        games, perceptual = contribution.play_permuted(predict, labels, "abc", rng)
        assert (perceptual["b"] == 0).all() and len(perceptual["b"]) == contribution.DRAWS
        np.testing.assert_allclose(perceptual["a"].mean(), contribution.lost(
            contribution.means(games["correct"]))["a"])
    else:
        games = contribution.play(predict, labels, "abc", dict.fromkeys("abc", np.full(40, baseline)))
    for game in games.values():
        np.testing.assert_allclose(shapley.values(game)["b"], 0, atol=1e-12)
        assert (contribution.lost(game)["b"] == 0).all()
        assert np.abs(shapley.values(game)["a"]).max() > 0.01


def test_identical_modalities_that_are_averaged():
    """Equal values, and nothing is lost without one; without any the prior is predicted."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(30, 3)), rng.integers(3, size=30)

    def predict(rows):
        there = {m: (index != ABSENT)[:, None] for m, index in rows.items()}
        return sum(there[m] * x[index] for m, index in rows.items()) / np.maximum(sum(there.values()), 1)

    prior = log_prior(labels, 3)
    absent = dict.fromkeys("ab", np.full(30, ABSENT))
    games = contribution.play(predict, labels, "ab", absent, prior)
    for game in games.values():
        phi = shapley.values(game)
        np.testing.assert_allclose(phi["a"], phi["b"])
        np.testing.assert_allclose(contribution.lost(game)["a"], 0, atol=1e-12)
    np.testing.assert_allclose(games["nll"][()], prior[labels])
    assert games["correct"][()].mean() == np.bincount(labels).max() / 30


def test_emap_by_hand():
    f = np.array([[1.0, 2.0], [3.0, 6.0]])
    rows = np.arange(2)
    found = contribution.emap(lambda at: f[at["a"], at["b"]][:, None], "ab", rows, np.random.default_rng(0))
    np.testing.assert_allclose(found.emap[:, 0], [0.5, 5.5])
    np.testing.assert_allclose(found.logits[:, 0], [1, 6])
    swapped = contribution.emap(lambda at: f[at["a"], 1 - at["b"]][:, None], "ab", rows, np.random.default_rng(0))
    np.testing.assert_allclose(swapped.emap[:, 0], [2.5, 3.5])      # the other two of [[.5, 2.5], [3.5, 5.5]]


def test_emap_of_xor_is_at_chance_where_the_model_is_right():
    a, b = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    predict = by_tables({"a": a, "b": b}, xor)
    found = contribution.emap(predict, "ab", np.arange(4), np.random.default_rng(0))
    np.testing.assert_allclose(found.emap, 0, atol=1e-12)
    each, gains = contribution.gap([found], a ^ b)
    assert each == [0.5] and gains.tolist() == [0.5] * 4
    assert found.distance == 1


@pytest.mark.parametrize("modalities", ["ab", "abc"])
def test_emap_of_an_additive_model_is_the_model(modalities, monkeypatch):
    monkeypatch.setattr(contribution, "AT_ONCE", 64)
    rng = np.random.default_rng(0)
    tables = {m: rng.normal(size=(30, 4)) for m in modalities}
    predict = by_tables(tables, lambda **x: sum(i * np.sin(i * x[m]) for i, m in enumerate(modalities, 1)))
    found = contribution.emap(predict, modalities, rng.permutation(30)[:20], rng)
    np.testing.assert_allclose(found.emap, found.logits, atol=1e-5)
    assert found.distance < 1e-5
    assert contribution.gap([found], rng.integers(4, size=30))[0] == [0]


def test_emap_against_loops(monkeypatch):
    """Of two modalities over all pairs; of three over the same draws for every example and modality."""
    monkeypatch.setattr(contribution, "AT_ONCE", 25)
    rng, rows = np.random.default_rng(0), np.array([5, 1, 7, 2, 9, 0, 4])
    tables = {m: rng.normal(size=(10, 2)).astype(np.float32) for m in "abc"}
    two = by_tables(tables, lambda a, b: a * b + a)
    f = np.array([[two({"a": np.array([i]), "b": np.array([j])})[0] for j in rows] for i in rows])
    found = contribution.emap(two, "ab", rows, np.random.default_rng(1))
    np.testing.assert_allclose(found.emap, f.mean(1) + f.mean(0) - f.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(found.logits, f[range(7), range(7)], atol=1e-6)

    three = by_tables(tables, lambda a, b, c: a * b * c + c)
    draws = np.random.default_rng(1)
    drawn = {m: draws.choice(rows, 7) for m in "abc"}
    expected = [sum(three(drawn | {m: np.full(7, i)}).mean(0) for m in "abc") - 2 * three(drawn).mean(0)
                for i in rows]
    found = contribution.emap(three, "abc", rows, np.random.default_rng(1))
    np.testing.assert_allclose(found.emap, expected, atol=1e-6)


def test_the_gap_is_over_examples_that_were_drawn():
    right, wrong = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    first = contribution.Additive(np.array([0, 2]), np.concatenate([right, right]), np.concatenate([wrong, right]))
    second = contribution.Additive(np.array([2, 3]), np.concatenate([right, wrong]), np.concatenate([wrong, right]))
    each, gains = contribution.gap([first, second], np.zeros(4, int))
    assert each == [0.5, 0] and gains.tolist() == [1, 0.5, -1]


def test_in_a_derangement_nobody_keeps_its_place():
    rng = np.random.default_rng(0)
    drawn = {tuple(contribution.derangement(3, rng)) for _ in range(20)}
    assert drawn == {(1, 2, 0), (2, 0, 1)}


def test_replicates_are_paired_and_spread_as_the_mean_does():
    x = np.random.default_rng(0).normal(size=400)
    found = contribution.resample({"x": x, "twice": 2 * x, "one": np.ones(400)}, np.random.default_rng(1))
    np.testing.assert_allclose(found["twice"], 2 * found["x"])
    np.testing.assert_allclose(found["one"], 1)
    assert found["x"].std() == pytest.approx(x.std() / 20, rel=0.1)
    low, high = contribution.interval(found["x"] - x.mean())
    assert (low, high) == pytest.approx((-1.96 * x.std() / 20, 1.96 * x.std() / 20), rel=0.15)
    assert contribution.interval(np.arange(1001.0)) == pytest.approx((25, 975))


PLAYERS = [f"m{i}" for i in range(12)]


def test_what_many_modalities_need():
    """All that lie in the orders, each alone and all without each, once, by size."""
    orders = shapley.draw_orders(PLAYERS, 6, np.random.default_rng(0))
    found = contribution.needed(PLAYERS, orders)
    assert len(found) == len(set(found)) <= 2 + 24 + 6 * 11 and sorted(map(len, found)) == list(map(len, found))
    assert {s for order in orders for s in shapley.prefixes(PLAYERS, order)} <= set(found)
    assert found[0] == () and found[1:13] == [(m,) for m in PLAYERS] and found[-1] == tuple(PLAYERS)
    assert all(tuple(n for n in PLAYERS if n != m) in found for m in PLAYERS)
    assert contribution.needed("abc") == shapley.subsets("abc")


def test_many_modalities_are_played_by_orders():
    """All that needs no orders is exact, in a model whose log p[y] is linear in the number of modalities."""
    rng = np.random.default_rng(0)
    orders = shapley.draw_orders(PLAYERS, 4, rng)
    tables = {m: with_codes(np.full((5, 1), 0.1 * i)) for i, m in enumerate(PLAYERS)}

    def predict(rows):      # the logits z, 0 whose difference is the sum of features
        z = np.concatenate([tables[m][index] for m, index in rows.items()], axis=1).sum(1, keepdims=True)
        return np.concatenate([z, np.zeros_like(z)], axis=1)

    labels = np.array([0, 0, 1, 0, 1])
    games = contribution.play(predict, labels, PLAYERS, dict.fromkeys(PLAYERS, np.full(5, ZERO)), orders=orders)
    game = {s: 0.1 * sum(PLAYERS.index(m) for m in s) for s in contribution.needed(PLAYERS, orders)}
    for s, p in games["prob"].items():
        np.testing.assert_allclose(np.log(p[0] / (1 - p[0])), game[s], atol=1e-12)
    assert list(games["nll"]) == list(game)
    whole = sum(game[m,] for m in PLAYERS)
    assert contribution.alone(game) == pytest.approx({m: 0.1 * i for i, m in enumerate(PLAYERS)})
    assert contribution.lost(game) == pytest.approx({m: 0.1 * i for i, m in enumerate(PLAYERS)})
    assert contribution.cooperation(game) == pytest.approx(0)
    assert contribution.utilization(game) == pytest.approx({m: 0.1 * i / whole for i, m in enumerate(PLAYERS)})
    assert contribution.interactions(game) == {}
    permuted, perceptual = contribution.play_permuted(predict, labels, PLAYERS, rng, orders=orders)
    assert list(permuted["correct"]) == list(game) and {m: x.tolist() for m, x in perceptual.items()} == (
        dict.fromkeys(PLAYERS, [0] * contribution.DRAWS))     # every example has the same features


def test_standard_errors_by_hand():
    """Two pairs of orders of three players whose game is v(S) plus a number by example if a plays."""
    orders = [("a", "b", "c"), ("c", "b", "a"), ("b", "a", "c"), ("c", "a", "b")]
    each = np.array([-3.0, -1, 1, 3])
    game = {s: 6.0 * (s == ("a", "b", "c")) + 12.0 * (s == ("b", "c")) + each * ("a" in s)
            for s in shapley.subsets("abc")}
    assert shapley.values(contribution.means(game), orders) == {"a": -1.5, "b": 4.5, "c": 3}
    from_orders, from_examples = contribution.standard_errors(game, orders)
    # Means of pairs are of a (0 - 6) / 2 and (0 + 0) / 2, of b (0 + 12) / 2 and (0 + 6) / 2, of c (6 + 0) / 2.
    assert from_orders == pytest.approx({"a": 1.5, "b": 1.5, "c": 0})
    assert from_examples == pytest.approx({"a": np.sqrt(20 / 3) / 2, "b": 0, "c": 0})


def test_replicates_spread_over_orders_and_examples():
    rng = np.random.default_rng(0)
    orders = shapley.draw_orders("abcde", 60, rng)
    game = {s: rng.normal(size=200) + 3 * rng.normal() for s in shapley.subsets("abcde")}
    v = contribution.resample(game, rng, 2000)
    found = contribution.resample_orders(v, orders, rng)
    from_orders, from_examples = contribution.standard_errors(game, orders)
    for m in "abcde":
        assert found[m].std() == pytest.approx(np.hypot(from_orders[m], from_examples[m]), rel=0.1)
        assert found[m].mean() == pytest.approx(shapley.values(contribution.means(game), orders)[m], abs=0.05)
    np.testing.assert_allclose(sum(found.values()), v[tuple("abcde")] - v[()])
