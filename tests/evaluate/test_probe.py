import numpy as np
import pytest
from scipy.optimize import minimize

from jaxmm.batch import make_batch
from jaxmm.errors import UserError
from jaxmm.evaluate import probe as probes
from jaxmm.evaluate.probe import probe, probe_encoders, standardize

ROWS = {"train": 120, "val": 120, "test": 400}
CLEAR = 0.03        # between the two largest logits: more than solvers differ by


@pytest.fixture(name="problem", scope="module")
def make_problem():
    """Four classes whose means lie in 3 of 6 features; of the others one is dead."""
    rng = np.random.default_rng(0)
    means = np.zeros((4, 6))
    means[:, :3] = rng.normal(size=(4, 3))
    labels = {s: np.arange(n, dtype=np.int32) % 4 for s, n in ROWS.items()}
    features = {s: means[y] + rng.normal(size=(len(y), 6)) for s, y in labels.items()}
    for x in features.values():
        x[:, 5] = 3.0
    for split in ("val", "test"):       # no example on the edge of two classes, in equal shares
        logits = np.stack([by_hand(features, labels, l2)[split] for l2 in probes.L2])
        second, first = np.sort(logits, axis=-1)[..., -2:].transpose(2, 0, 1)
        clear = np.flatnonzero((first - second > CLEAR).all(0))
        rows = [clear[labels[split][clear] == c] for c in range(4)]
        rows = np.concatenate([r[:min(map(len, rows))] for r in rows])
        features[split], labels[split] = features[split][rows], labels[split][rows]
    return features, labels


def by_hand(features, labels, l2):
    """Logits on val and test of the minimum of mean CE + l2 |W|^2 / 2, bias left free."""
    x = {s: f[:, :5] for s, f in features.items()}
    mean, std = x["train"].mean(0), x["train"].std(0)
    x = {s: (f - mean) / std for s, f in x.items()}
    y = np.eye(4)[labels["train"]]

    def loss(theta):
        W, b = theta[:20].reshape(5, 4), theta[20:]
        z = x["train"] @ W + b
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        dz = (np.exp(log_p) - y) / len(y)
        grad = np.concatenate([(x["train"].T @ dz + l2 * W).ravel(), dz.sum(0)])
        return -(y * log_p).sum(1).mean() + l2 / 2 * (W**2).sum(), grad

    theta = minimize(loss, np.zeros(24), jac=True, method="BFGS", options={"gtol": 1e-7}).x
    return {s: x[s] @ theta[:20].reshape(5, 4) + theta[20:] for s in ("val", "test")}


def test_probe_is_the_regression_that_is_best_on_validation_data(problem, monkeypatch):
    scores = {l2: [np.mean(z.argmax(1) == problem[1][s]) for s, z in by_hand(*problem, l2).items()]
              for l2 in probes.L2}
    assert len({test for _, test in scores.values()}) > 1
    for l2, (_, test) in scores.items():
        monkeypatch.setattr(probes, "L2", (l2,))
        assert probe(*problem) == pytest.approx(test, abs=1e-9)
    monkeypatch.undo()
    best = max(scores.values(), key=lambda pair: pair[0])       # the first of two that are level
    assert probe(*problem) == pytest.approx(best[1], abs=1e-9)


def test_scale_shift_and_dead_features_do_not_matter(problem):
    features, labels = problem
    changed = {s: np.float32(100) * x[:, ::-1] - 7 for s, x in features.items()}
    changed["test"][:, 0] += 50     # what is constant in train says nothing
    assert probe(changed, labels) == pytest.approx(probe(features, labels), abs=1e-9)
    assert probe({s: 0 * x for s, x in features.items()}, labels) == 0.25


def test_standardize_uses_the_training_split_alone():
    x = standardize({"train": np.array([[1, 5], [3, 5]]), "val": np.array([[4, 6]])})
    np.testing.assert_allclose(x["train"], [[-1, 0], [1, 0]])
    np.testing.assert_allclose(x["val"], [[2, 0]])


def test_encoders_are_probed_on_the_examples_that_have_their_modality(problem):
    features, labels = problem
    rng = np.random.default_rng(1)
    present = {s: rng.random(len(y)) < 0.7 for s, y in labels.items()}
    splits = {s: make_batch({"a": x, "b": x}, labels[s], present={"a": present[s]})
              for s, x in features.items()}
    encoded = {s: {"a": np.where(present[s][:, None], x, 0), "b": 2 * x}
               for s, x in features.items()}
    rows = [{s: values[s][present[s]] for s in ROWS} for values in (features, labels)]
    assert probe_encoders(encoded, splits) == {"a": probe(*rows), "b": probe(*problem)}


def test_what_cannot_be_probed_is_said_in_a_line(problem):
    features, labels = problem
    with pytest.raises(UserError, match="val has none with this modality"):
        probe(features | {"val": np.zeros((0, 6))}, labels | {"val": labels["val"][:0]})
    with pytest.raises(UserError, match="two classes or more in train; found only class 2"):
        probe(features, labels | {"train": np.full(120, 2)})
