"""Shapley values: what each player, such as a modality, contributes to a game's value.

A game gives every subset S of the players a value v(S), a number or an array. Subsets are tuples of names in
the order of the players. Of many players some orders are drawn, and the game needs only their `prefixes`.

References:
  Shapley, "A value for n-person games", 1953.
  Castro, Gomez and Tejada, "Polynomial calculation of the Shapley value based on sampling", 2009.
  Mitchell et al., "Sampling permutations for Shapley value estimation", JMLR 2022 (antithetic pairs).
"""
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmm.errors import UserError

MAX_PLAYERS = 10        # of whom there are 1024 subsets

Subset = tuple[str, ...]


def subsets(players: Sequence[str]) -> list[Subset]:
    """All 2^M subsets of the players, from the empty one to all of them.

    Raises:
      UserError: there are more than `MAX_PLAYERS`.
    """
    if len(players) > MAX_PLAYERS:
        raise UserError(f"{len(players)} modalities have {2 ** len(players)} subsets, and all are needed; "
                        f"expected at most {MAX_PLAYERS} modalities: leave some out, or join them")
    return [s for size in range(len(players) + 1) for s in itertools.combinations(players, size)]


def values(game: Mapping[Subset, Any], orders: Sequence[Subset] = ()) -> dict[str, Any]:
    """The Shapley value of each player, of the type of the game's values.

        phi_m = sum over S without m of s! (M - s - 1)! / M! (v(S + m) - v(S)),  s the size of S

    They add up to v(all) - v(empty).

    Args:
      game: v by subset, for all that `subsets` gives; numbers, or arrays of one shape.
      orders: some that were drawn; then the values are estimates, the means of `gains`, and the game needs
        only their `prefixes`.
    """
    if orders:
        return {m: x.mean(axis=0) for m, x in gains(game, orders).items()}
    players = max(game, key=len)
    weights = {size: 1 / (len(players) * math.comb(len(players) - 1, size)) for size in range(len(players))}

    def weighted(m):
        for s in subsets(players):
            if m not in s:
                yield weights[len(s)] * (game[tuple(p for p in players if p in s or p == m)] - game[s])

    return {m: sum(weighted(m)) for m in players}


def draw_orders(players: Sequence[str], count: int, rng: np.random.Generator) -> list[Subset]:
    """Orders of the players in antithetic pairs: one that is drawn, then its reverse.

    Args:
      players: their names.
      count: of the orders, even.
      rng: for draws.
    """
    drawn = [tuple(players[i] for i in rng.permutation(len(players))) for _ in range(count // 2)]
    return [order for one in drawn for order in (one, one[::-1])]


def prefixes(players: Sequence[str], order: Subset) -> list[Subset]:
    """The subsets of those who come first in an order, from the empty one to all of them."""
    return [tuple(p for p in players if p in order[:size]) for size in range(len(order) + 1)]


def gains(game: Mapping[Subset, Any], orders: Sequence[Subset]) -> dict[str, np.ndarray]:
    """What each player adds to those before it, [K, ...] over the orders.

    Their mean over all M! orders is the Shapley value, and over orders that are drawn an unbiased estimate.
    In each order they add up to v(all) - v(empty), and so do the means.

    Args:
      game: v by subset, for the `prefixes` of the orders; numbers, or arrays of one shape.
      orders: K of them.
    """
    players = max(game, key=len)
    found: dict[str, list] = {m: [] for m in players}
    for order in orders:
        chain = prefixes(players, order)
        for m, before, after in zip(order, chain, chain[1:]):
            found[m].append(game[after] - game[before])
    return {m: np.stack(x) for m, x in found.items()}


def paired(sampled: np.ndarray) -> np.ndarray:
    """Means [K / 2, ...] of antithetic pairs, which are independent of each other, of `gains` [K, ...]."""
    return (sampled[::2] + sampled[1::2]) / 2
