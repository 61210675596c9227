import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxmm.metrics import Reliability
from jaxmm.report import plots, stream_plots
from jaxmm.report.calibration import Calibration, Quality
from jaxmm.report.records import Cell

MODALITIES = ["touch", "smell"]


def cells(axes):
    return {(t.xy[1], t.xy[0]): t.get_text() for t in axes.texts}


def labels(axis):
    return [t.get_text() for t in axis.get_ticklabels()]


def test_task_matrices_have_a_panel_for_each_head_with_its_numbers():
    R = {"fused": np.array([[0.9, 0.0], [0.25, 0.5]]),
         "touch": np.array([[1, np.nan], [0, np.nan]])}
    touch, fused = stream_plots.task_matrices(R, MODALITIES, "title").axes
    assert [a.get_title(loc="left") for a in (touch, fused)] == ["touch", "fused"]
    # Row: after which task. Column: on which task.
    assert cells(fused) == {(0, 0): "90.0", (0, 1): "0.0", (1, 0): "25.0", (1, 1): "50.0"}
    assert cells(touch) == {(0, 0): "100.0", (1, 0): "0.0"}
    np.testing.assert_array_equal(fused.images[0].get_array(), R["fused"])
    assert labels(fused.xaxis) == labels(fused.yaxis) == ["1", "2"]
    assert fused.yaxis_inverted()       # the first task is on top
    dark, light = fused.texts[0].get_color(), fused.texts[1].get_color()
    assert (dark, light) == ("white", plots.INK)


def test_task_matrix_of_all_tasks_at_once_is_a_row():
    axes, = stream_plots.task_matrices({"fused": np.array([[0.5, 0.25, 1]])}, [], "title").axes
    assert list(cells(axes).values()) == ["50.0", "25.0", "100.0"]
    assert labels(axes.xaxis) == ["1", "2", "3"] and labels(axes.yaxis) == []


def test_twenty_tasks_get_short_numbers_and_every_other_label():
    R = np.tril(np.full((20, 20), 0.123))
    axes, = stream_plots.task_matrices({"fused": R}, [], "title").axes
    assert cells(axes)[19, 0] == "12" and labels(axes.xaxis)[:2] == ["1", "3"]
    figure = axes.figure
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in axes.texts[:2]]
    assert boxes[0].x1 < boxes[1].x0        # neighbours do not run into each other


def test_seen_curves_are_over_the_number_of_tasks():
    axes, = stream_plots.seen_curves({"fused": np.array([0.9, 0.5]), "smell": np.array([0.4, 0.3])},
                                     MODALITIES, 0.25, "title").axes
    smell, fused, chance = axes.lines
    assert fused.get_xydata().tolist() == [[1, 90], [2, 50]]
    assert smell.get_ydata() == pytest.approx([40, 30])
    assert chance.get_ydata() == pytest.approx([25, 25])


def test_stability_bars_group_heads_by_metric():
    metrics = {"fused": {"stability": 0.5, "plasticity": 0.8, "trade_off": 0.6},
               "touch": {"stability": np.nan, "plasticity": 0.4, "trade_off": np.nan}}
    axes, = stream_plots.stability_bars(metrics, MODALITIES, "title").axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([50, 40, 80, 60])
    assert labels(axes.xaxis) == ["stability", "plasticity", "trade-off"]
    assert "chance" not in [t.get_text() for t in axes.texts]


def test_recency_bars_stand_beside_the_true_shares():
    figure = stream_plots.recency_bars({"fused": [0.1, 0.9], "touch": [0.5, 0.5]}, [0.25, 0.75],
                                       MODALITIES, "title")
    touch, fused = figure.axes
    assert [b.get_height() for b in fused.patches] == pytest.approx([10, 90])
    assert [b.get_height() for b in touch.patches] == pytest.approx([50, 50])
    assert [s[0, 1] for s in fused.collections[0].get_segments()] == pytest.approx([25, 75])
    assert fused.get_ylim() == touch.get_ylim()


def test_reliability_diagrams_show_filled_bins_before_and_after():
    before = Quality(0.4, 1, 1, Reliability(np.array([0, 2, 6]), np.array([0, 0.5, 0.9]),
                                            np.array([0, 0.25, 0.5])))
    after = Quality(0.125, 1, 1, Reliability(np.array([0, 8, 0]), np.array([0, 0.6, 0]),
                                             np.array([0, 0.5, 0])))
    found = {"fused": Calibration(before, None, None), "touch": Calibration(before, 2.0, after)}
    touch, fused = stream_plots.reliability_diagrams(found, MODALITIES, "title").axes
    assert touch.get_title(loc="left") == "touch: ECE 0.400 → 0.125"
    assert fused.get_title(loc="left") == "fused: ECE 0.400"
    diagonal, first, second = touch.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [100, 100]]
    assert first.get_xydata().tolist() == [[50, 25], [90, 50]]
    assert second.get_xydata().tolist() == [[60, 50]]
    assert to_hex(second.get_color()) == plots.head_looks(["touch"], MODALITIES)["touch"].colour
    sizes = touch.collections[0].get_sizes()
    assert sizes[1] == pytest.approx(3 * sizes[0])
    assert [t.get_text() for t in touch.get_legend().get_texts()] == ["before", "after scaling"]


def test_method_curves_have_bands_and_joint_is_a_level_line():
    def cells(*tasks):
        return {task: Cell(np.mean(x), np.std(x, ddof=1) if len(x) > 1 else None, ())
                for task, x in enumerate(tasks, 1)}

    curves = {"joint": cells([0.9, 0.7]), "er": cells([0.8, 0.6], [0.5, 0.3], [0.4])}
    axes, = stream_plots.method_curves({"memory of 5 examples": curves}, 0.1, "title").axes
    assert axes.get_title(loc="left") == "memory of 5 examples"
    joint, er = axes.lines[:2]
    assert joint.get_ydata() == pytest.approx([80, 80])
    assert er.get_xydata() == pytest.approx(np.array([[1, 70], [2, 40], [3, 40]]))
    band = axes.collections[0].get_paths()[0].vertices
    deviation = 100 * np.std([0.8, 0.6], ddof=1)
    # Only where there is more than one seed.
    assert band[:, 0].max() == 2
    assert band[:, 1].max() == pytest.approx(70 + deviation)
    assert band[:, 1].min() == pytest.approx(40 - deviation)
    legend, = axes.figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["joint", "er"]


def test_many_methods_have_a_panel_each_with_a_curve_for_each_size_of_the_memory():
    def curve(value):
        return {task: Cell(value + task / 100, None, ()) for task in (1, 2)}

    methods = [f"er+replay_batch={i}" for i in range(stream_plots.MOST_CURVES)]
    sgd = curve(0.1)
    curves = {f"memory of {size} examples": {"sgd": sgd} | {m: curve(i / 10 + size / 1000)
              for i, m in enumerate(methods)} for size in (50, 100)}
    figure = stream_plots.method_curves(curves, 0.1, "title")
    panels = {axes.get_title(loc="left"): axes.lines for axes in figure.axes if axes.lines}
    assert list(panels) == ["sgd", *(m.replace("+", "\n+") for m in methods)]
    # The last line of a panel is that of guessing.
    assert [line.get_ydata()[0] for line in panels["sgd"][:-1]] == pytest.approx([11])
    assert [line.get_ydata()[0] for line in panels["er\n+replay_batch=3"][:-1]] == pytest.approx([36, 41])
    legend, = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == list(curves)
