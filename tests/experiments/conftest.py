import jax
import numpy as np
import pytest

from jaxmm.config import replace
from jaxmm.experiments import compare, configs, tuning
from jaxmm.train import schedule


@pytest.fixture(name="one_device")
def use_one_device(monkeypatch):
    """What comparisons train, they train on one device."""
    for module in compare, tuning:
        monkeypatch.setattr(module, "train_many", lambda *args, **kwargs: schedule.train_many(
            *args, devices=jax.devices()[:1], **kwargs))


@pytest.fixture(name="choose_arrays")
def make_choose_arrays(make_dataset, tmp_path):
    """choose_arrays(rows, overrides): the config `arrays:late` of two modalities in an .npz file."""
    def choose(rows, overrides):
        arrays = {}
        for split, batch in make_dataset(rows=rows).splits.items():
            arrays |= {f"{split}/{m}": x for m, x in batch["inputs"].items()} | {f"{split}/label": batch["label"]}
        np.savez(tmp_path / "rows.npz", **arrays)
        overrides = {"data.path": str(tmp_path / "rows.npz")} | overrides
        return configs.Chosen("arrays:late", replace(configs.load("arrays:late"), overrides), overrides)

    return choose
