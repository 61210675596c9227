import numpy as np
import pytest
from scipy import stats

from jaxmm.report.records import Cell
from jaxmm.report.significance import paired_t, winner


def cell(*values, first=0):
    return Cell(float(np.mean(values)), None, tuple(enumerate(values, first)))


def test_the_best_is_tested_against_each_over_the_seeds_that_both_have():
    best, second = (0.9, 0.92, 0.91, 0.5), (0.8, 0.83, 0.81)
    found = winner("accuracy", {"a": cell(*second), "b": cell(*best), "c": cell(0.3, 0.31, 0.35, 0.3)})
    expected = stats.ttest_rel(best[:3], second).pvalue
    assert (found.row, found.seeds) == ("a", 3)         # a by its mean, as one seed of b is far off
    assert found.p["b"] == pytest.approx(expected) and not found.better     # a is behind in all they share
    found = winner("accuracy", {"a": cell(*second), "b": cell(*best[:3]), "c": cell(0.3, 0.31, 0.35)})
    assert found.row == "b" and found.better and found.p["a"] == pytest.approx(expected)


def test_of_an_error_the_least_is_the_best():
    cells = {"a": cell(1.0, 1.1, 1.2), "b": cell(2.0, 2.2, 2.1)}
    assert winner("mae", cells).row == "a" and winner("rmse", cells).better
    assert winner("pearson", cells).row == "b"


@pytest.mark.parametrize("other", [cell(0.1, 0.2), cell(0.1, 0.2, 0.3, first=2), cell(0.1)])
def test_with_fewer_than_three_shared_seeds_there_is_no_test(other):
    found = winner("accuracy", {"a": cell(0.9, 0.91, 0.92), "b": other})
    assert found.p == {} and not found.better and found.seeds < 3


def test_one_test_that_does_not_say_so_is_enough():
    cells = {"a": cell(0.9, 0.91, 0.92), "b": cell(0.1, 0.12, 0.13), "c": cell(0.95, 0.7, 0.9)}
    assert winner("accuracy", cells).row == "a" and not winner("accuracy", cells).better
    assert winner("accuracy", {"a": cell(0.5, 0.5, 0.5)}).better is False
    assert winner("accuracy", {}) is None


def test_differences_that_are_all_one_number():
    assert paired_t(np.array([0.1, 0.3 - 0.2, 0.1])) == 0 and np.isnan(paired_t(np.zeros(3)))
