import json

import pytest

from jaxmm.config import AugmentConfig, MLAConfig
from jaxmm.errors import UserError
from jaxmm.train import runs


def test_config_survives_the_file(make_config, tmp_path):
    config = make_config(MLAConfig(alpha=0.3))
    config.augment["sound"] = AugmentConfig(noise=0.5)
    runs.claim_folder(tmp_path / "run", config)
    read = runs.read_config(tmp_path / "run")
    assert read == config and isinstance(read.method, MLAConfig)
    runs.claim_folder(tmp_path / "run", config)


def test_differences_are_listed_by_path():
    old = {"a": {"x": 1, "y": 2}, "b": 3}
    new = {"a": {"x": 1, "y": 5}, "c": 4}
    assert list(runs.differences(old, new)) == [("a.y", 2, 5), ("b", 3, None), ("c", None, 4)]


@pytest.mark.parametrize("content", ["{", "{}", "[]", json.dumps({"data": {"colour": "red"}})])
def test_damaged_config(content, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="config.json cannot be read"):
        runs.read_config(tmp_path)


def test_no_run_folder(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        runs.read_config(tmp_path / "nothing")


def test_folder_that_cannot_be_made(make_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        runs.claim_folder(tmp_path / "file" / "run", make_config())
