"""What every config says of itself."""
import importlib
import pathlib
import re

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "common"))


@pytest.mark.parametrize("name", NAMES)
def test_a_config_names_its_paper_what_to_expect_and_commands_that_can_be_read(name):
    module = importlib.import_module(f"configs.{name}")
    said = module.__doc__
    if name not in ("arrays", "table"):     # of data that only their owner knows
        assert "arXiv" in said or "papers do not have this data set" in said
        assert re.search(r"[Ee]xpected\n?.*accuracy|[Pp]ublished|do not have this data set", said)
    assert f"configs/{name}.py" in said
    for config, method in re.findall(r"--config=configs/(\w+)\.py(?::(\w+))?", said):
        made = importlib.import_module(f"configs.{config}").get_config(*filter(None, [method]))
        assert method in ("", made.method.name)
