"""Relational losses against loops in NumPy, their invariances and their gradients."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.losses import relational

# Value and gradients by student and teacher, compiled once: smaller examples are padded.
LOSSES = {name: jax.jit(jax.value_and_grad(getattr(relational, name), (0, 1)))
          for name in ("distance_loss", "angle_loss")}
every_loss = pytest.mark.parametrize("name", LOSSES)

RNG = np.random.default_rng(0)
ROWS, SIZE = 5, 4
STUDENT = RNG.normal(size=(ROWS, SIZE)).astype(np.float32)
TEACHER = 3 * RNG.normal(size=(ROWS, SIZE)).astype(np.float32)
ALL = np.ones(ROWS, np.float32)


def padded(x):
    """x with columns of zeros, which change no distance, and with rows that do not count."""
    x = np.asarray(x, np.float32)
    rows = np.full((ROWS - len(x), SIZE), 9.0, np.float32)
    return np.concatenate([np.pad(x, [(0, 0), (0, SIZE - x.shape[1])]), rows])


def smooth_l1(x):
    return np.where(np.abs(x) < 1, x ** 2 / 2, np.abs(x) - 0.5)


def distances(x):
    x = np.asarray(x, np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    d = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    return d / d[d > 0].mean()


def cosines(x):
    x = np.asarray(x, np.float64)
    unit = lambda v: v / np.linalg.norm(v)
    return np.array([unit(x[i] - x[j]) @ unit(x[k] - x[j])
                     for i, j, k in itertools.permutations(range(len(x)), 3)])


def reference(name, student, teacher):
    relation = {"distance_loss": distances, "angle_loss": cosines}[name]
    return smooth_l1(relation(student) - relation(teacher)).mean()


@every_loss
def test_equals_loops_compiled_or_not(name):
    expected = reference(name, STUDENT, TEACHER)
    np.testing.assert_allclose(LOSSES[name](STUDENT, TEACHER, ALL)[0], expected, rtol=1e-5)
    loss = getattr(relational, name)(jnp.array(STUDENT), jnp.array(TEACHER))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_distance_loss_by_hand():
    # Rows at 0, 90, 180 degrees: distances sqrt(2), sqrt(2), 2; at 0, 180, 180: 2, 2, 0.
    student, teacher = padded([[1, 0], [0, 5], [-2, 0]]), padded([[1, 0], [-1, 0], [-1, 0]])
    mean = (2 * np.sqrt(2) + 2) / 3
    differences = np.sqrt(2) / mean - 1, 2 / mean - 1, np.sqrt(2) / mean - 0
    loss, _ = LOSSES["distance_loss"](student, teacher, np.float32([1, 1, 1, 0, 0]))
    np.testing.assert_allclose(loss, 2 * smooth_l1(np.array(differences)).sum() / 9, rtol=1e-5)


def test_angle_loss_by_hand():
    # Equilateral: every cosine 1/2. On a line: -1 in the middle, 1 at the ends.
    student, teacher = padded([[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]]), padded([[0], [1], [2]])
    loss, _ = LOSSES["angle_loss"](student, teacher, np.float32([1, 1, 1, 0, 0]))
    np.testing.assert_allclose(loss, (2 * smooth_l1(0.5) + smooth_l1(1.5)) / 3, rtol=1e-5)


@every_loss
def test_invariances(name):
    rotation = np.linalg.qr(RNG.normal(size=(SIZE, SIZE)))[0].astype(np.float32)
    moved = 7 * STUDENT @ rotation + np.float32(name == "angle_loss")
    np.testing.assert_allclose(LOSSES[name](STUDENT, moved, ALL)[0], 0, atol=1e-9)
    order = [3, 1, 4, 0, 2]
    np.testing.assert_allclose(LOSSES[name](STUDENT[order], TEACHER[order], ALL)[0],
                               LOSSES[name](STUDENT, TEACHER, ALL)[0], rtol=1e-5)


@every_loss
def test_gradient_is_the_slope_and_the_teacher_has_none(name):
    _, (of_student, of_teacher) = LOSSES[name](STUDENT, TEACHER, ALL)
    assert not of_teacher.any()
    step = RNG.normal(size=STUDENT.shape)
    along = lambda t: reference(name, STUDENT + t * step, TEACHER)
    slope = (along(1e-4) - along(-1e-4)) / 2e-4
    np.testing.assert_allclose(np.sum(of_student * step), slope, rtol=1e-4)


@every_loss
def test_masked_rows_do_not_count(name):
    weights, kept, masked = np.float32([1, 0, 1, 1, 0]), [0, 2, 3], [1, 4]
    student = STUDENT.copy()
    student[4] = student[1]     # would change the mean of the positive distances
    loss, (gradient, _) = LOSSES[name](student, TEACHER, weights)
    np.testing.assert_allclose(loss, reference(name, STUDENT[kept], TEACHER[kept]), rtol=1e-5)
    gradient = np.asarray(gradient)
    assert not gradient[masked].any() and gradient[kept].any()


@every_loss
def test_identical_rows_are_no_pair_and_have_no_direction(name):
    # Rows computed inside the compiled function, where x - x may leave rounding errors.
    def loss_fn(scale):
        rows = jnp.array(STUDENT)[jnp.array([0, 0, 1, 1, 2])] * scale
        return getattr(relational, name)(rows, jnp.array(TEACHER))

    scale = RNG.uniform(1.0, 2.0, SIZE).astype(np.float32)
    gradient = jax.jit(jax.grad(loss_fn))(scale)
    assert np.linalg.norm(gradient) < 10
    if name == "distance_loss":
        expected = reference(name, STUDENT[[0, 0, 1, 1, 2]] * scale, TEACHER)
        np.testing.assert_allclose(jax.jit(loss_fn)(scale), expected, rtol=1e-5)


@every_loss
def test_gradient_is_finite_at_the_guards(name):
    two_alike, one_zero = STUDENT.copy(), STUDENT.copy()
    two_alike[1], one_zero[2] = two_alike[0], 0.0
    zeros, alike = np.zeros_like(STUDENT), np.tile(STUDENT[0], (ROWS, 1))
    for student in (two_alike, one_zero, zeros, alike, 1e4 * STUDENT, 1e-6 * STUDENT):
        for teacher in (TEACHER, two_alike, zeros):
            loss, (gradient, _) = LOSSES[name](student, teacher, ALL)
            assert np.isfinite(loss) and np.isfinite(gradient).all()


@every_loss
@pytest.mark.parametrize("case", ["all alike", "one row", "one counts", "none counts"])
def test_nothing_to_compare(name, case):
    alike = np.tile(STUDENT[0], (ROWS, 1))
    loss, (gradient, _) = LOSSES[name](*{
        "all alike": (alike, 2 * alike, ALL),
        "one row": (STUDENT[:1], TEACHER[:1], ALL[:1]),
        "one counts": (STUDENT, TEACHER, np.float32([0, 0, 1, 0, 0])),
        "none counts": (STUDENT, TEACHER, 0 * ALL)}[case])
    assert loss == 0 and not gradient.any()
