import numpy as np
import pytest

from jaxmm.config import Config, method_config
from jaxmm.report import advice
from jaxmm.train.runs import load_json


def test_a_lead_beyond_its_error_means_umt():
    """Gains of 4, 6 and 8 points: 6 on average, standard error 2 / sqrt(3)."""
    average, heads = [0.5, 0.6, 0.7], {"linear": [0.5, 0.6, 0.69], "mlp": [0.54, 0.66, 0.78]}
    found = advice.advise(average, heads)
    assert (found.method, found.head) == ("umt", "mlp")
    np.testing.assert_allclose([found.gain, found.error], [0.06, 0.02 / 3**0.5])
    text = advice.text(found, average, heads)
    assert "Recommendation: **UMT**. The mlp is ahead of the average (+6.0 points, standard error 1.2)" \
        in text
    assert [c.strip() for c in text.splitlines()[4].split("|")[2:4]] == ["66.0 ± 12.0", "6.0 ± 2.0"]


@pytest.mark.parametrize("head", [[1.0, 1.0], [0.99, 1.0], [0.96, 1.08]])
def test_level_behind_or_uncertain_means_ume(head):
    found = advice.advise([1.0, 1.0], {"linear": head})
    assert found.method == "ume"
    assert "average the unimodal models" in advice.text(found, [1.0, 1.0], {"linear": head})


def test_one_seed_has_no_error():
    found = advice.advise([0.5], {"linear": [0.6]})
    assert found.method == "umt" and np.isnan(found.error)
    assert "(+10.0 points)" in advice.text(found, [0.5], {"linear": [0.6]})


def test_the_next_config_is_the_one_that_was_written(tmp_path):
    config = Config(method=method_config("umt"))
    config.method.fusion, config.encoders["a"].width = "mlp", 7
    config.data.path = '"""\nimport os; os.abort()\n"""'
    workdir = tmp_path / "with space"
    workdir.mkdir()
    path = advice.write(workdir, "Do this.", config, "python -m launch.advise --seeds=2")
    assert path.suffix == ".json" and load_json(path) == config
    text = (workdir / "advice.md").read_text()
    assert "Do this." in text and f"    python -m launch.train '--config={path}'\n" in text
