"""What each modality contributes to the predictions of a run, in words, as tables, files and plots."""
import functools
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxmm import escape, files, shapley
from jaxmm.evaluate import contribution as numbers
from jaxmm.evaluate.contribution import VALUES, Game
from jaxmm.keys import named_rng
from jaxmm.report import contribution_plots, plots
from jaxmm.report.tables import csv_text, markdown
from jaxmm.evaluate.measure import Contribution, Options, Pair, curve, measure
from jaxmm.train.setup import Run

ADDITIVE = 1e-4         # distance from its projection up to which a model is called additive
COUNTED = 0.1           # share of the measured bits that shuffled labels may give without a warning
LONGEST_TABLE = 20      # classes; more are in the file alone

Values = Mapping[str, Any]      # by modality


class Report(Contribution):
    """A contribution that is printed as its tables."""
    __slots__ = ()

    def __str__(self) -> str:
        return describe(self)

    def _repr_markdown_(self) -> str:
        return describe(self)


class Estimates(NamedTuple):
    """Numbers of a contribution, or of its replicates, as [R] in place of each."""
    by_modality: dict[str, Values]      # by name of the column
    interactions: dict[Pair, Any]
    cooperation: Any


def estimate(phi: Values, v: Game, accuracy: Game, permuted: Game, used_by_prediction: Values) -> Estimates:
    """All numbers, of the Shapley values, the means v(S), the accuracies A(S), those with other examples'
    features, and the MM-SHAP shares."""
    return Estimates({
        "alone": numbers.alone(v), "lost": numbers.lost(v), "Shapley": phi, "share": numbers.shares(phi),
        "MM-SHAP": used_by_prediction, "perceptual": numbers.lost(permuted),
        "utilization": numbers.utilization(accuracy)}, numbers.interactions(v), numbers.cooperation(v))


def estimates(found: Contribution, seed: int = 0) -> tuple[Estimates, Estimates]:
    """The numbers of a contribution, and their bootstrap replicates [R], all from the same draws.

    Replicates of Shapley values over orders that were drawn are over draws of these too.
    """
    chosen = found.games[found.options.baseline]
    families = {"v": found.game, "accuracy": chosen["correct"], "permuted": found.games["permute"]["correct"],
                "shares": numbers.absolute_shares(shapley.values(chosen["predicted"], found.orders))}
    rng = named_rng(seed, "bootstrap")
    drawn = numbers.resample(
        {(name, key): u for name, family in families.items() for key, u in family.items()}, rng)
    replicates = {name: {key: drawn[name, key] for key in family} for name, family in families.items()}
    measured, v = {name: numbers.means(family) for name, family in families.items()}, replicates["v"]
    phis = numbers.resample_orders(v, found.orders, rng) if found.orders else shapley.values(v)
    return (estimate(shapley.values(measured["v"], found.orders), *measured.values()),
            estimate(phis, *replicates.values()))


def describe(found: Contribution) -> str:
    """The tables and the verdict as Markdown."""
    measured, drawn = estimates(found)
    shown, options = units(found.options.value), found.options
    rows = [{"modality": m} | {name: bounded(UNITS.get(name, shown), values[m], drawn.by_modality[name][m])
                               for name, values in measured.by_modality.items()} for m in found.modalities]
    v = numbers.means(found.game)
    empty = ("the best constant by training labels" if options.baseline == "method" else
             "the model with every modality replaced")
    parts = [
        " ".join(verdict(found, measured, drawn)),
        f"Of the head {escape.code(found.head)}, {len(found.labels)} examples. The value v(S) of a set of modalities "
        f"is {MEANING[options.value]}; an absent modality is {ABSENCE[options.baseline]}. v(empty) is "
        f"{shown(v[()])}, {empty}; v(all) is {shown(v[found.modalities])}. In brackets: 95% intervals by the "
        f"bootstrap over examples{AND_ORDERS if found.orders else ''}.\n\n{markdown(rows, list(rows[0]))}",
        "`alone`: v of the modality by itself; `lost`: what v(all) loses without it; `Shapley`: its mean gain over "
        "all orders, which add up to v(all) - v(empty); `share`: of that sum, where none is negative; `MM-SHAP`: "
        "its share of all effects on the probability of what is predicted, right or wrong; `perceptual`: accuracy "
        "lost when it is that of another example; `utilization`: the share of the accuracy that is lost without it.",
        orders_text(found), pair_text(found, measured, drawn), additive_text(found), baseline_text(found),
        decomposition_text(found)]
    if found.notes:
        parts.append(escape.markdown(f"Left out: {'; '.join(found.notes)}."))
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


MEANING = {"correct": "accuracy, in percent (a tie of t classes counts 1/t)",
           "prob": "the mean probability of the label, in percent",
           "nll": "the mean log-probability of the label, in nats"}
ABSENCE = {"method": "one that the method itself is told is missing", "zero": "a feature of 0",
           "mean": "the mean feature of the training data",
           "permute": f"the feature of another example, on average over {numbers.DRAWS} draws"}


AND_ORDERS = " and, of `Shapley` and `share` and their differences, over orders of the modalities"


def fixed(x: float, digits: int, sign: str = "") -> str:
    """A number with so many decimals; what rounds to 0 is never -0."""
    return f"{round(float(x), digits) + 0.0:{sign}.{digits}f}"


def in_percent(x: float, sign: str = "") -> str:
    """A share in percent."""
    return fixed(100 * x, 1, sign)


def in_nats(x: float, sign: str = "") -> str:
    """A log-probability."""
    return fixed(x, 3, sign)


Unit = Callable[..., str]       # (number, sign "" or "+") -> text
UNITS: dict[str, Unit] = {name: in_percent for name in ("share", "MM-SHAP", "perceptual", "utilization")}


def units(value: str) -> Unit:
    """How a value is shown."""
    return in_nats if value == "nll" else in_percent


def bounded(unit: Unit, x: float, drawn: np.ndarray, sign: str = "") -> str | None:
    """A number with its interval; None for NaN."""
    if np.isnan(x):
        return None
    low, high = numbers.interval(drawn)
    return unit(x, sign) + ("" if np.isnan(low) else f" ({unit(low, sign)} to {unit(high, sign)})")


def holds_zero(drawn: np.ndarray) -> bool:
    """Whether the interval of the replicates [R] has 0 in it."""
    low, high = numbers.interval(drawn)
    return low <= 0 <= high


def verdict(found: Contribution, measured: Estimates, drawn: Estimates) -> list[str]:
    """What the numbers say, in sentences: which modality leads, which are unused, whether they interact."""
    name = {m: escape.code(m) for m in found.modalities}
    unit, phi, phis = units(found.options.value), measured.by_modality["Shapley"], drawn.by_modality["Shapley"]
    first, second, *_ = sorted(found.modalities, key=lambda m: -phi[m])
    ahead = bounded(unit, phi[first] - phi[second], phis[first] - phis[second], "+")
    what = "nats" if found.options.value == "nll" else "points"
    sentences = [f"No modality leads for certain: {name[first]} is ahead of {name[second]} by {ahead} {what}, an "
                 "interval that holds 0." if holds_zero(phis[first] - phis[second]) else
                 f"{name[first]} leads: it contributes {ahead} {what} more than {name[second]}."]
    for m in found.modalities:
        without = [numbers.interval(drawn.by_modality[column][m]) for column in ("lost", "perceptual")]
        if all(low <= 0 <= high for low, high in without):
            sentences.append(f"{name[m]} looks unused: nothing is shown to be lost without it, nor with another "
                             "example's in its place.")
        elif all(high < 0 for _, high in without):
            sentences.append(f"{name[m]} hurts: predictions are better without it, and with another example's in its "
                             "place.")
    return [*sentences, interaction_verdict(found)]


def interaction_verdict(found: Contribution) -> str:
    """A sentence on whether the head uses interaction, if that was measured."""
    if not found.additive:
        return "Whether the model uses interaction was not measured."
    if max(part.distance for part in found.additive) <= ADDITIVE:
        return ("The head is additive: it uses no interaction, whatever the data have; a head that can is "
                "`gated`, `film`, `mlp_head` or `attention_head`.")
    each, gains = numbers.gap(found.additive, found.labels)
    drawn = gap_replicates(gains)
    change = f"{bounded(in_percent, float(np.mean(gains)), drawn, '+')} points"
    if holds_zero(drawn):
        return f"Its accuracy needs no interaction that could be shown: the additive projection loses {change}."
    return (f"It uses interaction: the additive projection loses {change}." if np.mean(each) > 0 else
            f"Its interaction misleads: the additive projection is better, it loses {change}.")


def gap_replicates(gains: np.ndarray, seed: int = 0) -> np.ndarray:
    """Means [R] of the gains over examples drawn with replacement."""
    return numbers.resample({"gap": gains}, named_rng(seed, "bootstrap"))["gap"]


def orders_text(found: Contribution) -> str:
    """The standard errors of Shapley values over orders that were drawn, and where they come from."""
    if not found.orders:
        return ""
    unit, v = units(found.options.value), numbers.means(found.game)
    of_orders, of_examples = numbers.standard_errors(found.game, found.orders)
    rows = [{"modality": m, "Shapley": unit(x),
             "standard error": unit(np.hypot(of_orders[m], of_examples[m])),
             "from orders": unit(of_orders[m]), "from examples": unit(of_examples[m])}
            for m, x in shapley.values(v, found.orders).items()]
    return (f"Shapley values of {len(found.modalities)} modalities are estimates: means over "
            f"{len(found.orders)} of their orders, each drawn with its reverse. Their standard error comes from "
            "the orders and from the examples; more orders (`permutations`) make the first smaller. `share` and "
            f"`MM-SHAP` follow from them; all else needs no orders.\n\n{markdown(rows, list(rows[0]))}")


def pair_text(found: Contribution, measured: Estimates, drawn: Estimates) -> str:
    """A row for each pair: which is ahead, and their interaction index, if that was measured."""
    unit = units(found.options.value)
    phi, phis = measured.by_modality["Shapley"], drawn.by_modality["Shapley"]
    use, uses = measured.by_modality["utilization"], drawn.by_modality["utilization"]
    index = measured.interactions
    rows = [{"pair": f"{a}, {b}", "Shapley, difference": bounded(unit, phi[a] - phi[b], phis[a] - phis[b], "+"),
             "utilization, difference": bounded(in_percent, use[a] - use[b], uses[a] - uses[b], "+")}
            | ({"interaction": bounded(unit, index[a, b], drawn.interactions[a, b], "+")} if index else {})
            for a, b in itertools.combinations(found.modalities, 2)]
    together = bounded(unit, measured.cooperation, drawn.cooperation, "+")
    says = "; `interaction` is the Shapley interaction index" if index else ""
    return (f"Differences are of the first to the second, paired{says}. "
            f"Cooperation of all, v(all) - v(empty) less what each gives alone: {together}.\n\n"
            + markdown(rows, list(rows[0])))


def additive_text(found: Contribution) -> str:
    """What the additive projection loses."""
    if not found.additive:
        return ""
    each, gains = numbers.gap(found.additive, found.labels)
    spread = f", {100 * np.std(each, ddof=1):.1f} between repeats" if len(each) > 1 else ""
    distance = max(part.distance for part in found.additive)
    says = (" It is the model itself, to rounding, as the head is additive; so this says nothing about the data."
            if distance <= ADDITIVE else f" Logits differ by up to {100 * distance:.1f}% of the largest.")
    return (f"The closest additive function (EMAP) loses "
            f"{bounded(in_percent, float(np.mean(gains)), gap_replicates(gains), '+')} points of accuracy "
            f"({len(gains)} examples, {len(each)} repeat{'s' * (len(each) > 1)}{spread}).{says}")


def baseline_text(found: Contribution) -> str:
    """Shapley values by what stands for an absent modality, and the spread of the perceptual score."""
    unit, rows = units(found.options.value), []
    for baseline, games in found.games.items():
        v = numbers.means(games[found.options.value])
        phi = shapley.values(v, found.orders)
        rows.append({"absent is": baseline, "v(empty)": unit(v[()])} | {m: unit(phi[m], "+") for m in phi})
    spread = ", ".join(f"{escape.markdown(m)} {100 * x.std(ddof=1):.1f}" for m, x in found.perceptual.items())
    return ("Shapley values depend on what stands for an absent modality, and so may their order:\n\n"
            + markdown(rows, list(rows[0])) + "\nStandard deviation of the perceptual score over its "
            f"{numbers.DRAWS} permutations, in points: {spread}.")


def decomposition_text(found: Contribution) -> str:
    """Rows for each pair, with those of shuffled labels, and the means over examples."""
    rows, warnings = [], []
    for pair, both in found.pairs.items():
        for title, part in zip((", ".join(pair), "the same, labels shuffled"), both):
            rows.append({"pair": title} | {name: fixed(x, 3) for name, x in zip(PARTS, [*part, part.total])})
        measured, control = both
        if control.total > COUNTED * measured.total:
            warnings.append(f"{' and '.join(pair)}: shuffled labels give {control.total:.3f} of "
                            f"{measured.total:.3f} bits, which is what counting alone makes; take more examples "
                            "or fewer clusters, or the parts by example")
    source = (f"of {found.options.clusters} clusters of the features" if found.options.clusters else
              "of the classes that the readouts predict")
    text = ""
    if rows:
        text = (f"What modalities tell of the label, in bits, {source}: `redundant` both tell, `first` and `second` "
                "only that one of the pair, `synergy` only both together. Estimates of this model's features, not "
                f"of the data.\n\n{markdown(rows, list(rows[0]))}\n")
        text += "".join(escape.markdown(f"Warning: {warning}.") + "\n\n" for warning in warnings)
    rows = [{"pair": ", ".join(pair)} | {name: fixed(x.mean(), 3, "+") for name, x in zip(PARTS, [
        *parts.values(), sum(parts.values())])} for pair, parts in found.by_example.items()]
    return text + ("The same from calibrated probabilities, example by example, on average; synergy below 0 is "
                   f"what the pair loses to the better one alone:\n\n{markdown(rows, list(rows[0]))}")


PARTS = ("redundant", "first", "second", "synergy", "total")


def class_rows(found: Contribution) -> list[dict[str, Any]]:
    """For each class that occurs its number of examples, v(all), and by modality alone, lost and Shapley."""
    rows = []
    for c in np.unique(found.labels):
        v = {s: u[found.labels == c].mean() for s, u in found.game.items()}
        rows.append({"class": found.names[c], "examples": int(np.sum(found.labels == c)),
                     "v(all)": v[found.modalities]} | {
            f"{name} {m}": float(x) for name, of in (
                ("Shapley", shapley.values(v, found.orders)), ("alone", numbers.alone(v)),
                ("lost", numbers.lost(v)))
            for m, x in of.items()} | {"cooperation": float(numbers.cooperation(v))})
    return rows


def example_rows(found: Contribution) -> list[dict[str, Any]]:
    """For each example its Shapley values of every score, and what its modalities tell of the label in bits."""
    games = found.games[found.options.baseline]
    columns = {f"{value}/{m}": x for value in VALUES
               for m, x in shapley.values(games[value], found.orders).items()}
    for (a, b), parts in found.by_example.items():
        titles = ("redundant", f"unique {a}", f"unique {b}", "synergy")
        columns |= {f"bits/{a}, {b}/{title}": x for title, x in zip(titles, parts.values())}
    return [{"id": int(found.ids[i]), "label": found.names[found.labels[i]],
             "prediction": found.names[found.predicted[i]], "probability": float(found.probability[i])}
            | {name: float(x[i]) for name, x in columns.items()} for i in range(len(found.labels))]


def write(run: Run, workdir: pathlib.Path, split: str, options: Options) -> str:
    """The section on contribution: measures it on a split, writes files and plots, and returns the text."""
    batch, known = run.setup.dataset.splits[split], run.setup.dataset.modalities
    found, along = measure(run, batch, options), curve(run, workdir, batch, options)
    classes, examples = class_rows(found), example_rows(found)
    files.write(workdir / "contribution_classes.csv", csv_text(classes, list(classes[0])))
    files.write(workdir / "contribution_examples.csv", csv_text(examples, list(examples[0])))
    title = f"Contribution to {run.setup.config.method.name}, {split}"
    by_baseline = {b: shapley.values(numbers.means(g[options.value]), found.orders)
                   for b, g in found.games.items()}
    plots.save(workdir, "contribution", functools.partial(
        contribution_plots.overview, drawn_numbers(found), by_baseline, found.pairs, known, options.value, title))
    text = (f"On {split} data. {describe(found)}\n![What each modality contributes](contribution.png)\n\n"
            "By class: [contribution_classes.csv](contribution_classes.csv); by example: "
            "[contribution_examples.csv](contribution_examples.csv).\n")
    if len(classes) <= LONGEST_TABLE:
        plots.save(workdir, "contribution_classes", functools.partial(
            contribution_plots.by_class, classes, found.modalities, known, options.value, f"{title}, by class"))
        text += f"\n{class_table(found, classes)}\n![By class](contribution_classes.png)\n"
    if len(along) < 3:
        return text + ("\nFor the curve along training keep more checkpoints: `--config.train.keep_checkpoints=N` "
                       "and, for every n epochs, `--config.train.checkpoint_epochs=n` when training.\n")
    rows = [{"step": step, "v(all)": values["fused"]} | {
        f"Shapley {m}": value for m, value in values.items() if m != "fused"} for step, values in along.items()]
    files.write(workdir / "contribution_training.csv", csv_text(rows, list(rows[0])))
    plots.save(workdir, "contribution_training", functools.partial(
        contribution_plots.along_training, along, known, options.value, f"{title}, along training"))
    return text + ("\n![Along training](contribution_training.png)\n\nAlong training: "
                   "[contribution_training.csv](contribution_training.csv).\n")


def drawn_numbers(found: Contribution) -> dict[str, dict[str, tuple[float, float, float]]]:
    """(number, low, high) by name and modality of what is in the unit of the values."""
    measured, drawn = estimates(found)
    names = ["Shapley", "lost"] + ["perceptual"] * (found.options.value == "correct") + (
        ["alone"] * (found.options.value != "nll"))
    return {name: {m: (measured.by_modality[name][m], *numbers.interval(drawn.by_modality[name][m]))
                   for m in found.modalities} for name in names}


def class_table(found: Contribution, rows: Sequence[Mapping[str, Any]]) -> str:
    """Shapley values by class."""
    unit = units(found.options.value)
    shown = [{"class": row["class"], "examples": row["examples"], "v(all)": unit(row["v(all)"])} | {
        f"Shapley {m}": unit(row[f"Shapley {m}"], "+") for m in found.modalities} | {
        "cooperation": unit(row["cooperation"], "+")} for row in rows]
    return f"By class:\n\n{markdown(shown, list(shown[0]))}"
