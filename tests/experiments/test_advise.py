import json

import jax
import numpy as np
import pytest

from jaxmm import data
from jaxmm.errors import UserError
from jaxmm.experiments import advise, configs
from jaxmm.state import experts as state
from jaxmm.train import experts
from jaxmm.train.folder import read_config
from jaxmm.train.restore import restore

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(name="pairs")
def make_pairs(tmp_path):
    """A config of two modalities whose signs must be compared to tell the class."""
    rng, content = np.random.default_rng(0), {}
    for split, size in (("train", 256), ("val", 128), ("test", 8)):
        signs = rng.choice([-1.0, 1.0], size=(2, size))
        for m, sign in zip("ab", signs):
            content[f"{split}/{m}"] = np.stack([sign, rng.normal(size=size) / 9], 1).astype("f")
        content[f"{split}/label"] = (signs[0] * signs[1] > 0).astype(int)
    np.savez(tmp_path / "pairs.npz", **content)
    overrides = {"data.path": str(tmp_path / "pairs.npz"), "train.epochs": 40, "optimizer.learning_rate": 0.1,
                 "train.eval_epochs": 40, "train.checkpoint_epochs": 40}
    chosen = configs.Chosen("arrays:late", configs.load("arrays:late"), overrides)
    return chosen._replace(config=configs.config_for(chosen, "late"))


def test_the_method_that_the_data_need_is_advised_and_written(pairs, tmp_path):
    """Models of each modality cannot tell, in half of the epochs that the next run has. Test data are not used."""
    folder = tmp_path / "work"
    said = advise.advise(pairs, 1, str(folder), "command", ["recipe=default", "mlp_head+hidden=16"], budget=0.5)
    assert "Recommendation: **mlp_head+hidden=16**. mlp_head+hidden=16 is ahead of every method before" in said
    following = configs.load(str(folder / "next.json"))
    assert (following.method.name, following.method.hidden, following.train.epochs) == ("mlp_head", 16, 40)
    tried = {name: folder / name / "seed_0" for name in ("recipe=default", "mlp_head+hidden=16")}
    assert {read_config(path).train.epochs for path in tried.values()} == {20}
    assert read_config(tried["recipe=default"]).train.experts == "fitted"
    for path in tried.values():
        lines = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
        assert {record["split"] for record in lines if record["kind"] == "eval"} == {"val"}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("| ")]
    # 256 rows, 20 epochs.
    assert [row[0] for row in rows[2:]] == [*tried] and {row[3] for row in rows[2:]} == {"0.00512"}
    found = restore(tried["recipe=default"], devices=jax.devices()[:1])
    assert rows[2][1] == f"{100 * advise.contributions(found).mean():.1f}"


def test_what_is_fitted_to_rows_has_no_part_in_their_score():
    """Other labels of one half of them change the numbers of the other half alone."""
    rng, found = np.random.default_rng(1), state.init(["a"], np.zeros(2))
    labels = rng.integers(2, size=60)
    outputs = {"a": rng.normal(size=(60, 2)).astype(np.float32)}
    split = {"label": labels, "present": {"a": np.ones(60, bool)}}
    fused = experts.cross_fitted(outputs, split, found, "equal")
    half = np.sort(np.random.default_rng(0).permutation(60)[::2])
    changed = np.where(np.isin(np.arange(60), half), 1 - labels, labels)
    again = experts.cross_fitted(outputs, split | {"label": changed}, found, "equal")
    np.testing.assert_array_equal(again[half], fused[half])
    assert (np.delete(again, half, 0) != np.delete(fused, half, 0)).any()


def test_what_does_not_fit_is_left_out_or_refused(pairs, tmp_path):
    found, said = advise.fitting(["late", "mla"], lambda name: configs.config_for(pairs._replace(
        overrides=pairs.overrides | {"encoders.a.features": 4, "encoders.b.features": 5}), name), data.load(pairs.config.data))
    assert found == ["late"] and "Left out, as it does not fit: mla: mla shares one head" in said
    with pytest.raises(UserError, match="--budget=0; expected a share"):
        advise.advise(pairs, 1, str(tmp_path / "work"), "command", budget=0)
    with pytest.raises(UserError, match="leave out --methods=mla"):
        advise.advise(pairs, 1, str(tmp_path / "work"), "command", ["mla"], rule=True)
    with pytest.raises(UserError, match="unimodal is of one modality"):
        advise.advise(pairs, 1, str(tmp_path / "work"), "command", ["late", "unimodal"])
    assert not (tmp_path / "work").exists()
