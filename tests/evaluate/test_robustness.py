import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.evaluate import robustness
from jaxmm.evaluate.robustness import RATES, SIGMAS
from jaxmm.task import classification, regression

LABELS = np.arange(400) % 2
SIGN = (2 * LABELS - 1)[:, None].astype(np.float32)
TASK = classification(("x", "y"))
DEVIATIONS = {m: np.ones(1, np.float32) for m in "ab"}


def predict(batch):
    """Votes by sign, of a modality and of all that are there; b counts half."""
    z = {m: np.where(batch["present"][m][:, None], x, 0) * [-1, 1]
         for m, x in batch["inputs"].items()}
    return z | {"fused": z["a"] + z["b"] / 2}


@pytest.fixture(name="split")
def make_split():
    return make_batch({"a": SIGN, "b": SIGN}, LABELS)


def test_noise_on_a_modality_leaves_the_head_of_the_other(split):
    curves = robustness.noise_curves(predict, split, DEVIATIONS, "a", 0, TASK)
    assert set(curves) == {"a", "b", "fused"} and all(len(c) == len(SIGMAS) for c in curves.values())
    np.testing.assert_array_equal(curves["b"], 1.0)
    # The sign of 1 + sigma * N(0, 1), and of 1.5 + sigma * N(0, 1): normal distribution at 1/2, 3/4.
    assert SIGMAS[-1] == 2
    assert curves["a"][[0, -1]] == pytest.approx([1, 0.691], abs=0.07)
    assert curves["fused"][[0, -1]] == pytest.approx([1, 0.773], abs=0.07)
    assert curves["fused"][-1] > curves["a"][-1]


def test_missing_modalities_grow_and_heads_are_scored_where_theirs_is_there(split):
    seen = []

    def spy(batch):
        seen.append(batch["present"])
        wrong_without_a = {m: z if m != "fused" else np.where(
            batch["present"]["a"][:, None], z, -z) for m, z in predict(batch).items()}
        return wrong_without_a

    curves = robustness.missing_curves(spy, split, ["a", "b"], 0, TASK)
    np.testing.assert_array_equal(curves["a"], 1.0)
    np.testing.assert_array_equal(curves["b"], 1.0)
    np.testing.assert_allclose(curves["fused"], [p["a"].mean() for p in seen])
    assert seen[0]["a"].all() and seen[0]["b"].all()
    for less, more in zip(seen, seen[1:]):
        both = more["a"] & more["b"]
        assert both.any() and not (both & ~(less["a"] & less["b"])).any()
    assert all((p["a"] | p["b"]).all() for p in seen)
    # Half of the examples that would lose both keep a: rate - rate^2 / 2 miss it.
    assert 1 - curves["fused"][-1] == pytest.approx(RATES[-1] - RATES[-1]**2 / 2, abs=0.07)


def test_without_a_modality_what_is_left_is_scored(split):
    assert robustness.dropped(predict, split, DEVIATIONS, "a", TASK) == {"b": 1.0, "fused": 1.0}
    split["present"]["b"] = np.zeros(400, bool)
    assert robustness.dropped(predict, split, DEVIATIONS, "b", TASK) == {"a": 1.0, "fused": 1.0}
    assert robustness.dropped(predict, split, DEVIATIONS, "a", TASK) == {}


def test_one_modality_of_the_run_is_kept_and_rows_without_any_are_not_scored():
    """A run of a and b on rows that have c as well: no row that has either of them loses both."""
    inputs = {"a": SIGN, "b": SIGN, "c": SIGN}
    neither = np.arange(400) < 100
    split = make_batch(inputs, LABELS, present={"a": ~neither, "b": ~neither})
    seen = []

    def of_the_run(batch):
        seen.append(batch["present"])
        z = predict(batch | {part: {m: batch[part][m] for m in "ab"} for part in ("inputs", "present")})
        return z | {"fused": np.where(neither[:, None], [0, 1], z["fused"])}    # half of them wrong

    curves = robustness.missing_curves(of_the_run, split, ["a", "b"], 0, TASK)
    np.testing.assert_array_equal(curves["fused"], 1.0)
    for present in seen:
        np.testing.assert_array_equal(present["a"] | present["b"], ~neither)
        assert present["c"].all()


def test_of_a_regression_curves_are_errors():
    batch = make_batch({"a": np.zeros((2, 1), np.float32)}, np.zeros(2, int))
    batch |= {"label": np.array([[1.0], [4.0]], np.float32)}
    found = robustness.headlines({"a": np.array([[2.0], [2.0]])}, batch, regression(("strength",)))
    assert found == {"a": 1.5}
