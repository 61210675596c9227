"""What each modality gives to a model's predictions: Shapley values, and whether modalities interact.

A game gives every subset S of the modalities the scores u_i(S) of the N examples with only these modalities;
v(S) is their mean. A game of many modalities has only the subsets that some orders of them need, see
`jaxmm.shapley`. A composed example takes each modality from an example of its own, or none: its rows are
int by modality, the number of an example, or one of ABSENT, ZERO and MEAN.

References:
  Shapley, "A value for n-person games", 1953.
  Hu et al., "SHAPE: a unified approach to evaluate the contribution and cooperation of individual modalities",
  IJCAI 2022, arXiv 2205.00302.
  Parcalabescu and Frank, "MM-SHAP", ACL 2023, arXiv 2212.08158.
  Gat et al., "Perceptual score: what data modalities does your model perceive?", NeurIPS 2021.
  Hessel and Lee, "Does my multimodal model learn cross-modal interactions?" (EMAP), EMNLP 2020.
  Grabisch and Roubens, "An axiomatic approach to the concept of interaction among players in cooperative
  games", 1999.
"""
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import chex
import numpy as np

from jaxmm import shapley
from jaxmm.metrics import log_softmax

Subset = shapley.Subset
Game = Mapping[Subset, Any]     # u [N], or v, by subset
Key = TypeVar("Key", bound=Hashable)
Predict = Callable[[Mapping[str, np.ndarray]], np.ndarray]      # rows [B] by modality -> logits [B, C]

ABSENT, ZERO, MEAN = -1, -2, -3     # the method's own mask; a feature of 0; the mean feature in training
VALUES = ("correct", "prob", "nll")
BASELINES = ("method", "zero", "mean", "permute")
DRAWS = 5               # of other examples, with "permute"
REPLICATES = 1000       # of the bootstrap
LEVEL = 0.95            # of intervals
AT_ONCE = 2**14         # composed examples in a call
LOGITS = 2**24          # at most, of them


def scores(logits: chex.Array, labels: chex.Array, predicted: chex.Array) -> dict[str, np.ndarray]:
    """u [N] by name, of logits [N, C].

    "correct" is 1 if the largest logit is the label's, and 1 / t in a tie of t; "prob" is p[y]; "nll" is
    log p[y] in nats; "predicted" is the probability of the classes `predicted`.

    Args:
      logits: [N, C].
      labels: int [N].
      predicted: int [N], what the model predicts from all modalities.
    """
    chex.assert_rank([logits, labels, predicted], [2, 1, 1])
    rows, log_p = np.arange(len(labels)), log_softmax(np.asarray(logits, np.float64))
    best = log_p == log_p.max(axis=1, keepdims=True)
    nll = log_p[rows, labels]
    return {"correct": best[rows, labels] / best.sum(axis=1), "prob": np.exp(nll), "nll": nll,
            "predicted": np.exp(log_p[rows, predicted])}


def needed(modalities: Sequence[str], orders: Sequence[Subset] = ()) -> list[Subset]:
    """All subsets; with orders, those of their Shapley values and of `alone`, `lost` and `cooperation`."""
    if not orders:
        return shapley.subsets(modalities)
    singles = [(m,) for m in modalities]
    others = [tuple(n for n in modalities if n != m) for m in modalities]
    found = {s for order in orders for s in shapley.prefixes(modalities, order)} | {*singles, *others}
    return sorted(found, key=lambda s: (len(s), [modalities.index(m) for m in s]))


def play(predict: Predict, labels: chex.Array, modalities: Sequence[str], absent: Mapping[str, chex.Array],
         empty: chex.Array | None = None, orders: Sequence[Subset] = (),
         ) -> dict[str, dict[Subset, np.ndarray]]:
    """The game of each of the `scores`.

    Args:
      predict: of the model.
      labels: int [N].
      modalities: the players, at most `shapley.MAX_PLAYERS` without orders.
      absent: rows [N] by modality in place of those that a subset lacks.
      empty: logits [C] without any modality, if the model does not predict then.
      orders: of the modalities, see `needed`.
    """
    own = np.arange(len(labels))
    everything = np.asarray(predict(dict.fromkeys(modalities, own)))
    predicted = everything.argmax(axis=1)
    games: dict[str, dict[Subset, np.ndarray]] = {}
    for subset in needed(modalities, orders):
        if len(subset) == len(modalities):
            logits = everything
        elif not subset and empty is not None:
            logits = np.broadcast_to(empty, everything.shape)
        else:
            logits = predict({m: own if m in subset else absent[m] for m in modalities})
        for name, u in scores(logits, labels, predicted).items():
            games.setdefault(name, {})[subset] = u
    return games


def play_permuted(predict: Predict, labels: chex.Array, modalities: Sequence[str], rng: np.random.Generator,
                  draws: int = DRAWS, orders: Sequence[Subset] = (),
                  ) -> tuple[dict[str, dict[Subset, np.ndarray]], dict[str, np.ndarray]]:
    """The games with the features of other examples in place of absent ones, as means over the draws.

    Returns:
      The games, and the perceptual score A(all) - A(m permuted) [draws] by modality, A the accuracy.
    """
    played = []
    for _ in range(draws):
        absent = {m: derangement(len(labels), rng) for m in modalities}
        played.append(play(predict, labels, modalities, absent, orders=orders))
    games = {name: {s: np.mean([g[name][s] for g in played], axis=0) for s in game}
             for name, game in played[0].items()}
    each = [lost({s: u.mean() for s, u in g["correct"].items()}) for g in played]
    return games, {m: np.array([gains[m] for gains in each]) for m in modalities}


def derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation of count >= 2 numbers, drawn among those that leave none in its place."""
    while True:     # about e times
        drawn = rng.permutation(count)
        if (drawn != np.arange(count)).all():
            return drawn


def players(game: Game) -> Subset:
    """All modalities, in their order."""
    return max(game, key=len)


def alone(game: Game) -> dict[str, Any]:
    """v({m})."""
    return {m: game[m,] for m in players(game)}


def lost(game: Game) -> dict[str, Any]:
    """v(all) - v(all - m)."""
    everyone = players(game)
    return {m: game[everyone] - game[tuple(n for n in everyone if n != m)] for m in everyone}


def shares(phi: Mapping[str, Any]) -> dict[str, Any]:
    """phi_m / sum_k phi_k; NaN where one is negative, or all are 0."""
    total = sum(phi.values())
    sound = (np.min(list(phi.values()), axis=0) >= 0) & (total > 0)
    return {m: np.where(sound, x / np.where(sound, total, 1), np.nan) for m, x in phi.items()}


def absolute_shares(phi: Mapping[str, Any]) -> dict[str, Any]:
    """|phi_m| / sum_k |phi_k|, as of MM-SHAP; equal where all are 0."""
    total = sum(map(np.abs, phi.values()))
    return {m: np.where(total > 0, np.abs(x) / np.where(total > 0, total, 1), 1 / len(phi)) for m, x in phi.items()}


def cooperation(game: Game) -> Any:
    """v(all) - v(empty) - sum_m (v({m}) - v(empty)): what modalities give together beyond each alone."""
    return game[players(game)] - game[()] - sum(x - game[()] for x in alone(game).values())


def interactions(game: Game) -> dict[tuple[str, str], Any]:
    """The Shapley interaction index of each pair; of two modalities it is their cooperation.

    There is none in a game that lacks subsets, as it needs all of them.

    I_mn = sum over S without m, n of |S|! (M - |S| - 2)! / (M - 1)! (v(S + mn) - v(S + m) - v(S + n) + v(S))
    """
    everyone = players(game)
    if len(game) < 2 ** len(everyone):
        return {}

    def join(subset, *others):
        return tuple(m for m in everyone if m in subset or m in others)

    def index(m, n):
        rest = [k for k in everyone if k not in (m, n)]
        return sum((game[join(s, m, n)] - game[join(s, m)] - game[join(s, n)] + game[s])
                   / ((len(rest) + 1) * math.comb(len(rest), len(s))) for s in shapley.subsets(rest))

    return {pair: index(*pair) for pair in itertools.combinations(everyone, 2)}


def utilization(accuracy: Game) -> dict[str, Any]:
    """u(m | rest) = (A(all) - A(all - m)) / A(all); NaN where A(all) is 0."""
    whole = accuracy[players(accuracy)]
    return {m: np.where(whole > 0, x / np.where(whole > 0, whole, 1), np.nan) for m, x in lost(accuracy).items()}


def means(game: Game) -> dict[Subset, Any]:
    """v by subset."""
    return {s: u.mean() for s, u in game.items()}


def resample(columns: Mapping[Key, chex.Array], rng: np.random.Generator,
             replicates: int = REPLICATES) -> dict[Key, np.ndarray]:
    """Means [replicates] of numbers [N] over N examples drawn with replacement, the same ones for all columns."""
    table = np.stack([np.asarray(x, np.float64) for x in columns.values()], axis=1)
    rows = len(table)
    found = np.stack([np.bincount(rng.integers(rows, size=rows), minlength=rows) @ table
                      for _ in range(replicates)]) / rows
    return dict(zip(columns, found.T))


def resample_orders(v: Game, orders: Sequence[Subset], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Shapley values [R] by modality of a game of replicates [R], each over as many antithetic pairs as there
    are, drawn from them with replacement, the same ones for all modalities."""
    pairs, (replicates,) = len(orders) // 2, np.shape(v[()])
    shares = rng.multinomial(pairs, np.full(pairs, 1 / pairs), replicates) / pairs
    return {m: np.sum(shares.T * shapley.paired(x), axis=0) for m, x in shapley.gains(v, orders).items()}


def standard_errors(game: Game, orders: Sequence[Subset]) -> tuple[dict[str, float], dict[str, float]]:
    """Those of Shapley values over orders that were drawn: by modality from the orders, and from the examples.

    Orders and examples are drawn independently of each other, so the squares of both add up to that of the
    whole.

    Args:
      game: u [N] by subset, N >= 2.
      orders: in antithetic pairs, two pairs or more.
    """
    def error(x):
        return float(x.std(ddof=1) / math.sqrt(len(x)))

    return ({m: error(shapley.paired(x)) for m, x in shapley.gains(means(game), orders).items()},
            {m: error(x) for m, x in shapley.values(game, orders).items()})


def interval(values: chex.Array) -> tuple[float, float]:
    """The bounds between which the middle 95% of the replicates [R] lie; NaN if one of them is."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


class Additive(NamedTuple):
    """A model beside the closest additive function (EMAP), on some examples."""
    rows: np.ndarray        # int [n], their numbers
    logits: np.ndarray      # [n, C], of the model
    emap: np.ndarray        # [n, C]

    @property
    def distance(self) -> float:
        """The largest difference as a share of the largest logit, both less their means over the examples."""
        size = np.abs(self.logits - self.logits.mean(axis=0)).max()
        return float(np.abs(self.logits - self.emap).max() / size) if size else 0.0


def emap(predict: Predict, modalities: Sequence[str], rows: np.ndarray, rng: np.random.Generator) -> Additive:
    """The empirical multimodally-additive function projection of the logits, on the examples `rows` int [n].

        emap(x) = sum_m E f(x_m, .) - (M - 1) E f,   expectations over independent draws of each modality

    Two modalities are taken in all n^2 pairs. Of more, n draws of all of them serve every example and
    modality, and the last term, so that an additive f is still its own projection. Memory is O(n C).

    Args:
      predict: of the model.
      modalities: two or more.
      rows: of the examples.
      rng: for draws.
    """
    count, own = len(rows), _logits(predict, dict.fromkeys(modalities, rows))
    size = max(1, min(AT_ONCE // count, LOGITS // own.size))
    if len(modalities) == 2:
        a, b = modalities
        first, second = 0.0, []
        for part in chunks(count, size):
            of_first, of_second = np.repeat(rows, len(part)), np.tile(rows[part], count)
            found = _logits(predict, {a: of_first, b: of_second}).reshape(count, len(part), -1)
            first = first + found.sum(axis=1) / count       # of every a, over all b so far
            second.append(found.mean(axis=0))
        projected = first + np.concatenate(second) - first.mean(axis=0)
        return Additive(rows, own, projected)
    drawn = {m: rng.choice(rows, count) for m in modalities}
    total = (1 - len(modalities)) * _logits(predict, drawn).mean(axis=0)
    for m in modalities:
        of_m = [_logits(predict, {n: np.repeat(rows[part], count) if n == m else np.tile(drawn[n], len(part))
                                  for n in modalities}).reshape(len(part), count, -1).mean(axis=1)
                for part in chunks(count, size)]
        total = total + np.concatenate(of_m)
    return Additive(rows, own, total)


def _logits(predict: Predict, rows: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(predict(rows), np.float64)


def chunks(count: int, size: int) -> Iterator[np.ndarray]:
    """The numbers below `count` in parts of at most `size`."""
    return (np.arange(start, min(start + size, count)) for start in range(0, count, size))


def gap(found: Sequence[Additive], labels: np.ndarray) -> tuple[list[float], np.ndarray]:
    """What the accuracy loses by the projection, for each repeat and by example.

    Args:
      found: projections on several drawings of examples.
      labels: int [N] of all examples.

    Returns:
      Accuracy of the model minus that of the projection by repeat; and the same [n] of each example that was
      drawn, as a mean over the repeats that it was in.
    """
    total, times, each = np.zeros(len(labels)), np.zeros(len(labels)), []
    for part in found:
        y = labels[part.rows]
        right, additive = (scores(z, y, y)["correct"] for z in (part.logits, part.emap))
        each.append(float(np.mean(right - additive)))
        total[part.rows] += right - additive
        times[part.rows] += 1
    return each, total[times > 0] / times[times > 0]
