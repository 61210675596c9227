"""Shapley values: what each player, such as a modality, contributes to a game's value.

A game gives every subset S of the players a value v(S), a number or an array. Subsets are tuples of names in
the order of the players.

References:
  Shapley, "A value for n-person games", 1953.
"""
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxmm.errors import UserError

MAX_PLAYERS = 10        # of whom there are 1024 subsets

Subset = tuple[str, ...]


def subsets(players: Sequence[str]) -> list[Subset]:
    """All 2^M subsets of the players, from the empty one to all of them.

    Raises:
      UserError: there are more than `MAX_PLAYERS`.
    """
    if len(players) > MAX_PLAYERS:
        raise UserError(f"{len(players)} modalities have {2 ** len(players)} subsets, and Shapley values need "
                        f"all; expected at most {MAX_PLAYERS} modalities: leave some out, or join them")
    return [s for size in range(len(players) + 1) for s in itertools.combinations(players, size)]


def values(game: Mapping[Subset, Any]) -> dict[str, Any]:
    """The Shapley value of each player, of the type of the game's values.

        phi_m = sum over S without m of s! (M - s - 1)! / M! (v(S + m) - v(S)),  s the size of S

    They add up to v(all) - v(empty).

    Args:
      game: v by subset, for all that `subsets` gives; numbers, or arrays of one shape.
    """
    players = max(game, key=len)
    weights = {size: 1 / (len(players) * math.comb(len(players) - 1, size)) for size in range(len(players))}

    def gains(m):
        for s in subsets(players):
            if m not in s:
                yield weights[len(s)] * (game[tuple(p for p in players if p in s or p == m)] - game[s])

    return {m: sum(gains(m)) for m in players}
