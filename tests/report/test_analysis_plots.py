import numpy as np
import pytest
from matplotlib.colors import to_hex

from jaxmm.report import analysis_plots, plots

MODALITIES = ["touch", "smell"]


def test_probe_curves_are_solid_for_the_run_and_dashed_for_what_it_is_compared_with():
    curves = {"both": {"smell": {2: 0.1, 4: 0.2, 6: 0.3}, "touch": {2: 0.5, 4: 0.6, 6: 0.7}},
              "smell alone": {"smell": {3: 0.4, 6: 0.9}},
              "touch alone": {"touch": {1: 0.2, 3: 0.4, 5: 0.8}}}
    axes, = analysis_plots.probe_curves(curves, MODALITIES, 0.25, "title").axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["smell"].get_xydata().tolist() == [[2, 10], [4, 20], [6, 30]]
    assert lines["smell alone"].get_ydata() == pytest.approx([90, 90])      # too few: its last one
    assert lines["touch alone"].get_ydata() == pytest.approx([20, 40, 80])
    colours = {m: x.colour for m, x in plots.head_looks(MODALITIES, MODALITIES).items()}
    assert {label: line.get_color() for label, line in lines.items() if "_" not in label} == {
        "smell": colours["smell"], "touch": colours["touch"], "smell alone": colours["smell"],
        "touch alone": colours["touch"]}
    assert lines["smell"].get_linestyle() == "-" != lines["smell alone"].get_linestyle()


def test_feature_planes_show_features_and_means_a_panel_for_each_width():
    plane = {"smell": np.array([[0.0, 1.0], [2.0, 3.0]]), "touch": np.array([[5.0, 5.0]])}
    figure = analysis_plots.feature_planes([plane, {"touch": np.zeros((1200, 2))}], MODALITIES, "t")
    first, second = figure.axes
    offsets = [c.get_offsets().tolist() for c in first.collections]
    assert offsets == [[[0, 1], [2, 3]], [[5, 5]], [[1, 2]], [[5, 5]]]
    assert len(second.collections[0].get_offsets()) == analysis_plots.MOST_POINTS
    colours = {m: x.colour for m, x in plots.head_looks(MODALITIES, MODALITIES).items()}
    assert to_hex(first.collections[2].get_facecolor()[0]) == colours["smell"]


def test_class_gains_name_the_classes_that_beat_the_sum():
    best, fused = np.array([0.5, 0.2, 0.6, np.nan]), np.array([0.75, 0.9, 0.5, np.nan])
    figure = analysis_plots.class_gains(best, fused, np.array([False, True, False, False]),
                                        ("cat", "dog", "eel", "fox"), "title")
    axes, = figure.axes
    assert [c.get_offsets().tolist() for c in axes.collections] == [[[20, 90]], [[50, 75]],
                                                                    [[60, 50]]]
    assert [t.get_text() for t in axes.texts] == ["dog"]
    legend, = figure.legends
    assert [t.get_text()[-3:] for t in legend.get_texts()] == 3 * ["(1)"]


def test_robustness_has_a_panel_for_each_way_to_be_bad():
    curves = {"smell": np.array([0.9, 0.5]), "fused": np.array([1.0, np.nan])}
    figure = analysis_plots.robustness_curves(
        {"noise on smell": ((0, 2), curves), "missing at random": ((0, 0.5), curves)},
        MODALITIES, 0.5, "title")
    noise, missing = figure.axes
    assert noise.get_title(loc="left") == "noise on smell"
    assert noise.lines[0].get_xydata().tolist() == [[0, 90], [2, 50]]
    assert missing.lines[0].get_xdata().tolist() == [0, 0.5]
    assert (noise.get_xlabel(), missing.get_xlabel()) == ("standard deviations", "probability")
    legend, = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["smell", "fused"]
    assert [h.get_color() for h in legend.get_lines()] == [
        x.colour for x in plots.head_looks(curves, MODALITIES).values()]
