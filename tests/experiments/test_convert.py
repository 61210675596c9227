"""Weights of other programs become .safetensors with the same arrays, and what is left out is said."""
import pathlib
import pickle

import numpy as np
import pytest
from safetensors import safe_open

from jaxmm.commands import convert as command
from jaxmm.data.prepared import checksum
from jaxmm.errors import UserError, WriteError
from jaxmm.experiments.convert import convert
from jaxmm.pretrained import foreign

MADE = pathlib.Path(__file__).parents[1] / "pretrained/torch_made"


def read(path):
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


@pytest.mark.parametrize("name", ["archive.pth", "legacy.pth"])
def test_a_checkpoint(name, tmp_path):
    output = tmp_path / "x.safetensors"
    said = convert(MADE / name, output)
    found, about = read(output)
    expected = foreign.read(MADE / name).weights
    assert sorted(found) == sorted(expected)
    for key, x in expected.items():
        assert found[key].dtype == (np.dtype("f4") if key == "module.brain" else x.dtype) and found[key].shape == x.shape
        np.testing.assert_array_equal(found[key], x.astype(found[key].dtype))
    assert about == {"made_of": name, "sha256": checksum(MADE / name)}
    numbers = sum(x.size for x in expected.values())
    assert said[0].startswith(f"{MADE / name} (file of torch.save") and "weights at model): " in said[0]
    assert f"{len(expected)} arrays, {numbers} numbers -> {output} (" in said[0]
    assert said[1].startswith("the names are those of no model that is known here: module.0.weight, ")
    assert said[2:] == ["1 arrays of bfloat16 are float32 now, which holds the same numbers",
                        "left out: 15 arrays that are no weights; 1 objects: 1 argparse.Namespace"]
    assert list(tmp_path.iterdir()) == [output]


def dense(rng, rows, columns):
    return {"kernel": rng.normal(size=(rows, columns)).astype("f4"), "bias": np.zeros(columns, "f4")}


def test_the_model_and_how_many_of_its_names(tmp_path, capsys):
    rng, d = np.random.default_rng(0), 8
    norm = {"scale": np.ones(d, "f4"), "bias": np.zeros(d, "f4")}
    block = {"LayerNorm_0": norm, "LayerNorm_1": norm,
             "Attention_0": {"Dense_0": dense(rng, d, 3 * d), "Dense_1": dense(rng, d, d)},
             "TransformerMLP_0": {"fc1": dense(rng, d, 4 * d), "fc2": dense(rng, 4 * d, d)}}
    params = {"cls_token": np.zeros((1, 1, d), "f4"), "image_embedding": dense(rng, 12, d),
              "encoder_image_type_embedding": np.ones((1, 1, d), "f4"),
              "encoder": {"Block_0": block, "LayerNorm_0": norm}, "decoder": {"Block_0": block}}
    (tmp_path / "m3ae.pkl").write_bytes(pickle.dumps({"state": {"params": {"params": params}}}, 4))
    command.FLAGS(["convert", f"--weights={tmp_path / 'm3ae.pkl'}", f"--output={tmp_path / 'x.safetensors'}"])
    command.main()
    said = capsys.readouterr().out.splitlines()
    assert "(pickle, weights at state.params.params): 30 arrays" in said[0]
    assert said[1].startswith("M3AE") and said[1].endswith(": encoders read 18 of the 30 names") and len(said) == 2
    found, _ = read(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(found["encoder/Block_0/TransformerMLP_0/fc1/kernel"], block["TransformerMLP_0"]["fc1"]["kernel"])


def test_nothing_is_left_of_what_fails(full_disk, tmp_path):
    (tmp_path / "big.pkl").write_bytes(pickle.dumps({"a": np.zeros(50_000)}))
    with full_disk(), pytest.raises(WriteError, match="x.safetensors could not be written"):
        convert(tmp_path / "big.pkl", tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").symlink_to("nowhere")
    with pytest.raises(UserError, match="exists"):
        convert(tmp_path / "big.pkl", tmp_path / "x.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.pkl", "x.safetensors"]
