"""Metrics against scikit-learn (those that are our own), by hand and in loops."""
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from jaxmm import metrics

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, 200)
LOGITS = (3 * RNG.normal(size=(200, 7)) + 2 * np.eye(7)[LABELS]).astype(np.float32)
LOGITS[:, 6] = -50.0            # a class that occurs nowhere; class 5 only in the predictions
PROBABILITIES = np.exp(LOGITS.astype(np.float64))
PROBABILITIES /= PROBABILITIES.sum(-1, keepdims=True)
PREDICTIONS = LOGITS.argmax(-1)


def test_against_scikit_learn():
    one_hot = np.eye(7)[LABELS]
    expected = {
        metrics.accuracy: sklearn.metrics.accuracy_score(LABELS, PREDICTIONS),
        metrics.negative_log_likelihood:
            sklearn.metrics.log_loss(LABELS, PROBABILITIES, labels=range(7)),
        metrics.brier_score: 7 * sklearn.metrics.mean_squared_error(one_hot, PROBABILITIES),
    }
    assert 5 in PREDICTIONS and 6 not in PREDICTIONS
    for metric, value in expected.items():
        np.testing.assert_allclose(metric(LOGITS, LABELS), value, rtol=1e-6)
        np.testing.assert_allclose(metric(jnp.array(LOGITS), jnp.array(LABELS)), value, rtol=1e-6)


@pytest.mark.parametrize("num_bins", [1, 4, 15])
def test_calibration_error_equals_loops(num_bins):
    confidence = PROBABILITIES.max(-1)
    error = 0.0
    for b in range(num_bins):
        rows = (confidence > b / num_bins) & (confidence <= (b + 1) / num_bins)
        if rows.any():
            gap = confidence[rows].mean() - (PREDICTIONS == LABELS)[rows].mean()
            error += rows.mean() * abs(gap)
    got = metrics.expected_calibration_error(LOGITS, LABELS, num_bins)
    np.testing.assert_allclose(got, error, rtol=1e-6)


def test_reliability_by_hand():
    # Confidences 0.6 (right), 0.7 (wrong), 0.9 (right), 1 (right) and exactly 0.5 (wrong).
    p = np.array([[0.6, 0.4], [0.7, 0.3], [0.1, 0.9], [0.0, 1.0], [0.5, 0.5]])
    with np.errstate(divide="ignore"):
        logits, labels = np.log(p), np.array([0, 1, 1, 1, 1])
    bins = metrics.reliability(logits, labels, num_bins=4)
    np.testing.assert_array_equal(bins.count, [0, 1, 2, 2])     # 0.5 closes the second bin
    np.testing.assert_allclose(bins.confidence, [0, 0.5, 0.65, 0.95])
    np.testing.assert_allclose(bins.accuracy, [0, 0, 0.5, 1])
    np.testing.assert_allclose(
        metrics.expected_calibration_error(logits, labels, 4), (0.5 + 2 * 0.15 + 2 * 0.05) / 5)


def test_rows_taken_a_few_at_a_time_are_all_rows(monkeypatch):
    """Of 7 classes, 200 rows in parts of 5 or of one, the last part cut short or not."""
    scores = [metrics.negative_log_likelihood, metrics.brier_score, metrics.expected_calibration_error]
    whole = [score(LOGITS, LABELS) for score in scores]
    for at_once in (35, 44, 3):
        monkeypatch.setattr(metrics, "AT_ONCE", at_once)
        assert [score(LOGITS, LABELS) for score in scores] == whole


def test_extreme_logits():
    logits, labels = np.array([[1e4, -1e4], [1e4, -1e4]]), np.array([0, 1])
    np.testing.assert_allclose(metrics.negative_log_likelihood(logits, labels), 1e4)
    np.testing.assert_allclose(metrics.brier_score(logits, labels), 1.0)
    np.testing.assert_allclose(metrics.expected_calibration_error(logits, labels), 0.5)


def test_means_over_classes_by_hand():
    """Class 0: 2 of 3 predicted and 2 to find; class 1: 1 and 3; 2 is predicted in vain; no 3."""
    predictions, labels = np.array([0, 0, 1, 2, 0]), np.array([0, 0, 1, 1, 1])
    logits, f1 = np.eye(4)[predictions], (2 * 2 / (3 + 2), 2 / (1 + 3))
    np.testing.assert_allclose(metrics.macro_f1(logits, labels), (sum(f1) + 0) / 3)
    np.testing.assert_allclose(metrics.weighted_f1(logits, labels), (2 * f1[0] + 3 * f1[1]) / 5)
    np.testing.assert_allclose(metrics.mean_recall(logits, labels), (2 / 2 + 1 / 3) / 2)


def test_means_over_classes_are_those_of_scikit_learn():
    predictions = LOGITS.argmax(1)
    for average, found in (("macro", metrics.macro_f1), ("weighted", metrics.weighted_f1)):
        np.testing.assert_allclose(found(LOGITS, LABELS),
                                   sklearn.metrics.f1_score(LABELS, predictions, average=average))
    np.testing.assert_allclose(metrics.mean_recall(LOGITS, LABELS), sklearn.metrics.recall_score(
        LABELS, predictions, labels=np.unique(LABELS), average="macro"))


def test_labels_by_hand():
    """Three labels of four examples; the last one neither occurs nor is predicted."""
    labels = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    logits = np.array([[3.0, -1, -1], [-1, 2, -1], [1, 1, -1], [-2, 3, -1]])
    # Label 0: 1 right, 1 missed, 1 too many; label 1: 2 right, 1 too many.
    np.testing.assert_allclose(metrics.label_f1(logits, labels, "macro"), (1 / 2 + 4 / 5 + 0) / 3)
    np.testing.assert_allclose(metrics.label_f1(logits, labels, "micro"), 6 / (4 + 5))
    np.testing.assert_allclose(metrics.label_accuracy(logits, labels), 9 / 12)
    # Ranked by logit: label 0 right, wrong, right; label 1 wrong, right, right.
    np.testing.assert_allclose(metrics.mean_average_precision(logits, labels),
                               ((1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 2)
    assert metrics.mean_average_precision(logits, np.zeros_like(labels)) == 0


def test_numbers_by_hand():
    labels = np.array([[1.0, 0], [2, 0], [3, 0]])
    outputs = np.array([[2.0, 1], [2, 2], [8, 3]], np.float32)
    np.testing.assert_allclose(metrics.mean_absolute_error(outputs, labels), (6 + 6) / 6)
    np.testing.assert_allclose(metrics.root_mean_squared_error(outputs, labels),
                               (np.sqrt(26 / 3) + np.sqrt(14 / 3)) / 2)
    # Deviations (-1, 0, 1) and (-2, -2, 4); the second label is constant.
    np.testing.assert_allclose(metrics.pearson(outputs, labels), 6 / np.sqrt(2 * 24) / 2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_not_finite_have_scores_that_are_not(wrong):
    """As of a model that has diverged, which is found where it is saved."""
    labels = np.array([[1.0], [2], [3]])
    outputs = np.array([[1.0], [wrong], [3]], np.float32)
    for score in (metrics.mean_absolute_error, metrics.root_mean_squared_error, metrics.pearson):
        assert not np.isfinite(score(outputs, labels))
    assert np.isnan(metrics.mean_average_precision(outputs, labels > 1))


def test_sentiment_by_hand():
    labels = np.array([[2.6], [-0.2], [0.0], [-1.0], [0.4]])
    outputs = np.array([[9.0], [0.1], [-2.0], [-1.4], [0.3]])
    # Rounded: 3, 0, 0, -1, 0 and 3, 0, -2, -1, 0; signs without the 0: + - - + and + + - +.
    np.testing.assert_allclose(metrics.seven_way_accuracy(outputs, labels), 4 / 5)
    np.testing.assert_allclose(metrics.sentiment_accuracy(outputs, labels), 3 / 4)
    np.testing.assert_allclose(metrics.sentiment_f1(outputs, labels), (4 / 5 + 2 / 3) / 2)


def test_scores_of_pixels_by_hand():
    """Counts of two pictures; a class that no label has, and void pixels, count in no mean."""
    counts = np.array([[[2, 0], [0, 1]], [[0, 1], [0, 2]]])
    assert metrics.mean_iou(counts) == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert metrics.pixel_accuracy(counts) == pytest.approx(5 / 6)
    never = np.zeros((1, 3, 3), int)
    never[0, :2, :2] = counts.sum(0)
    assert metrics.mean_iou(never) == metrics.mean_iou(counts)
    never[0, 0, 2] = 2              # predicted, though no label has it
    assert metrics.mean_iou(never) == pytest.approx((2 / 5 + 3 / 4) / 2)
    assert np.isnan(metrics.mean_iou(0 * never)) and np.isnan(metrics.pixel_accuracy(0 * never))


def test_scores_of_pixels_are_those_of_scikit_learn():
    label, predicted = np.random.default_rng(0).integers(0, 5, (2, 3, 6, 4))
    counts = np.stack([sklearn.metrics.confusion_matrix(a.ravel(), b.ravel(), labels=range(7))
                       for a, b in zip(label, predicted)])
    expected = sklearn.metrics.jaccard_score(label.ravel(), predicted.ravel(), average=None, labels=range(5))
    np.testing.assert_allclose(metrics.class_iou(metrics.total_confusion(counts))[:5], expected)
    assert metrics.mean_iou(jnp.array(counts)) == pytest.approx(expected.mean())
    assert metrics.pixel_accuracy(counts) == pytest.approx(np.mean(label == predicted))


def test_the_prior_is_the_shares_of_classes():
    """As they are where every class occurs; one without an example is possible, as half a one."""
    np.testing.assert_allclose(np.exp(metrics.log_prior(np.array([0, 2, 1, 0]), 3)), [1 / 2, 1 / 4, 1 / 4])
    np.testing.assert_allclose(np.exp(metrics.log_prior(np.array([0, 0, 1, 0]), 3)), [6 / 9, 2 / 9, 1 / 9])
