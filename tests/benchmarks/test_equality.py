import numpy as np
import pytest

from benchmarks import equality
from jaxmm.methods import METHODS


def test_a_copy_is_in_double_precision_and_the_checkout_as_it_was(tmp_path):
    for package in ("jaxmm/encoders", "configs", "tests"):
        (tmp_path / "checkout" / package).mkdir(parents=True)
    source = tmp_path / "checkout/jaxmm/encoders/conv.py"
    source.write_text("x.astype(jnp.float32)\n")
    equality.copy_in_double(tmp_path / "checkout", tmp_path / "copy")
    assert (tmp_path / "copy/jaxmm/encoders/conv.py").read_text() == "x.astype(jnp.float64)\n"
    assert source.read_text() == "x.astype(jnp.float32)\n"
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["configs", "jaxmm"]


def test_the_difference_is_the_largest_of_any_parameter(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    params = {"kernel": np.array([[1.0, -2.0]]), "bias": np.array([3.0])}
    for folder, moved in zip(folders, (0.0, 0.25)):
        folder.mkdir()
        np.savez(folder / "mla.npz", kernel=params["kernel"] - 2 * moved, bias=params["bias"] + moved)
    assert equality.difference("mla", folders) == 0.5
    np.savez(folders[1] / "mla.npz", kernel=params["kernel"] * np.nan, bias=params["bias"])
    assert np.isnan(equality.difference("mla", folders))
    np.savez(folders[1] / "mla.npz", kernel=params["kernel"])
    assert equality.difference("mla", folders) == np.inf


@pytest.mark.parametrize("name", ["opm", "relearn"])
def test_what_begins_later_has_begun_in_the_second_epoch(name):
    assert getattr(equality.config_of(name).method, METHODS[name].starts) == 1 < equality.EPOCHS
