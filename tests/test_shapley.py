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
