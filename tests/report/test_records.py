import pytest

from jaxmm.report.records import Cell, Record, pivot

NAN = float("nan")
RECORDS = [Record("one", None, seed, split, None, head, "accuracy", value) for seed, split, head, value in [
    (0, "test", "sound", 0.5), (1, "test", "sound", 0.7), (2, "test", "sound", 0.6),
    (0, "val", "sound", 0.1), (0, "test", "image", 0.25), (1, "test", "image", NAN)]]


def test_pivot_has_means_sample_deviations_and_the_values_by_seed():
    table = pivot(RECORDS, ["method", "setting"], ["split", "head"])
    assert table == {("one", None): {
        ("test", "sound"): Cell(pytest.approx(0.6), pytest.approx(0.1), ((0, 0.5), (1, 0.7), (2, 0.6))),
        ("val", "sound"): Cell(0.1, None, ((0, 0.1),)),
        ("test", "image"): Cell(0.25, None, ((0, 0.25),))}}     # NaN is no value
    # Deviations -0.1, -0.1, 0.2: squares 0.06, over 2.
    values = [r._replace(value=v, split="test", head="sound") for r, v in zip(RECORDS, (0.3, 0.3, 0.6))]
    assert pivot(values, ["head"], ["metric"])["sound"]["accuracy"].std == pytest.approx(0.03 ** 0.5)
    assert list(pivot(RECORDS, ["seed"], ["head"])[1]) == ["sound"]
