import re

import numpy as np
import pytest

from jaxmm import shapley
from jaxmm.evaluate import contribution as numbers
from jaxmm.evaluate.contribution import Additive
from jaxmm.evaluate.decomposition import Decomposition
from jaxmm.report import contribution, contribution_plots
from jaxmm.report.contribution import Report, class_rows, describe, example_rows
from jaxmm.evaluate.measure import Contribution, Options

PAIR = ("audio", "visual")
ONES, ZEROS = np.ones(40), np.zeros(40)


def made(both, audio, visual, empty=ZEROS, **changed):
    """A contribution of 40 examples with these u by subset, whatever the baseline and score."""
    game = {(): empty, ("audio",): audio, ("visual",): visual, PAIR: both}
    games = {b: dict.fromkeys(("correct", "prob", "nll", "predicted"), game) for b in ("method", "permute")}
    labels = np.arange(40) % 2
    parts = ("redundant", "unique_1", "unique_2", "synergy")
    return Report(*Contribution(
        Options(), "fused", PAIR, ("cat", "=dog"), np.arange(100, 140), labels, 1 - labels, np.full(40, 0.25), games,
        {m: np.array([0.1, 0.3]) for m in PAIR}, [], {}, {PAIR: {p: np.full(40, 0.5) for p in parts}}, [],
    )._replace(**changed))


def verdict(found):
    return describe(found).splitlines()[0]


def test_the_table_by_hand():
    """v(empty) .25, .6, .5, v(all) .8, as in tests/evaluate/test_contribution.py."""
    def first(share):
        return (np.arange(40) < 40 * share).astype(float)

    text = str(made(first(0.8), first(0.6), first(0.5), first(0.25)))
    header, _, audio, visual = re.findall(r"^\|.*\|$", text, re.MULTILINE)[:4]
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        "modality", "alone", "lost", "Shapley", "share", "MM-SHAP", "perceptual", "utilization"]
    for row, expected in ((audio, "60.0 30.0 32.5 59.1 None 30.0 37.5"), (visual, "50.0 20.0 22.5 40.9 None 20.0 25.0")):
        for cell, number in zip(row.split("|")[2:-1], expected.split()):
            assert number == "None" or cell.split()[0] == number
            low, high = map(float, re.search(r"\((.*) to (.*)\)", cell).groups())
            assert low <= float(cell.split()[0]) <= high and low < high
    assert "v(empty) is 25.0, the best constant by training labels; v(all) is 80.0" in text
    assert re.search(r"what each gives alone: -5\.0 \(", text)
    assert re.search(r"\| audio, visual \| +\+10\.0 \(.*\+12\.5 \(.* -5\.0 \(", text)
    assert "audio 14.1, visual 14.1" in text        # points, of 0.1 and 0.3


def test_standard_errors_over_orders_stand_beside_the_values():
    """audio gains .35 before visual and .30 after it, so +- .025 of two pairs; examples alone give the rest."""
    def first(share):
        return (np.arange(40) < 40 * share).astype(float)

    games = (first(0.8), first(0.6), first(0.5), first(0.25))
    assert "from orders" not in str(made(*games))
    found = made(*games, orders=[PAIR, PAIR, PAIR[::-1], PAIR[::-1]])
    text, phi = str(found), found.phi["audio"]
    assert "means over 4 of their orders, each drawn with its reverse" in text
    of_examples = 100 * phi.std(ddof=1) / np.sqrt(40)
    whole = np.hypot(2.5, of_examples)
    assert re.search(rf"\| audio +\| +32\.5 \| +{whole:.1f} \| +2\.5 \| +{of_examples:.1f} \|", text)
    assert "the bootstrap over examples and, of `Shapley` and `share` and their differences, over orders" in text
    np.testing.assert_allclose([row["correct/audio"] for row in example_rows(found)], phi)
    assert sum(row["Shapley audio"] for row in class_rows(found)) / 2 == pytest.approx(0.325)


def test_intervals_of_many_modalities_are_over_orders_too():
    """A game that is the same for all examples has no other spread; the interaction index needs all subsets."""
    names = ("a", "b", "c", "d")
    orders = [names, names[::-1], ("b", "d", "a", "c"), ("c", "a", "d", "b")]
    game = {s: np.full(40, float(s == names)) for s in numbers.needed(names, orders)}
    games = {b: dict.fromkeys(("correct", "prob", "nll", "predicted"), game) for b in ("method", "permute")}
    found = made(ONES, ONES, ONES)._replace(modalities=names, games=games, orders=orders,
                                            perceptual={m: np.zeros(2) for m in names})
    measured, drawn = contribution.estimates(found)
    assert measured.interactions == {} and "interaction index" not in str(found)
    phi, phis = measured.by_modality["Shapley"], drawn.by_modality["Shapley"]
    assert phi == {"a": 0.25, "b": 0.25, "c": 0.25, "d": 0.25}
    assert set(phis["a"]) == {0, 0.25, 0.5}         # in one pair of the two a comes last in one order of both
    assert set(measured.by_modality["lost"].values()) == {1} and set(drawn.by_modality["lost"]["a"]) == {1}
    np.testing.assert_allclose(sum(phis.values()), 1)
    assert "No modality leads for certain: `a` is ahead of `b` by +0.0 (-50.0 to +50.0) points" in str(found)


def test_which_modality_leads():
    assert verdict(made(ONES, ONES, ZEROS)).startswith("`audio` leads: it contributes +100.0 (+100.0 to +100.0) points")
    mixed = (np.arange(40) < 20).astype(float)
    assert verdict(made(ONES, mixed, 1 - mixed)).startswith("No modality leads for certain: ")
    nats = made(ONES, ONES, ZEROS, options=Options(value="nll"))
    assert "+1.000 (+1.000 to +1.000) nats more than `visual`" in verdict(nats)


def test_which_modality_is_unused_or_hurts():
    assert "`visual` looks unused" in verdict(made(ONES, ONES, ZEROS))
    assert "`audio` looks unused" not in verdict(made(ONES, ONES, ZEROS))
    assert "`visual` hurts: predictions are better without it" in verdict(made(ZEROS, ONES, ZEROS))


@pytest.mark.parametrize("logits, emap, expected", [
    ((1, 0), (1, 0), "The head is additive: it uses no interaction"),
    ((1, 0), (0, 1), r"It uses interaction: the additive projection loses \+100.0"),
    ((0, 1), (1, 0), r"Its interaction misleads: .* it loses -100.0"),
    ((1, 0), (2, 0), "Its accuracy needs no interaction that could be shown")])
def test_whether_the_head_uses_interaction(logits, emap, expected):
    labels = np.arange(40) % 2
    z, projected = (np.stack([np.where(labels == c, *pair) for c in (0, 1)], 1) for pair in (logits, emap))
    found = made(ONES, ONES, ONES, additive=[Additive(np.arange(40), z, projected)])
    assert re.search(expected, verdict(found))
    assert "to rounding" in str(found) if logits == emap else "Logits differ by up to" in str(found)


def test_shuffled_labels_that_tell_as_much_are_warned_of():
    measured, control = Decomposition(0.5, 0.25, 0.125, 0.125), Decomposition(0.0, 0.0, 0.0, 0.4)
    text = str(made(ONES, ONES, ONES, pairs={PAIR: (measured, control)}))
    assert re.search(r"\| audio, visual +\| +0\.500 \| 0\.250 \| +0\.125 \| +0\.125 \| 1\.000 \|", text)
    assert "Warning: audio and visual: shuffled labels give 0.400 of 1.000 bits" in text
    few = Decomposition(0.0, 0.0, 0.0, 0.05)
    assert "Warning" not in str(made(ONES, ONES, ONES, pairs={PAIR: (measured, few)}))
    assert "Left out: a, which is b." in str(made(ONES, ONES, ONES, notes=["a, which is b"]))


def test_rows_by_class_and_by_example():
    cat = (np.arange(40) % 2 == 0).astype(float)
    found = made(ONES, cat, ZEROS)
    by_class = class_rows(found)
    assert [(row["class"], row["examples"], row["Shapley audio"], row["alone audio"], row["lost visual"],
             row["cooperation"]) for row in by_class] == [("cat", 20, 1, 1, 0, 0), ("=dog", 20, 0.5, 0, 1, 1)]
    rows = example_rows(found)
    assert len(rows) == 40
    assert rows[1] == {"id": 101, "label": "=dog", "prediction": "cat", "probability": 0.25} | {
        f"{value}/{m}": 0.5 for value in ("correct", "prob", "nll") for m in PAIR} | {
        f"bits/audio, visual/{part}": 0.5 for part in ("redundant", "unique audio", "unique visual", "synergy")}
    np.testing.assert_allclose([row["nll/audio"] for row in rows], shapley.values(found.game)["audio"])


@pytest.mark.parametrize("value, names", [("correct", ["Shapley", "lost", "perceptual", "alone"]),
                                          ("prob", ["Shapley", "lost", "alone"]), ("nll", ["Shapley", "lost"])])
def test_what_is_drawn_together_has_one_unit(value, names):
    found = contribution.drawn_numbers(made(ONES, ONES, ZEROS, options=Options(value=value)))
    assert list(found) == names
    assert found["Shapley"] == {"audio": (1, 1, 1), "visual": (0, 0, 0)}


def test_numbers_that_round_to_nothing_have_no_sign():
    assert contribution.in_percent(-1e-9) == "0.0" and contribution.in_nats(-1e-5, "+") == "+0.000"


def test_plots_have_the_numbers():
    bounds = {"Shapley": {"audio": (0.3, 0.2, 0.4), "visual": (-0.1, -0.2, 0.0)}}
    parts = Decomposition(0.5, 0.25, 0.0, 0.125)
    figure = contribution_plots.overview(bounds, {"method": {"audio": 0.3, "visual": -0.1},
                                                  "zero": {"audio": 0.1, "visual": 0.2}},
                                         {PAIR: (parts, parts)}, PAIR, "correct", "title")
    left, middle, right = figure.axes
    assert [p.get_height() for p in left.patches] == pytest.approx([30, -10])
    assert [p.get_height() for p in middle.patches] == pytest.approx([30, 10, -10, 20])
    assert [p.get_width() for p in right.patches] == pytest.approx([0.5, 0.25, 0, 0.125] * 2)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [*PAIR, *contribution_plots.PARTS]
    assert len(contribution_plots.overview(bounds, {"method": {"audio": 0.3}}, {}, PAIR, "nll", "").axes) == 2
    axes, = contribution_plots.by_class([{"class": "cat", "Shapley audio": 0.5, "Shapley visual": 0.25}], PAIR, PAIR,
                                        "nll", "title").axes
    assert [p.get_width() for p in axes.patches] == [0.5, 0.25]
    curve = {2: {"audio": 0.1, "visual": 0.2, "fused": 0.6}, 4: {"audio": 0.3, "visual": 0.2, "fused": 0.9}}
    axes, = contribution_plots.along_training(curve, PAIR, "correct", "title").axes
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_allclose(lines["audio"], [[2, 10], [4, 30]])
    np.testing.assert_allclose(lines["v(all)"], [[2, 60], [4, 90]])
