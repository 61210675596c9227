import io
import pathlib
import re

import matplotlib.image
import matplotlib.text
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from jaxmm.report import plots

MODALITIES = ["touch", "smell"]
SCORES = {"fused": {"accuracy": 0.9}, "smell": {"accuracy": 0.25}, "touch": {"accuracy": 0.6}}


def texts(axes):
    return [t.get_text() for t in axes.texts]


def heights(axes):
    return [bar.get_height() for bar in axes.patches]


def test_score_bars_are_in_percent_in_the_order_of_the_data():
    axes, = plots.score_bars(SCORES, MODALITIES, 0.2, "title").axes
    assert heights(axes) == pytest.approx([60, 25, 90])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["touch", "smell", "fused"]
    assert texts(axes) == ["60.0", "25.0", "90.0", "chance"]
    assert axes.lines[0].get_ydata() == pytest.approx([20, 20])
    assert axes.get_title(loc="left") == "title"


def test_a_modality_has_one_colour_whichever_heads_are_there():
    alone = plots.head_looks(["smell"], MODALITIES)
    together = plots.head_looks(SCORES, MODALITIES)
    assert alone["smell"] == together["smell"]
    assert list(together) == ["touch", "smell", "fused"]
    assert len({look.colour for look in together.values()}) == 3


def test_comparison_bars_group_by_method_with_error_bars():
    accuracy = {"one": {"smell": (0.3, 0.05), "touch": (0.5, 0.1)},
                "two": {"fused": (0.8, None), "touch": (0.4, 0.02), "smell": (0.1, 0.0)}}
    figure = plots.comparison_bars(accuracy, MODALITIES, 0.25, "title")
    axes, = figure.axes
    assert heights(axes) == pytest.approx([50, 30, 40, 10, 80])
    colours = [to_hex(bar.get_facecolor()) for bar in axes.patches]
    assert colours[0] == colours[2] and colours[1] == colours[3] and len(set(colours)) == 3
    segments = [c.get_segments()[0] for c in axes.collections]
    assert [s[:, 1].tolist() for s in segments] == [
        pytest.approx(x) for x in ([40, 60], [25, 35], [38, 42], [10, 10])]
    assert texts(axes) == ["50.0", "30.0", "40.0", "10.0", "80.0", "chance"]
    # A group's name stands below its middle, and groups are further apart than their bars.
    centres = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
    assert axes.get_xticks() == pytest.approx([np.mean(centres[:2]), np.mean(centres[2:])])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["one", "two"]
    assert centres[2] - centres[1] > centres[1] - centres[0]
    legend, = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["touch", "smell", "fused"]
    assert [to_hex(h.get_facecolor()) for h in legend.get_patches()] == [
        colours[0], colours[1], colours[4]]


def test_learning_curves_are_over_epochs_and_heads_may_come_late():
    train = [{"step": 4, "loss": 2.0}, {"step": 8, "loss": 1.0}, {"step": 16, "loss": 0.5}]
    evaluations = [{"step": 8, "scores": {"touch": {"accuracy": 0.5}}},
                   {"step": 16, "scores": {"touch": {"accuracy": 0.75}, "fused": {"accuracy": 1}}}]
    left, right = plots.learning_curves(train, evaluations, MODALITIES, [8], 2, 0.1).axes
    assert left.lines[0].get_xydata().tolist() == [[0.5, 2], [1, 1], [2, 0.5]]
    touch, fused, chance = right.lines
    assert touch.get_xydata().tolist() == [[1, 50], [2, 75]]
    assert fused.get_xydata().tolist() == [[2, 100]]
    assert chance.get_ydata() == pytest.approx([10, 10])
    assert fused.get_linewidth() > touch.get_linewidth()
    assert [t.get_text() for t in right.figure.legends[0].get_texts()] == ["touch", "fused"]


def test_learning_curves_of_tasks_of_unequal_length():
    """Two epochs of 5 steps, then two of 10: each epoch is as wide as any other."""
    train = [{"step": s, "loss": 1.0} for s in (5, 10, 20, 30)]
    evaluations = [{"step": 10, "scores": {"touch": {"accuracy": 0.5}}}]
    left, right = plots.learning_curves(train, evaluations, MODALITIES, [5, 10], 2, 0.1).axes
    assert left.lines[0].get_xdata().tolist() == [1, 2, 3, 4]
    assert left.lines[1].get_xdata() == [2, 2]      # where the first task ends
    assert right.lines[0].get_xydata().tolist() == [[2, 50]]


def test_png_shows_the_bars():
    figure = plots.score_bars(SCORES, MODALITIES, 0.2, "title")
    image = matplotlib.image.imread(io.BytesIO(plots.encode(figure)))
    pixels = np.round(255 * image[..., :3]).astype(int) @ [256 ** 2, 256, 1]
    for colour, *_ in plots.head_looks(SCORES, MODALITIES).values():
        assert np.sum(pixels == int(colour[1:], 16)) > 1000


def test_a_method_without_bars_keeps_its_place():
    accuracy = {"one": {"fused": (0.3, None)}, "lost": {}, "two": {"fused": (0.8, None)}}
    axes, = plots.comparison_bars(accuracy, MODALITIES, 0.25, "title").axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["one", "lost", "two"]
    assert np.diff(axes.get_xticks()) == pytest.approx([1.8, 1.8])
    assert heights(axes) == pytest.approx([30, 80])


def test_of_many_modalities_the_first_are_drawn_and_said():
    many = [f"m{i:03d}" for i in range(200)]
    scores = {head: {"accuracy": 0.5} for head in ("fused", "dynamic", *many)}
    shown = [*many[:plots.MOST_MODALITIES], "fused", "dynamic"]
    assert list(plots.head_looks(scores, many)) == shown
    axes, = plots.score_bars(scores, many, 0.2, "title").axes
    assert [t.get_text() for t in axes.get_xticklabels()] == shown
    groups = {"one": {head: (0.5, None) for head in scores}, "two": {"fused": (0.25, None)}}
    axes, = plots.comparison_bars(groups, many, 0.2, "title").axes
    assert len(heights(axes)) == len(shown) + 1
    assert axes.get_xticks() == pytest.approx([(len(shown) - 1) / 2, len(shown) + 0.8])
    assert plots.note(many) == " Plots show the first 16 of 200 modalities, tables all of them."
    assert plots.note(many[:16]) == ""


def test_a_long_picture_has_fewer_pixels_to_the_inch():
    figure = Figure(figsize=(400, 1))
    image = matplotlib.image.imread(io.BytesIO(plots.encode(figure)))
    assert image.shape[1] == plots.LONGEST_SIDE and image.shape[0] in (81, 82)


@pytest.mark.parametrize("name", ["$\\frac{$", "$x$", "a\\$b"])
def test_names_are_drawn_as_they_are(name):
    """Not as formulas, of which the first is none and would end the drawing."""
    title = f"{name} \udcff\x1b on\ntest"
    figure = plots.score_bars({name: {"accuracy": 0.5}}, [name], 0.2, title)
    axes, = figure.axes
    axes.annotate(name, (0, 0))
    figure.legend(axes.patches, [name])
    assert len(plots.encode(figure)) > 1000
    shown = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text()]
    assert not any(t.get_parse_math() for t in shown)
    assert axes.get_title(loc="left") == f"{name} \\udcff\\x1b on\ntest"
    assert [t.get_text() for t in shown].count(name) >= 3       # tick, note and legend


def test_all_plots_are_figures_of_that_kind():
    """No module of reports makes figures by matplotlib itself."""
    folder = pathlib.Path(plots.__file__).parent
    imports = re.compile(r"(from|import) matplotlib.*(figure|pyplot)")
    assert [p.name for p in folder.glob("*.py") if imports.search(p.read_text())] == ["plots.py"]
