import functools
import io
import pathlib
import re

import matplotlib.image
import matplotlib.text
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from jaxmm.errors import UserError
from jaxmm.report import plots
from jaxmm.report.units import unit

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


@pytest.mark.parametrize("page", [plots.SCREEN, plots.Page(3.25)])
@pytest.mark.parametrize("draw", [
    lambda names, page: plots.comparison_bars({name: {"fused": (0.5, None)} for name in names}, MODALITIES, None, "",
                                              page=page),
    lambda names, page: plots.score_bars({name: {"accuracy": 0.5} for name in names}, names, None, "", page=page)])
@pytest.mark.parametrize("name, touch", [("mla", False), ("frozen_linear_on_distilled", True)])
def test_names_below_bars_are_turned_where_they_would_touch(name, touch, draw, page):
    figure = draw([f"{name}_{i}" for i in range(4)], page)
    labels = figure.axes[0].get_xticklabels()
    assert [label.get_rotation() for label in labels] == [30 * touch] * 4
    FigureCanvasAgg(figure).draw()      # which lays it out
    for label in labels:
        label.set_rotation(0)
    boxes = [label.get_window_extent() for label in labels]
    assert [a.x1 > b.x0 for a, b in zip(boxes, boxes[1:])] == [touch] * 3


def test_a_title_is_broken_into_lines_that_fit():
    figure = plots.comparison_bars({"mla": {"fused": (0.5, None)}}, MODALITIES, None,
                                   "rgbd_shapes: test mean IoU, mean and deviation of 3 seeds")
    FigureCanvasAgg(figure).draw()
    title, = figure.axes[0].findobj(lambda x: isinstance(x, matplotlib.text.Text) and "3 seeds" in x.get_text())
    assert title.get_window_extent().x1 <= figure.bbox.x1


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


def looks_of(heads, modalities):
    looks = plots.head_looks(heads, modalities).values()
    lines = [(look.colour, look.marker, str(look.line)) for look in looks]
    bars = [(look.colour, look.bar(plots.Page(3.25))["hatch"]) for look in looks]
    return lines, bars


@pytest.mark.parametrize("count", [2, 8, 16])
def test_modalities_are_told_apart_in_colour_and_without(count):
    modalities = [f"m{i}" for i in range(count)]
    lines, bars = looks_of([*modalities, "fused", "dynamic"], modalities)
    assert len(set(lines)) == len(set(bars)) == count + 2
    assert len({look[1:] for look in lines[:count]}) == count       # marker and line alone
    methods = [plots.look(i, plots.METHOD_COLOURS) for i in range(20)]
    assert len({(look.marker, str(look.line)) for look in methods}) == 20


PAPER = {
    "bars": lambda modalities, page: plots.comparison_bars(
        {f"method_{i}": {m: (0.5, 0.1) for m in (*modalities, "fused")} for i in range(20)}, modalities,
        0.1, "title", page=page),
    "scores": lambda modalities, page: plots.score_bars(
        {m: {"mae": 1.5} for m in (*modalities, "fused")}, modalities, 2.0, "title", "mae", page=page),
    "curves": lambda modalities, page: plots.learning_curves(
        [{"step": 4, "loss": 1.0}], [{"step": 4, "scores": {m: {"accuracy": 0.5} for m in modalities}}],
        modalities, [4], 1, 0.1, page=page)}


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("modalities", [MODALITIES, [f"m{i}" for i in range(8)]], ids=len)
@pytest.mark.parametrize("width", plots.WIDTHS.values())
def test_figures_for_paper_have_their_width_and_letters_of_seven_points(name, modalities, width):
    figure = PAPER[name](modalities, plots.Page(width))
    figure.draw_without_rendering()
    assert figure.get_size_inches()[0] == width and figure.get_size_inches()[1] < 9.5
    shown = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]
    assert min(t.get_fontsize() for t in shown) >= 7
    box = figure.bbox
    for axes in figure.axes:
        least, most = axes.get_xlim()
        ticks = [t for t in axes.get_xticklabels() if least <= t.get_position()[0] <= most]
        for text in [*ticks, *axes.texts, axes.yaxis.label, axes.title]:
            extent = text.get_window_extent()
            assert not text.get_text() or (extent.x0 >= box.x0 - 1 and extent.x1 <= box.x1 + 1), text


@pytest.mark.parametrize("suffix", plots.FORMATS)
def test_files_for_paper_are_the_same_again_and_have_fonts_that_publishers_take(suffix, tmp_path):
    page = plots.Page(3.25, suffix)
    draw = functools.partial(plots.score_bars, SCORES, MODALITIES, 0.2, "title")
    files = []
    for _ in range(2):
        assert plots.save(tmp_path, "accuracy", draw, page) == "accuracy.png"
        files.append((tmp_path / "figures" / f"accuracy.{suffix}").read_bytes())
    assert files[0] == files[1]
    assert files[0].startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix])
    if suffix == "pdf":
        assert b"/Type3" not in files[0] and b"/TrueType" in files[0] or b"/CIDFontType2" in files[0]
    if suffix == "png":
        assert matplotlib.image.imread(io.BytesIO(files[0])).shape[1] == 975


def test_plots_say_which_modalities_they_leave_out():
    many = [f"m{i:02d}" for i in range(17)]
    for draw in PAPER.values():
        for page in (plots.SCREEN, plots.Page(3.25)):
            titles = [axes.get_title(loc="left") for axes in draw(many, page).axes]
            assert any("first 16 of 17 modalities" in title for title in titles)


def test_errors_are_drawn_from_zero_and_numbers_stand_inside():
    scores = {"one": {"smell": (1.5, 0.25)}, "two": {"fused": (12.0, None)}}
    axes, = plots.comparison_bars(scores, MODALITIES, 3.0, "title", "mae").axes
    assert heights(axes) == pytest.approx([1.5, 12]) and texts(axes) == ["1.500", "12.00", "median"]
    assert axes.get_ylim()[0] == 0 and 12 < axes.get_ylim()[1] < 20
    assert axes.get_ylabel() == "MAE ↓" and axes.lines[-1].get_ydata() == pytest.approx([3, 3])


@pytest.mark.parametrize("page", [plots.SCREEN, plots.Page(3.25)], ids=["screen", "paper"])
@pytest.mark.parametrize("metric, mean, std", [("accuracy", 0.95, 0.4), ("mae", 3.0, 2.0)])
def test_every_number_is_drawn_also_of_a_deviation_beyond_the_axis(page, metric, mean, std):
    """In whichever row of methods it is: all have one axis."""
    scores = {f"method_{i}": {m: (0.5, None) for m in MODALITIES} for i in range(12)}
    scores["method_11"]["smell"] = mean, std
    figure = plots.comparison_bars(scores, MODALITIES, None, "title", metric, page=page)
    assert len(figure.axes) > 1
    # matplotlib draws no note on a point that is outside its axes.
    drawn = [text for axes in figure.axes for text in axes.texts if text.xy[1] <= axes.get_ylim()[1]]
    assert len(drawn) == 24 and max(text.xy[1] for text in drawn) == unit(metric).scale * (mean + std)
    accuracy = {"one": {"smell": (0.9, 0.05)}}      # others keep the limits of shares
    assert plots.comparison_bars(accuracy, MODALITIES, None, "title").axes[0].get_ylim() == (0, 105)


def test_the_style_of_plots_is_theirs_alone():
    before = dict(matplotlib.rcParams)
    plots.encode(plots.score_bars(SCORES, MODALITIES, 0.2, "title", page=plots.Page(3.25)))
    assert dict(matplotlib.rcParams) == before


def test_a_page_is_named_by_its_format_and_width():
    assert plots.parse_page("", "column") is None
    assert plots.parse_page("svg", "page") == plots.Page(6.75, "svg")
    for figures, width, message in (("eps", "column", "--figures.*eps.*png, pdf, svg"),
                                    ("pdf", "wide", "--width.*wide.*column, page")):
        with pytest.raises(UserError, match=message):
            plots.parse_page(figures, width)
