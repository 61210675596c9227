import numpy as np

from jaxmm.evaluate.class_level import average, beats_sum, class_accuracy

# Predictions 0, 1, 1, 2, 0 of the labels 0, 0, 1, 1, 0; no example of classes 2 and 3.
LOGITS = np.eye(4)[[0, 1, 1, 2, 0]]
LABELS = np.array([0, 0, 1, 1, 0])


def test_class_accuracy_by_hand():
    found = class_accuracy(LOGITS, LABELS, np.ones(5, bool))
    np.testing.assert_allclose(found, [2 / 3, 1 / 2, np.nan, np.nan])
    # Without the second and third example.
    found = class_accuracy(LOGITS, LABELS, np.array([True, False, False, True, True]))
    np.testing.assert_allclose(found, [1, 0, np.nan, np.nan])


def test_average_is_the_mean_of_the_probabilities_of_those_present():
    logits = {"a": np.log([[0.8, 0.2], [0.9, 0.1], [0.6, 0.4]]) + 7,
              "b": np.log([[0.4, 0.6], [0.3, 0.7], [0.1, 0.9]]) - 1e4}
    present = {"a": np.array([True, True, False]), "b": np.array([True, False, True])}
    np.testing.assert_allclose(average(logits, present), [[0.6, 0.4], [0.9, 0.1], [0.1, 0.9]])


def test_fusion_beats_the_sum_where_it_is_more_than_all_together():
    unimodal = {"a": np.array([0.1, 0.25, 0.5, np.nan]), "b": np.array([0.2, 0.25, 0.4, 0.1])}
    found = beats_sum(np.array([0.4, 0.5, 0.8, 0.9]), unimodal)
    np.testing.assert_array_equal(found, [True, False, False, False])
