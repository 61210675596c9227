import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.data.dataset import Dataset
from jaxmm.report import units


@pytest.mark.parametrize("metric, values, text", [
    ("accuracy", (0.9166,), "91.7"), ("macro_f1", (0.5, 0.0123), "50.0 ± 1.2"),
    ("ece", (0.0404,), "0.040"), ("pearson", (-0.98765, 0.1), "-0.988 ± 0.100"),
    ("mae", (12345.6, 7.8), "12346 ± 8"), ("mae", (0.12345,), "0.1235"),
    ("rmse", (9.87654, 0.5), "9.877 ± 0.500"),
    ("mae", (0.0,), "0.000"), ("mae", (1.234e-7, 1e-8), "1.23e-07 ± 1.00e-08"),
    ("mae", (2.5e9,), "2.50e+09"),
    ("accuracy", (np.nan,), None), ("something", (3.14159,), "3.142")])
def test_shares_are_percent_and_errors_have_four_digits(metric, values, text):
    assert units.number(metric, *values) == text


def test_signs():
    assert units.number("accuracy", 0.5, sign="%") == "50.0%"
    assert units.number("mae", 0.5, sign="%") == "0.5000"
    assert units.number("accuracy", 0.02, sign="+") == "+2.0"
    assert units.number("mae", 0.5, sign="+") == "+0.5000"


def test_the_best_is_the_least_of_errors_and_the_first_of_equals():
    values = {"a": 0.3, "b": 0.2, "c": 0.3, "d": 0.2}
    metrics = {"accuracy": "a", "pearson": "a", "mae": "b", "nll": "b"}
    assert {metric: units.best(metric, values) for metric in metrics} == metrics
    assert units.best("mae", {}) is None


def test_a_guess_of_a_regression_is_the_median_of_training_labels():
    """Medians 2 and 10: errors of the test rows (1, 9) and (4, 10) are 1, 1, 2, 0."""
    labels = {"train": [[0, 10], [2, 9], [50, 11]], "test": [[1, 9], [4, 10]], "val": [[2, 10]]}
    splits = {split: make_batch({"x": np.zeros((len(y), 1), np.float32)}, np.zeros(len(y), int))
              | {"label": np.array(y, np.float32)} for split, y in labels.items()}
    data = Dataset("numbers", splits, ("left", "right"))
    task = units.task_of(data)
    assert (task.name, task.headline) == ("regression", "mae")
    assert units.guess(task, data) == 1.0 and units.guess(task, data, "val") == 0.0
    assert units.guess(task, data._replace(splits={})) is None
    data.splits["train"]["label"] = np.array([0, 1, 1])
    assert units.guess(units.task_of(data), data) == 0.5
