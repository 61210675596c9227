"""What each modality contributes to a run's predictions on a split, measured."""
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxmm import shapley
from jaxmm.batch import Batch, batch_size
from jaxmm.data.rows import select
from jaxmm.errors import UserError, check_at_least, check_choice
from jaxmm.evaluate import contribution, decomposition
from jaxmm.evaluate.contribution import ABSENT, BASELINES, MEAN, VALUES, ZERO, Additive, Game, Predict, Subset
from jaxmm.evaluate.decomposition import Decomposition
from jaxmm.keys import named_rng
from jaxmm.metrics import log_prior, log_softmax
from jaxmm.state.calibration import fit_temperature
from jaxmm.task import need_classes
from jaxmm.evaluate.composed import Fused, compile_head, predict_from_features, predict_from_inputs
from jaxmm.train.predictions import predict_split, split_features
from jaxmm.train.restore import restore_each
from jaxmm.train.scores import main_head
from jaxmm.train.setup import Run

ROOM = 2**24            # scores u_i(S) of a game; of more examples some are drawn
PERMUTATIONS = 64       # orders of more than ten modalities
PROJECTED = 500         # examples, or draws, of a projection
REPEATS = 3             # of it

Pair = tuple[str, str]
compiled_fit = jax.jit(fit_temperature)


class Options(NamedTuple):
    """What is measured."""
    baseline: str = "method"    # what stands for an absent modality, one of BASELINES; all are measured, but tables
                                # and files are of this one
    value: str = "correct"      # what they are about, one of VALUES
    clusters: int = 0           # k-means clusters of features that the decomposition takes; 0: readouts' classes
    permutations: int = PERMUTATIONS    # orders that the Shapley values of more than ten modalities are means
                                        # over; even, as each is drawn with its reverse


class Contribution(NamedTuple):
    """What was measured on N examples."""
    options: Options
    head: str
    modalities: Subset
    names: tuple[str, ...]              # of the classes
    ids: np.ndarray                     # [N]
    labels: np.ndarray                  # int [N]
    predicted: np.ndarray               # int [N]
    probability: np.ndarray             # [N], of the label
    games: Mapping[str, Mapping[str, Game]]     # u [N] by baseline, score and subset
    perceptual: Mapping[str, np.ndarray]    # [draws] by modality
    additive: list[Additive]            # repeats; none where the method needs its inputs
    pairs: Mapping[Pair, tuple[Decomposition, Decomposition]]       # measured, and under shuffled labels
    by_example: Mapping[Pair, dict[str, np.ndarray]]    # bits [N], see `decomposition.by_example`
    notes: list[str]                    # what was left out, and why
    orders: Sequence[Subset] = ()       # that Shapley values are means over; none where they are exact

    @property
    def game(self) -> Game:
        """u [N] of the options, by subset."""
        return self.games[self.options.baseline][self.options.value]

    @property
    def phi(self) -> dict[str, np.ndarray]:
        """Shapley values [N] by modality, of each example."""
        return shapley.values(self.game, self.orders)


class Rows(NamedTuple):
    """Rows that have all modalities, and what a run predicts of them."""
    split: Batch
    outputs: Mapping[str, np.ndarray]   # [N, C] by head
    predict: Predict                    # composed examples


def measure(run: Run, split: Batch, options: Options = Options(), seed: int = 0) -> Contribution:
    """What each modality of a run contributes on a split, over the rows that have all of them.

    Args:
      run: a classification of two modalities or more, with its training data.
      split: with labels.
      options: see `Options`.
      seed: of all draws.

    Raises:
      UserError: an option that does not exist or fit, another task, one modality, or fewer than two rows that
        have all.
    """
    setup, notes = run.setup, []
    modalities, fused = used(run), compile_head(setup)
    check_options(run, options, fused)
    rng, orders = named_rng(seed, "contribution"), draw_orders(modalities, options, seed)
    chosen = choose_rows(split, modalities, rng, notes, orders)
    rows = open_rows(run, chosen, fused, mean_features(run, fused))
    labels, logits = rows.split["label"], rows.outputs[main_head(rows.outputs)]
    games: dict[str, Mapping[str, Game]] = {
        baseline: play(run, rows, baseline, orders)
        for baseline in (["method", "zero", "mean"] if fused else ["method"])}
    games["permute"], perceptual = contribution.play_permuted(rows.predict, labels, modalities, rng,
                                                              orders=orders)
    if orders:
        notes.append(f"the interaction index of pairs, which needs all {2 ** len(modalities)} subsets of "
                     f"{len(modalities)} modalities")
    if not fused:
        notes.append(f"{setup.config.method.name} does not predict from features of each modality alone, so "
                     "the baselines zero and mean are left out, and the additive projection too")
    values = (clusters(run, rows, options.clusters, seed) if options.clusters else
              {m: z.argmax(axis=1) for m, z in readouts(rows, modalities, notes).items()})
    probability = np.exp(log_softmax(logits.astype(np.float64)))[np.arange(len(labels)), labels]
    return Contribution(
        options, main_head(rows.outputs), modalities, setup.task.names, rows.split["id"], labels,
        logits.argmax(axis=1), probability, games, perceptual,
        project(rows, modalities, rng) if fused else [], decompose(values, labels, rng, notes),
        information_by_example(run, rows, fused, notes), notes, orders)


def used(run: Run) -> Subset:
    """The modalities of a run.

    Raises:
      UserError: it is not a classification, or of one modality alone.
    """
    need_classes(run.setup.task, "the contribution of modalities", "leave it out")
    modalities = tuple(m for m in run.setup.spec.modalities if m in run.state.params)
    if len(modalities) < 2:
        raise UserError(f"the contribution of modalities is of two or more, and this run has only "
                        f"{modalities[0]}; name a run of several")
    return modalities


def check_options(run: Run, options: Options, fused: Fused | None) -> None:
    """Raises UserError for an option that does not exist, or a feature as baseline where there is none of each
    modality alone."""
    check_choice("baseline", options.baseline, BASELINES)
    check_choice("value", options.value, VALUES)
    check_at_least("clusters", options.clusters, 0)
    if not fused and options.baseline in ("zero", "mean"):
        raise UserError(f"baseline={options.baseline} is a feature in place of another, and "
                        f"{run.setup.config.method.name} does not predict from features of each modality alone; "
                        "choose method or permute")


def draw_orders(modalities: Subset, options: Options, seed: int) -> list[Subset]:
    """Orders of more modalities than `shapley.MAX_PLAYERS`; none of fewer, which have exact values.

    Raises:
      UserError: a number of orders that is odd or too small for a standard error, or one that is not asked for.
    """
    count, most = options.permutations, shapley.MAX_PLAYERS
    if len(modalities) <= most:
        if count != PERMUTATIONS:
            raise UserError(f"permutations={count} is for more than {most} modalities; Shapley values of "
                            f"{len(modalities)} are exact: leave it out")
        return []
    if count < 4 or count % 2:
        raise UserError(f"permutations={count}; expected an even number of at least 4: orders are drawn with "
                        "their reverse, and a standard error takes two such pairs")
    return shapley.draw_orders(modalities, count, named_rng(seed, "orders"))


def choose_rows(split: Batch, modalities: Sequence[str], rng: np.random.Generator, notes: list[str],
                orders: Sequence[Subset] = ()) -> Batch:
    """The rows that have all modalities or, if their games are too large, as many as there is room for.

    Raises:
      UserError: there are fewer than two.
    """
    there = np.flatnonzero(np.all([split["present"][m] for m in modalities], axis=0))
    rows, room = batch_size(split), ROOM // len(contribution.needed(modalities, orders))
    if len(there) < 2:
        raise UserError(f"{len(there)} of {rows} rows have all of {', '.join(modalities)}; the contribution of "
                        "modalities is measured on such rows, two at least: choose another split, or paired data")
    if len(there) < rows:
        notes.append(f"{rows - len(there)} of {rows} rows, which lack a modality")
    if len(there) > room:
        what = "as many subsets as the orders need are" if orders else "every subset of the modalities is"
        notes.append(f"all but {room} rows, which were drawn: {what} predicted for each")
        there = np.sort(rng.choice(there, room, replace=False))
    return split if len(there) == rows else select(split, there)


def open_rows(run: Run, split: Batch, fused: Fused | None, means: Mapping[str, np.ndarray]) -> Rows:
    """Rows that have all modalities, with what predicts composed examples of them."""
    setup, state = run.setup, run.state
    predict = (predict_from_features(fused, setup, state, split, means) if fused else
               predict_from_inputs(setup, state, split))
    return Rows(split, predict_split(setup, state, split), predict)


def mean_features(run: Run, fused: Fused | None) -> dict[str, np.ndarray]:
    """The mean [s] of the training features of each modality, over the rows that have it; none without a head
    on features."""
    if not fused:
        return {}
    train = run.setup.dataset.splits["train"]
    features = split_features(run.setup, run.state, train)
    return {m: features[m][train["present"][m]].mean(axis=0, dtype=np.float64).astype(np.float32)
            for m in used(run)}


def play(run: Run, rows: Rows, baseline: str, orders: Sequence[Subset],
         ) -> dict[str, dict[Subset, np.ndarray]]:
    """The games of one baseline that draws nothing."""
    train, labels = run.setup.dataset.splits["train"], rows.split["label"]
    code = {"method": ABSENT, "zero": ZERO, "mean": MEAN}[baseline]
    empty = log_prior(train["label"], run.setup.task.size) if baseline == "method" else None
    modalities = used(run)
    return contribution.play(rows.predict, labels, modalities, dict.fromkeys(modalities, np.full(len(labels), code)),
                             empty, orders)


def project(rows: Rows, modalities: Subset, rng: np.random.Generator) -> list[Additive]:
    """Additive projections on examples drawn; of two modalities and few examples there is nothing to draw."""
    count = batch_size(rows.split)
    repeats = 1 if count <= PROJECTED and len(modalities) == 2 else REPEATS
    return [contribution.emap(rows.predict, modalities, np.sort(rng.choice(
        count, min(count, PROJECTED), replace=False)), rng) for _ in range(repeats)]


def decompose(values: Mapping[str, np.ndarray], labels: np.ndarray, rng: np.random.Generator, notes: list[str],
              ) -> dict[Pair, tuple[Decomposition, Decomposition]]:
    """The information of each pair, measured and under shuffled labels, from discrete values int [N] by modality."""
    found = {}
    for a, b in itertools.combinations(values, 2):
        count = decomposition.cells(values[a], values[b], labels)
        if count > decomposition.CELLS:
            notes.append(f"the decomposition of {a} and {b}, as {count} combinations of values and labels are "
                         f"more than {decomposition.CELLS}; that by example stands for it")
        else:
            joint = decomposition.frequencies(values[a], values[b], labels)
            found[a, b] = (decomposition.decompose(joint),
                           decomposition.shuffled(values[a], values[b], labels, rng))
    return found


def readouts(rows: Rows, modalities: Sequence[str], notes: list[str]) -> dict[str, np.ndarray]:
    """Logits [N, C] from each modality: its own head or, where a method has none, the main one without the others."""
    if headless := [m for m in modalities if m not in rows.outputs]:
        note = f"readouts of {', '.join(headless)}, for which the main head with this modality alone stands"
        notes += [note] * (note not in notes)
    return {m: rows.outputs[m] if m in rows.outputs else only(rows, modalities, [m]) for m in modalities}


def only(rows: Rows, modalities: Sequence[str], kept: Sequence[str]) -> np.ndarray:
    """Logits [N, C] of the main head with some of the modalities."""
    count = batch_size(rows.split)
    return rows.predict({m: np.arange(count) if m in kept else np.full(count, ABSENT) for m in modalities})


def clusters(run: Run, rows: Rows, count: int, seed: int) -> dict[str, np.ndarray]:
    """The k-means cluster int [N] of each feature, by modality; centres are those of the training features.

    Raises:
      UserError: fewer training rows than clusters.
    """
    train = run.setup.dataset.splits["train"]
    known, new = (split_features(run.setup, run.state, x) for x in (train, rows.split))
    found = {}
    for m in used(run):
        there = known[m][train["present"][m]]
        if len(there) < count:
            raise UserError(f"clusters={count}: {len(there)} training rows have {m}; expected at most so many")
        found[m] = decomposition.cluster(there, new[m], count, seed)
    return found


def information_by_example(run: Run, rows: Rows, fused: Fused | None, notes: list[str],
                           ) -> dict[Pair, dict[str, np.ndarray]]:
    """What the modalities of each example tell of its label, in bits [N] by pair and part.

    Probabilities are those of readouts, and of the main head with the pair alone; each is calibrated by a
    temperature on the validation rows that have all modalities.
    """
    modalities, splits, labels = used(run), run.setup.dataset.splits, rows.split["label"]
    logits = evidence(rows, modalities, notes)
    val = splits.get("val")
    there = np.all([val["present"][m] for m in modalities], axis=0) if val else np.zeros(0, bool)
    if val and there.any():
        known = evidence(open_rows(run, select(val, np.flatnonzero(there)), fused, {}), modalities, notes)
        logits = {s: z / float(compiled_fit(known[s], val["label"][there])) for s, z in logits.items()}
    else:
        notes.append("calibration of the probabilities by example, as no validation row has all modalities")
    prior = log_prior(splits["train"]["label"], run.setup.task.size)
    told = {s: (log_softmax(z.astype(np.float64))[np.arange(len(labels)), labels] - prior[labels]) / np.log(2)
            for s, z in logits.items()}
    return {(a, b): decomposition.by_example(told[a,], told[b,], told[a, b])
            for a, b in itertools.combinations(modalities, 2)}


def evidence(rows: Rows, modalities: Subset, notes: list[str]) -> dict[Subset, np.ndarray]:
    """Logits [N, C] from each modality and each pair of them."""
    single = {(m,): z for m, z in readouts(rows, modalities, notes).items()}
    return single | {pair: only(rows, modalities, pair) for pair in itertools.combinations(modalities, 2)}


def curve(run: Run, workdir: pathlib.Path, split: Batch, options: Options, seed: int = 0,
          ) -> dict[int, dict[str, float]]:
    """By step of every checkpoint up to that of the run: Shapley values by modality, and v(all) as "fused"."""
    modalities, fused, last = used(run), compile_head(run.setup), int(run.setup.programs.fetch(run.state).step)
    orders = draw_orders(modalities, options, seed)
    chosen, found = choose_rows(split, modalities, named_rng(seed, "contribution"), [], orders), {}
    earlier = ((step, old) for step, old in restore_each(run, workdir) if step < last)
    for step, at in [*earlier, (last, run)]:
        rows = open_rows(at, chosen, fused, mean_features(at, fused) if options.baseline == "mean" else {})
        rng = named_rng(seed, "curve")
        games = (contribution.play_permuted(rows.predict, chosen["label"], modalities, rng, orders=orders)[0]
                 if options.baseline == "permute" else play(at, rows, options.baseline, orders))
        v = contribution.means(games[options.value])
        phi = {m: float(x) for m, x in shapley.values(v, orders).items()}
        found[step] = phi | {"fused": float(v[modalities])}
    return found
