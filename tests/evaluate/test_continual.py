"""Continual-learning metrics on a worked example."""
import numpy as np
import pytest

from jaxmm.evaluate import continual

# Row i: accuracy on each task after learning task i.
R = np.array([[0.9, 0.2, 0.1],
              [0.5, 0.8, 0.3],
              [0.6, 0.4, 0.7]])


@pytest.mark.parametrize("metric, several, one", [
    (continual.forgetting, ((0.9 - 0.6) + (0.8 - 0.4)) / 2, np.nan),
    (continual.backward_transfer, ((0.6 - 0.9) + (0.4 - 0.8)) / 2, np.nan),
    (continual.stability, (0.6 + 0.4) / 2, np.nan),
    (continual.plasticity, (0.9 + 0.8 + 0.7) / 3, 0.9),
    (continual.trade_off, 2 * 0.5 * 0.8 / (0.5 + 0.8), np.nan),
])
def test_worked_example(metric, several, one):
    np.testing.assert_allclose(metric(R), several)
    np.testing.assert_allclose(metric(R[:1, :1]), one)


def test_accuracy_and_forgetting_over_all_steps():
    R = np.array([[0.9, 0, 0], [0.7, 0.8, 0], [0.5, 0.6, 0.7]])
    np.testing.assert_allclose(continual.average_incremental_accuracy(R, [5, 5, 5]), 0.75)
    np.testing.assert_allclose(continual.average_incremental_accuracy(R, [1, 3, 0]),
                               (0.9 + (0.7 + 3 * 0.8) / 4 + (0.5 + 3 * 0.6) / 4) / 3)
    np.testing.assert_allclose(continual.mean_forgetting(R), 0.25)
    np.testing.assert_allclose(continual.forgetting(R), 0.3)
    R[:, 0] = np.nan        # no example of the first task has the modality
    np.testing.assert_allclose(continual.average_incremental_accuracy(R, [0, 5, 5]), (0.8 + 0.65) / 2)
    assert np.isnan(continual.mean_forgetting(R[:1, :1]))


def test_forward_transfer():
    np.testing.assert_allclose(
        continual.forward_transfer(R, [0.3, 0.1, 0.2]), ((0.2 - 0.1) + (0.3 - 0.2)) / 2)
    assert np.isnan(continual.forward_transfer(R[:1, :1], [0.3]))


def test_forgetting_is_from_the_best_not_the_first():
    learned_later = R.copy()
    learned_later[1, 0] = 1.0
    np.testing.assert_allclose(continual.forgetting(learned_later), ((1 - 0.6) + 0.4) / 2)


def test_forgetting_is_negative_where_the_last_task_helps():
    helped = R.copy()
    helped[2, 0] = 1.0
    np.testing.assert_allclose(continual.forgetting(helped), ((0.9 - 1.0) + 0.4) / 2)


def test_trade_off_of_nothing_is_zero():
    assert continual.trade_off(np.zeros((2, 2))) == 0.0


def test_classes_by_how_many_examples_they_had():
    """Seven classes, one never seen and one without test examples: of five the first two thirds have two."""
    exposure = [5, 0, 9, 1, 5, 2, 30]
    recall = np.array([0.4, 0.9, np.nan, 0.1, 0.6, 0.3, 0.8])
    np.testing.assert_allclose(continual.by_exposure(recall, exposure), [(0.1 + 0.3) / 2, (0.4 + 0.6) / 2, 0.8])
    np.testing.assert_allclose(continual.mean_of_seen(recall, exposure), (0.4 + 0.1 + 0.6 + 0.3 + 0.8) / 5)
    np.testing.assert_allclose(continual.by_exposure(recall[:1], exposure[:1]), [0.4, np.nan, np.nan])


def test_forgetting_by_class_is_from_the_best_of_all_tasks():
    recalls = [[0.5, 0.0, np.nan], [0.9, 0.0, 0.1], [0.6, 0.7, 0.2]]
    np.testing.assert_allclose(continual.class_forgetting(recalls), (0.3 + 0.0) / 2)
