import numpy as np
import pytest

from jaxmm import data
from jaxmm.config import DataConfig
from jaxmm.errors import UserError


def arrays(**changes):
    rng = np.random.default_rng(0)
    content = {}
    for split, n in (("train", 20), ("val", 6), ("test", 7)):
        content[f"{split}/image"] = rng.integers(0, 255, (n, 4, 4)).astype(np.uint8)
        content[f"{split}/sound"] = rng.normal(size=(n, 3)).astype(np.float32)
        content[f"{split}/label"] = (np.arange(n) % 3).astype(np.int64)
    for name, value in changes.items():
        content[name.replace("__", "/")] = value
    return {k: v for k, v in content.items() if v is not None}


def load(tmp_path, content, **options):
    np.savez(tmp_path / "file.npz", **content)
    return data.load(DataConfig(name="arrays", path=str(tmp_path / "file.npz"), **options))


def test_rows_are_those_of_the_file(tmp_path):
    content = arrays(class_names=np.array(["a", "b", "c"]))
    dataset = load(tmp_path, content)
    assert dataset.class_names == ("a", "b", "c") and set(dataset.modalities) == {"image", "sound"}
    for split, batch in dataset.splits.items():
        for m in dataset.modalities:
            np.testing.assert_array_equal(batch["inputs"][m], content[f"{split}/{m}"])
            assert batch["inputs"][m].dtype == content[f"{split}/{m}"].dtype
            assert batch["present"][m].all()
        np.testing.assert_array_equal(batch["label"], content[f"{split}/label"])
        np.testing.assert_array_equal(batch["id"], np.arange(len(batch["label"])))


def test_without_val_a_seeded_slice_of_train_is_it(tmp_path):
    content = arrays(val__image=None, val__sound=None, val__label=None)
    one, again, other = (load(tmp_path, content, val_fraction=0.25, seed=s) for s in (0, 0, 1))
    parts = [one.splits[s]["inputs"]["sound"] for s in ("train", "val")]
    assert [len(p) for p in parts] == [15, 5]
    rows = np.concatenate(parts)
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)],
                                  content["train/sound"][np.lexsort(content["train/sound"].T)])
    np.testing.assert_array_equal(parts[1], again.splits["val"]["inputs"]["sound"])
    assert not np.array_equal(parts[1], other.splits["val"]["inputs"]["sound"])


def test_missing_modalities_may_hold_anything(tmp_path):
    content = arrays()
    present = np.arange(20) % 2 == 0
    content["train/present/sound"] = present
    content["train/sound"][1] = np.nan
    batch = load(tmp_path, content).splits["train"]
    np.testing.assert_array_equal(batch["present"]["sound"], present)
    assert batch["present"]["image"].all()


@pytest.mark.parametrize("changes, message", [
    (dict(train__label=np.arange(20) / 3), "train/label is float64"),
    (dict(train__label=np.arange(20) - 1), "train/label has the value -1"),
    (dict(test__label=np.arange(7)), "test/label has values from 0 to 6.*0 to 2"),
    (dict(train__label=np.zeros((20, 1), int)), "train/label is int64 of shape \\(20, 1\\)"),
    (dict(train__image=np.zeros((19, 4, 4))), "train/image has 19 rows.*train/label has 20"),
    (dict(val__image=np.zeros((6, 4, 5))), "val/image has rows of shape \\(4, 5\\).*\\(4, 4\\)"),
    (dict(val__image=None), "val has the modalities \\['sound'\\], train has"),
    (dict(test__image=None, test__sound=None, test__label=None), "no test split"),
    (dict(test__label=None), "test/label is missing"),
    (dict(test__image=None, test__sound=None), "test/MODALITY is missing"),
    (dict(test__image=np.zeros((0, 4, 4)), test__sound=np.zeros((0, 3)),
          test__label=np.zeros(0, int)), "test has no rows"),
    (dict(train__sound=np.full((20, 3), np.nan)), "train/sound has values that are not finite"),
    (dict(train__sound=np.array([["a"]] * 20)), "train/sound is <U1"),
    (dict(train__sound=np.zeros(20)), "train/sound is float64 of shape \\(20,\\)"),
    (dict(image=np.zeros((20, 3))), "unexpected array 'image'"),
    (dict(dev__image=np.zeros((20, 3))), "unexpected array 'dev/image'"),
    (dict(train__present__smell=np.ones(20, bool)), "train/present/smell names no modality"),
    (dict(train__present__sound=np.ones(19, bool)), "present/sound has 19 rows"),
    (dict(train__present__sound=np.zeros(20, bool), train__present__image=np.zeros(20, bool)),
     "20 rows without any modality"),
])
def test_what_cannot_be_trained_on_is_named_in_one_line(changes, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, arrays(**changes))
    assert "\n" not in str(caught.value)


def test_pickled_objects_are_not_loaded(tmp_path):
    with pytest.raises(UserError, match="pickled"):
        load(tmp_path, arrays(train__sound=np.array([{}] * 20, dtype=object)))


@pytest.mark.parametrize("damage, message", [
    (lambda path: path.unlink(), "no such file"),
    (lambda path: path.write_bytes(path.read_bytes()[:-100]), "damaged or cut short"),
    (lambda path: path.write_bytes(path.read_bytes()[:100]), "damaged or cut short"),
    (lambda path: path.write_bytes(b""), "damaged or cut short"),
    (lambda path: path.write_bytes(b"Dear diary, today"), "no .npz file"),
])
def test_damaged_files(damage, message, tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, **arrays())
    damage(path)
    with pytest.raises(UserError, match=message):
        data.load(DataConfig(name="arrays", path=str(path)))


def test_a_single_array_is_no_npz(tmp_path):
    np.save(tmp_path / "file.npy", np.zeros(3))
    with pytest.raises(UserError, match="no .npz file|damaged"):
        data.load(DataConfig(name="arrays", path=str(tmp_path / "file.npy")))


def test_options_of_the_data_set(tmp_path):
    with pytest.raises(UserError, match="data.path is empty"):
        data.load(DataConfig(name="arrays"))
    with pytest.raises(UserError, match="'digits' is no data set; expected one of arrays, av_digits"):
        data.load(DataConfig(name="digits"))
    content = arrays(val__image=None, val__sound=None, val__label=None)
    for fraction in (0.0, 1.0, 0.001):
        with pytest.raises(UserError, match="val_fraction"):
            load(tmp_path, content, val_fraction=fraction)
