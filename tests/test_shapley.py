import itertools

import numpy as np
import pytest

from jaxmm import shapley
from jaxmm.errors import UserError


@pytest.mark.parametrize("players, game, expected", [
    ("ab", {"": 0.25, "a": 0.6, "b": 0.5, "ab": 0.8}, (0.325, 0.225)),
    ("abc", {"".join(s): float("a" in s and len(s) > 1) for s in shapley.subsets("abc")},
     (2 / 3, 1 / 6, 1 / 6)),
    ("a", {"": 2.0, "a": 5.0}, (3,)),
    # Whether a player is right alone, and the joint prediction, times the number of players.
    ("av", {"": 0, "a": 1, "v": 1, "av": 2}, (1, 1)), ("av", {"": 0, "a": 1, "v": 0, "av": 2}, (1.5, 0.5)),
    ("av", {"": 0, "a": 1, "v": 0, "av": 0}, (0.5, -0.5))])
def test_values_by_hand(players, game, expected):
    found = shapley.values({tuple(s): v for s, v in game.items()})
    assert list(found) == list(players)
    np.testing.assert_allclose(list(found.values()), expected)
    np.testing.assert_allclose(sum(found.values()), game[players] - game[""])


def test_values_are_means_over_all_orders_of_the_players():
    rng = np.random.default_rng(0)
    game = {s: rng.normal(size=(3, 2)) for s in shapley.subsets("wxyz")}
    assert len(game) == 16
    expected = {m: np.zeros((3, 2)) for m in "wxyz"}
    for order in itertools.permutations("wxyz"):
        for i, m in enumerate(order):
            before, after = (tuple(sorted(order[:n])) for n in (i, i + 1))
            expected[m] += (game[after] - game[before]) / 24
    for m, value in shapley.values(game).items():
        np.testing.assert_allclose(value, expected[m])


def test_too_many_players_are_refused():
    assert len(shapley.subsets("abcdefghij")) == 1024
    with pytest.raises(UserError, match="11 modalities have 2048 subsets.*at most 10"):
        shapley.subsets("abcdefghijk")


@pytest.mark.parametrize("players", ["abc", "abcd", "vwxyz"])
def test_values_over_all_orders_are_exact(players):
    rng = np.random.default_rng(0)
    game = {s: rng.normal(size=3) for s in shapley.subsets(players)}
    orders, expected = list(itertools.permutations(players)), shapley.values(game)
    found = shapley.values(game, orders)
    assert list(found) == list(players)
    for m in players:
        np.testing.assert_allclose(found[m], expected[m], rtol=1e-12, atol=1e-12)


def test_orders_are_drawn_with_their_reverse():
    rng = np.random.default_rng(0)
    orders = shapley.draw_orders("abcde", 64, rng)
    assert len(orders) == 64 and orders[1::2] == [order[::-1] for order in orders[::2]]
    assert all(sorted(order) == list("abcde") for order in orders)
    first = [order[0] for order in shapley.draw_orders("abcde", 4000, rng)]
    counts = [first.count(m) for m in "abcde"]
    assert sum((count - 800) ** 2 / 800 for count in counts) < 18.5      # chi-square of 4, p = 0.001


def test_prefixes_are_subsets_in_the_order_of_the_players():
    assert shapley.prefixes("abcd", ("d", "b", "a", "c")) == [
        (), ("d",), ("b", "d"), ("a", "b", "d"), ("a", "b", "c", "d")]


def test_sampled_values_by_hand():
    """In the order b, a and its reverse, of v = 1, 2, 4, 16 for none, a, b and both."""
    game, orders = {(): 1, ("a",): 2, ("b",): 4, ("a", "b"): 16}, [("b", "a"), ("a", "b")]
    gains = shapley.gains(game, orders)
    np.testing.assert_array_equal(gains["a"], [12, 1])
    np.testing.assert_array_equal(gains["b"], [3, 14])
    np.testing.assert_array_equal(shapley.paired(gains["b"]), [8.5])
    assert shapley.values(game, orders) == {"a": 6.5, "b": 8.5}


def test_sampled_values_of_many_players():
    """They add up exactly, whatever the orders; a symmetric game has equal values, an additive one the gains."""
    players, rng = [f"m{i}" for i in range(14)], np.random.default_rng(0)
    orders = shapley.draw_orders(players, 8, rng)
    subsets = {s for order in orders for s in shapley.prefixes(players, order)}
    game = {s: float(rng.integers(1000)) for s in subsets}
    assert sum(shapley.values(game, orders).values()) == game[tuple(players)] - game[()]

    several = shapley.draw_orders(players, 100, rng)
    subsets = {s for order in several for s in shapley.prefixes(players, order)}
    size = shapley.gains({s: len(s) ** 2.0 for s in subsets}, several)
    for x in size.values():     # v of an order's place k is 2 k + 1, and with its reverse 14 on average
        np.testing.assert_array_equal(shapley.paired(x), 14)
    worth = dict(zip(players, rng.normal(size=14)))
    found = shapley.values({s: sum(worth[m] for m in s) for s in subsets}, several)
    np.testing.assert_allclose([found[m] for m in players], [worth[m] for m in players], atol=1e-12)


def test_sampled_values_of_symmetric_and_idle_players_agree():
    """x and y do the same and z nothing: equal to their standard error, and 0 in every order."""
    players, rng = ["x", "y", "z", "a", "b"], np.random.default_rng(1)
    weights = rng.random(3)
    game = {s: np.tanh(weights @ [sum(m in s for m in "xy"), "a" in s, "b" in s])
            for s in shapley.subsets(players)}
    gains = shapley.gains(game, shapley.draw_orders(players, 400, rng))
    assert (gains["z"] == 0).all()
    error = shapley.paired(gains["x"] - gains["y"]).std() / np.sqrt(200)
    assert 0 < abs(np.mean(gains["x"] - gains["y"])) < 4 * error
