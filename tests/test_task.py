import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.utils.class_weight import compute_class_weight

from jaxmm import task as task_lib
from jaxmm.config import TaskConfig
from jaxmm.data.feeding import count_pixels
from jaxmm.errors import UserError
from jaxmm.task import classification, likelihood, make_task, multilabel, regression

INTS = np.array([0, 1, 2], np.int32)
BOOLS = np.array([[True, False], [False, False], [True, True]])
FLOATS = np.array([[0.5], [-1.0], [3.0]], np.float32)


def test_losses_by_hand():
    logits = np.log(np.float32([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])) + 7
    labels = np.array([0, 1])
    for fn in jax.jit(task_lib.cross_entropy), task_lib.cross_entropy:
        np.testing.assert_allclose(fn(logits, labels), -np.log([0.5, 0.1]), rtol=1e-5)
    np.testing.assert_allclose(likelihood(classification("abc"), logits, labels), [0.5, 0.1],
                               rtol=1e-5)
    odds = np.float32([[np.log(3), 0.0], [np.log(3), -np.log(4)]])      # 3/4, 1/2; 3/4, 1/5
    loss = multilabel("ab").loss(odds, np.array([[True, True], [False, False]]))
    np.testing.assert_allclose(loss, [-np.log(3 / 4 * 1 / 2) / 2, -np.log(1 / 4 * 4 / 5) / 2],
                               rtol=1e-5)
    loss = regression("ab").loss(np.float32([[1, 2], [0, 0]]), np.float32([[1, 4], [3, 1]]))
    np.testing.assert_allclose(loss, [2, 5])


@pytest.mark.parametrize("make", [classification, multilabel, regression])
def test_half_precision_outputs_have_float32_losses(make):
    labels = {"classification": INTS[:2], "multilabel": BOOLS[:2, :1].repeat(3, 1),
              "regression": FLOATS[:2].repeat(3, 1)}
    task = make("abc")
    assert task.loss(jnp.zeros((2, 3), jnp.bfloat16), labels[task.name]).dtype == jnp.float32


@pytest.mark.parametrize("labels, names, kind, headline, chance", [
    (INTS, "abc", "classification", "accuracy", 1 / 3), (BOOLS, "ab", "multilabel", "macro_f1", None),
    (FLOATS, "a", "regression", "mae", None)])
def test_type_of_the_labels_says_what_is_predicted(labels, names, kind, headline, chance):
    for config in TaskConfig(), TaskConfig(kind=kind):
        task = make_task(config, names, labels)
        assert (task.name, task.size, task.headline, task.chance) == (kind, len(names), headline, chance)
    for other in {"classification", "multilabel", "regression"} - {kind}:
        with pytest.raises(UserError, match=f"train/label is {labels.dtype}.*a {other} needs"):
            make_task(TaskConfig(kind=other), names, labels)


@pytest.mark.parametrize("config, names, labels, message", [
    (TaskConfig(kind="ranking"), "abc", INTS, "task.kind='ranking'; expected one of auto, class"),
    (TaskConfig(sentiment=True), "abc", INTS, "task.sentiment=True is for a scale"),
    (TaskConfig(), "ab", INTS, "values from 0 to 2; expected class numbers from 0 to 1"),
    (TaskConfig(), "abc", BOOLS, "rows of 2; expected 3, one for each of a, b, c"),
    (TaskConfig(), "a", FLOATS[:, 0], "float32 .rows.; a regression needs floats .rows, outputs.:"),
    (TaskConfig(), "a", np.array([[0.0], [np.nan]]), "not finite in row 1"),
    (TaskConfig(), "ab", np.array(["x"]), "train/label is <U1; expected integers")])
def test_labels_of_another_kind_are_refused(config, names, labels, message):
    with pytest.raises(UserError, match=message) as error:
        make_task(config, names, labels)
    assert "\n" not in str(error.value)


def test_scores_of_a_scale_of_sentiment():
    task = make_task(TaskConfig(sentiment=True), "a", FLOATS)
    assert list(task.scores) == ["mae", "rmse", "pearson", "acc_7", "acc_2", "f1"]
    assert {name: fn(FLOATS, FLOATS) for name, fn in task.scores.items()} == {
        "mae": 0, "rmse": 0, "pearson": pytest.approx(1), "acc_7": 1, "acc_2": 1, "f1": 1}


def test_smoothed_labels_are_those_of_optax_and_the_likelihood_stays():
    logits, labels = np.float32([[2, 0, -1], [0.5, 3, 1]]), np.array([0, 2])
    plain = classification("abc")
    task = task_lib.with_smoothing(plain, 0.2)
    expected = optax.softmax_cross_entropy(logits, optax.smooth_labels(np.eye(3)[labels], 0.2))
    np.testing.assert_allclose(task.loss(logits, labels), expected, rtol=1e-6)
    np.testing.assert_array_equal(likelihood(task, logits, labels), likelihood(plain, logits, labels))
    with pytest.raises(UserError, match="task.label_smoothing=1.0; expected"):
        task_lib.with_smoothing(plain, 1.0)
    with pytest.raises(UserError, match="task.label_smoothing=0.1 needs a classification"):
        task_lib.with_smoothing(regression("a"), 0.1)


def test_balanced_weights_are_those_of_scikit_learn():
    known = np.array([0, 0, 0, 2, 2, 0])            # no row of class 1
    task = task_lib.with_weights(classification("abc"), known)
    logits = np.zeros((2, 3), np.float32)
    weights = compute_class_weight("balanced", classes=np.array([0, 2]), y=known) * 2 / 3   # of 3 classes
    np.testing.assert_allclose(task.loss(logits, np.array([0, 2])), np.log(3) * weights, rtol=1e-6)


def test_loss_of_pixels_by_hand_without_void_ones():
    task = task_lib.segmentation("ab")
    logits = jnp.log(jnp.array([[[[0.5, 0.5], [0.25, 0.75]]], [[[0.9, 0.1], [0.9, 0.1]]]]))
    label = np.array([[[0, 1]], [[-1, 0]]])
    for fn in task.loss, jax.jit(task.loss):
        np.testing.assert_allclose(fn(logits, label), [-np.log(0.5 * 0.75) / 2, -np.log(0.9)], rtol=1e-6)
    other = logits.at[1, 0, 0].set([7.0, -7.0])
    np.testing.assert_array_equal(task.loss(other, label), task.loss(logits, label))
    np.testing.assert_array_equal(task.loss(logits, np.full_like(label, -1)), 0)
    grads = jax.grad(lambda z: task.loss(z, label).sum())(logits)
    assert not grads[1, 0, 0].any() and grads[1, 0, 1].all()
    np.testing.assert_array_equal(task.progress[1](logits, label), [0.5 + 0.5 * 1, 1])
    assert task.loss(logits.astype(jnp.bfloat16), label).dtype == jnp.float32
    assert (task.headline, task.size, task.chance) == ("mean_iou", 2, None)


def test_weights_of_pixels_by_hand():
    """Labels 1120 and 1111 with 0 for void: classes are 3/4 and 1/4 of the pictures that hold them."""
    maps = np.array([[[1, 1], [2, 0]], [[1, 1], [1, 1]]]) - 1
    found = task_lib.median_frequency(*count_pixels(maps, np.arange(2), 3))
    np.testing.assert_allclose(found, [2 / 3, 2, 0])
    np.testing.assert_allclose(task_lib.median_frequency(*count_pixels(maps, np.array([1]), 3)), [1, 0, 0])


@pytest.mark.parametrize("config, target, message", [
    (TaskConfig(kind="segmentation"), "", "task.kind=segmentation needs the class of every pixel.*data.target=NAME"),
    (TaskConfig(kind="classification"), "map", "task.kind=classification: the class maps map are for a segm"),
    (TaskConfig(sentiment=True), "map", "task.sentiment=True is for a scale")])
def test_a_segmentation_is_what_a_target_makes(config, target, message):
    assert make_task(TaskConfig(), "abc", INTS, target="map").name == "segmentation"
    with pytest.raises(UserError, match=message):
        make_task(config, "abc", INTS, target=target)


@pytest.mark.parametrize("maps, message", [
    (np.zeros((2, 3, 4)), "d: map is float64 of shape .2, 3, 4.; expected integers"),
    (np.zeros((2, 3), int), "of shape .2, 3.; expected integers"),
    (np.array([[[0, 1]], [[0, 3]]]), "values from 0 to 3 in row 1; expected class numbers from 0 to 2, and -1"),
    (np.array([[[0, 1]], [[0, -2]]]), "values from -2 to 0 in row 1"),
    (np.array([[[0, 1]], [[-1, -1]]]), "void in every pixel of 1 rows, the first row 1; remove")])
def test_class_maps_are_checked(maps, message):
    task_lib.check_maps("d", np.array([[[0, -1, 2]]]), 3)
    with pytest.raises(UserError, match=message):
        task_lib.check_maps("d: map", maps, 3)
