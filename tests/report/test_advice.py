import numpy as np
import pytest
from scipy import stats

from jaxmm.config import Config
from jaxmm.methods import method_config
from jaxmm.report import advice
from jaxmm.task import classification, multilabel, regression
from jaxmm.train.options import load_json


def rows(*counts, size=100):
    """bool [S, N]: the first so many rows are right, for each seed."""
    return np.arange(size) < np.array(counts)[:, None]


def test_the_error_of_crossed_rows_and_seeds_by_hand():
    """[[3, 1], [1, -1]]: mean 1, seeds +-1, rows +-1, nothing left: mean squares 4, 4, 0."""
    mean, error, freedom = advice.paired_gain(np.array([[3.0, 1.0], [1.0, -1.0]]))
    np.testing.assert_allclose([mean, error, freedom], [1, (8 / 4)**0.5, 64 / (16 + 16)])
    # One seed leaves the paired error over rows: deviation / sqrt(N).
    one = np.array([[1.0, 0.0, 0.0, -1.0, 1.0]])
    np.testing.assert_allclose(advice.paired_gain(one),
                               [0.2, one.std(ddof=1) / 5**0.5, 4], rtol=1e-12)
    # Seeds that agree in everything are as one: no row is counted twice.
    np.testing.assert_allclose(advice.paired_gain(np.repeat(one, 3, axis=0)),
                               advice.paired_gain(one))


def draw(rng, level, runs, seeds, size, *, row, seed):
    """bool [runs, S, N]: a model right with probability Phi(level + row effect + seed effect).

    Rows have an effect that all seeds share, and one that two models share: hard examples.
    """
    hard = rng.normal(size=(runs, 1, size))

    def model(gain):
        own = row * rng.normal(size=(runs, 1, size)) + seed * rng.normal(size=(runs, seeds, 1))
        return hard + own + rng.normal(size=(runs, seeds, size)) < level + gain

    return model


@pytest.mark.parametrize("seeds, size, row, seed", [
    (3, 400, 0.7, 0.05), (5, 200, 0.3, 0.1), (1, 300, 0.7, 0.0)])
def test_without_a_true_difference_the_advice_is_umt_at_the_nominal_rate(seeds, size, row, seed):
    """1000 draws: 5% means 50 +- 7; the stated error is that of the gain over the draws."""
    runs = 1000
    model = draw(np.random.default_rng(seeds + size), 0.5, runs, seeds, size, row=row, seed=seed)
    average, linear, mlp = model(0), model(0), model(0)
    one = [advice.advise(a, {"linear": h}) for a, h in zip(average, linear)]
    true = np.std([found.gain for found in one])
    stated = np.sqrt(np.mean([found.error**2 for found in one]))
    np.testing.assert_allclose(stated, true, rtol=0.15)    # variances are cut off at 0
    both = [advice.advise(a, {"linear": h, "mlp": g}) for a, h, g in zip(average, linear, mlp)]
    rates = [np.mean([found.method == "umt" for found in found_all]) for found_all in (one, both)]
    assert 0.025 < min(rates) and max(rates) < 0.075, rates


def test_a_true_difference_is_found():
    model = draw(np.random.default_rng(0), 0.0, 200, 3, 1000, row=0.3, seed=0.0)
    average, head = model(0), model(0.3)
    assert np.mean([advice.advise(a, {"mlp": h}).method == "umt"
                    for a, h in zip(average, head)]) > 0.95


def test_a_lead_beyond_chance_means_umt():
    average, heads = rows(50, 60, 70), {"linear": rows(50, 60, 69), "mlp": rows(74, 86, 98)}
    found = advice.advise(average, heads)
    assert (found.method, found.head) == ("umt", "mlp") and found.gain > found.needed
    np.testing.assert_allclose(found.gain, 0.26)
    text = advice.text(found, average, heads)
    assert "Recommendation: **UMT**. The mlp is ahead of the average (+26.0 points, standard error " \
        in text
    assert "over 100 validation rows and 3 seeds; it takes +" in text
    assert [c.strip() for c in text.splitlines()[4].split("|")[2:4]] == ["86.0 ± 12.0", "26.0 ± 2.0"]


@pytest.mark.parametrize("head", [(99, 99), (98, 99), (100, 94)])
def test_level_behind_or_uncertain_means_ume(head):
    average, heads = rows(96, 99), {"linear": rows(*head)}
    found = advice.advise(average, heads)
    assert found.method == "ume"
    assert "average the unimodal models" in advice.text(found, average, heads)
    assert advice.advise(average, {"same": average}).method == "ume"


def test_one_seed_is_said_to_be_one():
    found = advice.advise(rows(50), {"linear": rows(60)})
    np.testing.assert_allclose([found.gain, found.error], [0.1, (0.09 / 99)**0.5])
    assert "over 100 validation rows, one seed" in advice.text(found, rows(50), {"linear": rows(60)})


def test_the_simplest_method_that_is_not_behind_is_chosen():
    """Of rows [S, N]: the last has the best mean; the one before it is level, the first is not."""
    scores = {"simple": rows(50, 60, 70), "middle": rows(74, 86, 97), "costly": rows(74, 86, 98)}
    found = advice.choose(scores)
    assert (found.method, found.best, [*found.leads]) == ("middle", "costly", ["simple", "middle"])
    assert found.leads["simple"].ahead and not found.leads["middle"].ahead
    # Two tests: each at half the level, with the error of crossed rows and seeds.
    gain, error, freedom = advice.paired_gain(scores["costly"].astype(float) - scores["simple"])
    np.testing.assert_allclose(found.leads["simple"][1:], [gain, error, error * stats.t.ppf(0.975, freedom)])
    text = advice.text_of_choice(found, scores, dict.fromkeys(scores, "0.1"))
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines()[:5]]
    assert cells[0] == ["on validation data", "accuracy", "behind costly", "M examples"]
    assert cells[2][:2] == ["simple", "60.0 ± 10.0"] and cells[2][2].startswith("26.0 ± ")
    assert cells[4] == ["costly", "86.0 ± 12.0", "", "0.1"]
    assert "Recommendation: **middle**. costly has the best mean, but is not ahead of it by more" in text
    assert "costly is ahead of every method before middle in the table, of the nearest of them, simple, by +26.0" in text


def test_a_method_that_is_best_and_simplest_or_alone_is_chosen():
    scores = {"simple": rows(80), "other": rows(70)}
    found = advice.choose(scores)
    assert found.method == found.best == "simple"
    assert "It has the best mean, and none is simpler." in advice.text_of_choice(found, scores, dict.fromkeys(scores, ""))
    assert advice.choose({"only": rows(70)}) == advice.Choice("only", "only", {})
    # Of errors less is better, and the first of equals is the best.
    errors = {"a": np.full((1, 9), 2.0) + np.arange(9) / 9, "b": np.full((1, 9), 1.0), "c": np.full((1, 9), 1.0)}
    assert advice.choose(errors, "mae").method == advice.choose(errors, "mae").best == "b"


def test_the_next_config_is_the_one_that_was_written(tmp_path):
    config = Config(method=method_config("umt"))
    config.method.fusion, config.encoders["a"].width = "mlp", 7
    config.data.path = '"""\nimport os; os.abort()\n"""'
    workdir = tmp_path / "with space"
    workdir.mkdir()
    path = advice.write(workdir, "Do this.", config, "python -m launch.advise --seeds=2")
    assert path.suffix == ".json" and load_json(path) == config
    text = (workdir / "advice.md").read_text()
    assert "Do this." in text and f"    jaxmm train '--config={path}'\n" in text


def test_contributions_of_rows_are_those_of_the_tasks_headline():
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(12, 3)).astype(np.float32)
    numbers = rng.normal(size=(12, 3)).astype(np.float32)
    held, classes = rng.random((12, 3)) < 0.4, rng.integers(3, size=12)
    for task, labels in ((classification(("a", "b", "c")), classes), (regression(("a", "b", "c")), numbers),
                         (multilabel(("a", "b", "c")), held)):
        found = advice.contributions(task, outputs, labels)
        fn = task.scores[task.headline]
        np.testing.assert_allclose(found.mean(), fn(outputs, labels), rtol=1e-6)
        # The jackknife: what the score is without each row, which is exact for means.
        without = np.array([fn(np.delete(outputs, i, 0), np.delete(labels, i, 0)) for i in range(12)])
        np.testing.assert_allclose(found - found.mean(), 11 * (without.mean() - without), atol=1e-6)


def test_of_an_error_the_lower_one_is_ahead():
    rng = np.random.default_rng(0)
    average = 1 + 0.1 * rng.random((3, 200))
    better, worse = average - 0.25 - 0.01 * rng.random((3, 200)), average + 0.25
    found = advice.advise(average, {"linear": better, "mlp": worse}, "mae")
    assert (found.method, found.head) == ("umt", "linear") and found.gain == pytest.approx(0.255, abs=1e-3)
    text = advice.text(found, average, {"linear": better, "mlp": worse}, "mae")
    assert "MAE" in text.splitlines()[0] and "points" not in text
    assert [cell.strip()[:5] for cell in text.splitlines()[3].split("|")[3:4]] == ["-0.25"]
    assert "(+0.25" in text and " of MAE less, standard error" in text
    assert advice.advise(average, {"mlp": worse}, "mae").method == "ume"
    assert advice.advise(average, {"linear": better}).method == "ume"       # as an accuracy
