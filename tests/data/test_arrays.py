import zipfile

import numpy as np
import pytest

from jaxmm import data
from jaxmm.config import DataConfig
from jaxmm.data.arrays import memory_left, read
from jaxmm.data.dataset import say
from jaxmm.errors import UserError


ROWS = {"train": 20, "val": 6, "test": 7}


def arrays(**changes):
    rng = np.random.default_rng(0)
    content = {}
    for split, n in ROWS.items():
        content[f"{split}/image"] = rng.integers(0, 255, (n, 4, 4)).astype(np.uint8)
        content[f"{split}/sound"] = rng.normal(size=(n, 3)).astype(np.float32)
        content[f"{split}/label"] = (np.arange(n) % 3).astype(np.int64)
    for name, value in changes.items():
        content[name.replace("__", "/")] = value
    return {k: v for k, v in content.items() if v is not None}


def with_labels(label, **changes):
    """The arrays with these labels of train, and the first of them in the other splits."""
    return arrays(**{f"{s}__label": label[:n] for s, n in ROWS.items()} | changes)


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
    (dict(train__label=np.arange(20) / 3), "val/label is int64, train/label float64"),
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
    (lambda path: path.write_bytes(b"Dear diary, today"), "is not an .npz file"),
])
def test_damaged_files(damage, message, tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, **arrays())
    damage(path)
    with pytest.raises(UserError, match=message):
        data.load(DataConfig(name="arrays", path=str(path)))


def test_a_single_array_is_no_npz(tmp_path):
    np.save(tmp_path / "file.npy", np.zeros(3))
    with pytest.raises(UserError, match="not an .npz file|damaged"):
        data.load(DataConfig(name="arrays", path=str(tmp_path / "file.npy")))


def test_options_of_the_data_set(tmp_path):
    with pytest.raises(UserError, match="data.path is empty"):
        data.load(DataConfig(name="arrays"))
    with pytest.raises(UserError, match="'digits' is not a data set; did you mean av_digits. Expected one of arrays, av_digits"):
        data.load(DataConfig(name="digits"))
    content = arrays(val__image=None, val__sound=None, val__label=None)
    for fraction in (0.0, 1.0, 0.001):
        with pytest.raises(UserError, match="val_fraction"):
            load(tmp_path, content, val_fraction=fraction)


@pytest.mark.parametrize("dtype", ["U", "S"])
def test_labels_that_are_names(dtype, tmp_path):
    """Classes in their order, numbers as numbers, in every split by the names of train."""
    names = np.array(["10", "b", "9", "a"], dtype)
    content = arrays(**{f"{s}__label": names[np.arange(n) % 4] for s, n in ROWS.items()})
    dataset = load(tmp_path, content)
    assert dataset.class_names == ("9", "10", "a", "b")
    assert dataset.splits["test"]["label"].tolist() == [1, 3, 0, 2, 1, 3, 0]
    named = load(tmp_path, content | {"class_names": np.array(["a", "b", "c", "9", "10"], dtype)})
    assert named.class_names == ("a", "b", "c", "9", "10")
    assert named.splits["test"]["label"].tolist() == [4, 1, 3, 0, 4, 1, 3]


@pytest.mark.parametrize("label, names, known, dtype", [
    ((np.arange(20) % 3).astype(">u8"), None, "012", np.int32),
    (np.linspace(-2, 3, 20), None, "0", np.float32),
    (np.linspace(-2, 3, 20), ["valence"], ["valence"], np.float32),
    (np.linspace(-2, 3, 40).reshape(20, 2), None, "01", np.float32),
    (np.arange(60).reshape(20, 3) % 7 < 3, ["a", "b", "c"], "abc", bool)])
def test_the_type_of_the_labels_is_kept(label, names, known, dtype, tmp_path):
    dataset = load(tmp_path, with_labels(label, label_names=names and np.array(names)))
    assert dataset.class_names == tuple(known)
    for split, n in ROWS.items():
        found = dataset.splits[split]["label"]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, np.asarray(label[:n], dtype).reshape(found.shape))


@pytest.mark.parametrize("label, said", [
    (np.arange(20) % 5.0, "holds whole numbers as floats, taken as numbers to predict; if they are classes"),
    (np.stack([np.full(20, 0.5), np.linspace(0, 1, 20), np.linspace(0, 1e4, 20)], 1),
     "1 of 3 numbers to predict are constant, and tell nothing (0)|1 of 3 numbers to predict are far from 0 "
     "or from a deviation of 1"),
    (np.arange(60).reshape(20, 3) % 3 == 1, "1 of 3 labels hold for none of the training examples: 0|"
     "1 of 3 labels hold for every one of the training examples: 1")])
def test_labels_that_are_doubtful_are_said(label, said, tmp_path, caplog):
    say.cache_clear()
    if label.dtype == bool:
        label[:, 0], label[:, 1], label[0, 2] = False, True, True
    load(tmp_path, with_labels(label))
    lines = [record.getMessage() for record in caplog.records]
    for line, expected in zip(lines, said.split("|"), strict=True):
        assert expected in line


def test_slices_of_train_for_validation_by_kind_of_labels(tmp_path):
    """Sets of labels have their share each, those that occur once together; numbers are just drawn."""
    sets = np.array([[0, 0, 1]] * 8 + [[1, 0, 1]] * 8 + [[0, 1, 0], [1, 1, 1], [0, 0, 0], [1, 1, 0]], bool)
    no_val = dict(val__image=None, val__sound=None)
    no_val = dict(val__image=None, val__sound=None, val__label=None)

    def drawn_of(label, seed):
        content = arrays(train__label=label, test__label=label[:7], **no_val)
        return load(tmp_path, content, val_fraction=0.25, seed=seed).splits["val"]["label"]

    found = [tuple(row) for row in drawn_of(sets, 0).astype(int)]
    assert len(found) == 5 and found.count((0, 0, 1)) == found.count((1, 0, 1)) == 2
    numbers = np.linspace(0, 1, 20)
    drawn = [drawn_of(numbers, seed)[:, 0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert len(drawn[0]) == 5 and np.isin(drawn[0], numbers.astype(np.float32)).all()
    assert drawn[0].tolist() != drawn[2].tolist()


def test_masks_of_numbers_and_inputs_of_any_byte_order(tmp_path):
    content = arrays()
    content["train/present/sound"] = np.arange(20) % 2
    content |= {f"{s}/image": content[f"{s}/image"].astype(">i4")[:, ::-1] for s in ROWS}
    batch = load(tmp_path, content).splits["train"]
    np.testing.assert_array_equal(batch["present"]["sound"], np.arange(20) % 2 == 1)
    np.testing.assert_array_equal(batch["inputs"]["image"], content["train/image"])
    assert batch["inputs"]["image"].dtype == np.int32


NAMES = np.array(["a", "b"])


def with_row_7(value):
    """Labels 0 and 1 of which one is another value."""
    return np.where(np.arange(20) == 7, value, np.arange(20) % 2)


@pytest.mark.parametrize("changes, message", [
    (dict(train__label=with_row_7(10**9)), "3 different numbers, up to 1000000000: 0, 1, 1000000000"),
    (dict(train__label=with_row_7(255)), "3 different numbers, up to 255"),
    (dict(train__label=with_row_7(2**32)), "train/label has the value 4294967296 in row 7"),
    (with_labels(with_row_7(np.nan)), "train/label has the value nan in row 7"),
    (dict(train__label=with_row_7(-1)), "value -1 in row 7.*remove rows without a class"),
    (with_labels(np.eye(20, dtype=int)), "argmax\\(1\\) is the class of one-hot"),
    (with_labels(np.arange(20) % 2 == 0), "train/label is bool of shape \\(20,\\).*two classes"),
    (dict(test__label=np.zeros((7, 1), bool)), "test/label is bool, train/label int64; give every split"),
    (with_labels(np.ones((20, 2)) / 3, test__label=np.ones((7, 3)) / 3),
     "test/label has rows of 3; expected 2, one for each of 0, 1"),
    (with_labels(np.ones((20, 2)) / 3, label_names=NAMES[:1]), "rows of 2; expected 1, one for each of a"),
    (with_labels(np.ones((20, 2)) / 3, class_names=NAMES),
     "class_names is not for labels of float64 \\[20, 2\\]; call it label_names"),
    (dict(label_names=NAMES), "label_names is not for labels of int64 \\[20\\]; call it class_names"),
    (with_labels(np.ones((20, 2)) / 3, label_names=NAMES[[0, 0]]), "holds 'a' twice"),
    (dict(train__label=NAMES[np.arange(20) % 2]), "val/label is int64, train/label <U1"),
    (dict(test__label=NAMES[np.arange(7) % 2]), "test/label is <U1, train/label int64"),
    ({f"{s}__label": np.array(["a", "b", "c"])[np.arange(n) % (3 if s == "test" else 2)]
      for s, n in ROWS.items()},
     "test/label is 'c' in row 2, which is not among the labels of train \\(a, b\\); 2 such rows"),
    (dict(train__label=np.array(["a", " "])[np.arange(20) % 2], val__label=NAMES[[0] * 6],
          test__label=NAMES[[0] * 7]), "train/label is empty in row 1"),
    (dict(train__label=np.array([b"\xff"] * 20), val__label=NAMES[[0] * 6], test__label=NAMES[[0] * 7]),
     "train/label is not UTF-8 text"),
    (dict(class_names=np.array(["a", "b"])), "train/label has values from 0 to 2.*0 to 1"),
    (dict(class_names=np.array(["a", "b", "a"])), "class_names holds 'a' twice"),
    (dict(class_names=np.array(["a", "", "b"])), "class_names is empty in row 1"),
    (dict(class_names=np.zeros((3, 1))), "class_names is float64 of shape \\(3, 1\\)"),
    (dict(train__present__sound=np.full(20, 0.5)), "train/present/sound is float64.*value 0.5 in row 0"),
    (dict(train__present__sound=np.full(20, "no")), "train/present/sound is <U2"),
    (dict(train__sound=np.zeros((20, 3), complex)), "train/sound is complex128"),
    (dict(train__sound=np.zeros((20, 3), "M8[s]")), "train/sound is datetime64"),
    (dict(train__sound=np.zeros((20, 3), [("x", "f4")])), "train/sound is"),
    (dict(train__sound=np.zeros((20, 0), "f4"), val__sound=np.zeros((6, 0), "f4"),
          test__sound=np.zeros((7, 0), "f4")), "train/sound is float32 of shape \\(20, 0\\)"),
    (dict(train__sound=np.float32(3)), "train/sound has no rows"),
    (dict(train__left__sound=np.zeros((20, 3))), "may not be called 'left/sound'|modalities"),
    (dict(test__image=np.ones((7, 4, 4)) / 3), "test/image reaches .*bytes"),
])
def test_what_would_become_something_else_is_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, arrays(**changes))
    assert "\n" not in str(caught.value)


def test_classes_that_are_named_may_lack_examples(tmp_path, caplog):
    say.cache_clear()
    dataset = load(tmp_path, arrays(class_names=np.arange(30, 45)))
    assert dataset.class_names == tuple(map(str, range(30, 45)))
    assert "12 of 15 classes have no training example: 33, 34, 35, 36, 37 and 7 more" in caplog.text


def test_a_file_larger_than_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    content = arrays(train__sound=np.zeros((20, 1000), np.float32))
    monkeypatch.setattr("jaxmm.data.arrays.memory_left", lambda: 50_000)
    monkeypatch.setattr("numpy.lib.format.read_array", None)
    with pytest.raises(UserError, match="its arrays take 0.0 GiB of memory, 0.0 GiB are left"):
        load(tmp_path, content)
    assert 2**20 < memory_left() < 2**50


def header(shape, dtype="<f4"):
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + (len(text) + 1).to_bytes(2, "little") + text + b"\n"


@pytest.mark.parametrize("name, content, message", [
    ("train/sound.npy", header((2**40, 3)) + bytes(240), "says float32 of shape \\(1099511627776, 3\\)"),
    ("train/sound.npy", header((2**62, 4)) + bytes(240), "and holds 240"),
    ("train/sound.npy", header((20, 3)) + bytes(244), "240 bytes, and holds 244"),
    ("train/sound.npy", header((-20, -3)) + bytes(240), "damaged|no array|invalid"),
    ("train/sound.npy", header((2**40,), "<U0"), "says <U0"),
    ("train/sound.npy", b"\x93NUMPY\x03\x00" + bytes(99), "version \\(3, 0\\)"),
    ("train/sound.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(99), "damaged"),
    ("train/sound.npy", b"", "damaged"),
    ("notes.txt", b"Dear diary", "holds 'notes.txt', which is not an array"),
    ("train/image.npy", header((1, 1)) + bytes(4), "holds train/image.npy twice"),
])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_headers_that_lie(name, content, message, tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, **arrays(train__sound=None))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, content)
    with pytest.raises(UserError, match=message) as caught:
        data.load(DataConfig(name="arrays", path=str(path)))
    assert "\n" not in str(caught.value)


def damage(content: bytes, rng) -> bytes:
    """One of the ways in which files break."""
    kind, size = rng.integers(8), len(content)
    place, end = np.sort(rng.integers(size, size=2))
    directory = content.index(b"PK\x01\x02")
    damaged = bytearray(content)
    if kind == 0:
        damaged[place] ^= 1 << rng.integers(8)
    elif kind == 1:
        del damaged[place:]
    elif kind == 2:
        part = rng.bytes(rng.integers(1, 64))
        damaged[place:place + len(part)] = part
    elif kind == 3:
        damaged[place:place] = content[place:end]
    elif kind == 4:
        del damaged[place:min(end, place + 64)]
    elif kind == 5:
        damaged[rng.integers(directory, size)] = rng.integers(256)
    elif kind == 6:
        header = content.index(b"{'descr'") if b"{'descr'" in content else place
        damaged[header + rng.integers(60)] = rng.choice(list(b"0123456789<>if'"))
    else:
        damaged[place:place + 512] = bytes(len(damaged[place:place + 512]))
    return bytes(damaged)


def test_damaged_files_are_refused_or_the_same(tmp_path):
    """1000 files: none gives other arrays, or an error that is none of ours."""
    content = arrays(class_names=np.array(["a", "b", "c"]))
    rng, path, refused = np.random.default_rng(0), tmp_path / "file.npz", 0
    whole = []
    for save in (np.savez, np.savez_compressed):
        save(path, **content)
        whole.append(path.read_bytes())
    for i in range(1000):
        path.write_bytes(damage(whole[i % 2], rng))
        try:
            found = read(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
            continue
        assert found.keys() == content.keys()
        for name, x in content.items():
            assert found[name].dtype == x.dtype
            np.testing.assert_array_equal(found[name], x)
    assert 700 < refused < 1000     # the others hit what no reader looks at


def test_the_message_says_where_it_looked(tmp_path, monkeypatch):
    def message(path):
        with pytest.raises(UserError) as caught:
            data.load(DataConfig(name="arrays", path=str(path)))
        return str(caught.value)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "Mine.NPZ.npz", **arrays())
    (tmp_path / "Mine.NPZ.npz").rename(tmp_path / "Mine.NPZ")
    assert data.load(DataConfig(name="arrays", path="~/Mine.NPZ")).num_classes == 3
    assert message("mine.npz").startswith(f"mine.npz: no such file in {tmp_path}, but Mine.NPZ; expected")
    assert message("mine").startswith(f"mine: no such file in {tmp_path}, but Mine.NPZ; expected")
    assert message("~/other.npz").startswith(f"{tmp_path}/other.npz: no such file; expected")
    assert message(tmp_path).startswith(f"{tmp_path}: is a folder; expected")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    (tmp_path / "lfs.npz").write_text(pointer)
    assert "lfs.npz: is a git-lfs pointer in place of the file, which `git lfs pull`" in message("lfs.npz")


def dense_arrays(**changes):
    rng, found = np.random.default_rng(0), {}
    for split in ("train", "test"):
        maps = rng.integers(-1, 3, (6, 4, 5))
        maps[:, 0, :3] = [0, 1, 2]
        found |= {f"{split}/rgb": rng.integers(0, 255, (6, 4, 5, 3), np.uint8), f"{split}/map": maps,
                  f"{split}/depth": rng.normal(size=(6, 4, 5)).astype(np.float32)}
    found |= {name: x for name, x in changes.items() if x is not None}
    return {name: x for name, x in found.items() if changes.get(name, x) is not None}


def test_a_target_is_predicted_and_no_modality(tmp_path):
    content = dense_arrays(**{"train/present/depth": np.arange(6) != 2})
    found = load(tmp_path, content, target="map", val_fraction=0.34)
    assert (found.modalities, found.target, found.class_names) == (("depth", "rgb"), "map", ("0", "1", "2"))
    assert {s: len(x["label"]) for s, x in found.splits.items()} == {"train": 4, "val": 2, "test": 6}
    test = found.splits["test"]
    np.testing.assert_array_equal(test["inputs"]["map"], content["test/map"])
    assert not test["label"].any() and sorted(test["present"]) == ["depth", "rgb"]
    both = np.concatenate([found.splits[s]["present"]["depth"] for s in ("train", "val")])
    assert both.sum() == 5
    named = load(tmp_path, content | {"class_names": np.array(["a", "b", "c"])}, target="map")
    assert named.class_names == ("a", "b", "c")


@pytest.mark.parametrize("changes, message", [
    ({"train/map": None}, "train/map is missing; data.target=map names the class of every pixel"),
    ({"train/label": np.zeros(6, int)}, "train/label is there beside data.target=map"),
    ({"test/present/map": np.ones(6, bool)}, "test/present/map is there beside data.target=map"),
    ({"test/map": np.full((6, 4, 5), 3)}, "test/map has values from 3 to 3 in row 0; expected class numbers from 0 to 2"),
    ({"train/map": np.full((6, 4, 5), -1)}, "train/map is void in every pixel of 6 rows"),
    ({"train/map": np.full((6, 4, 5), 255)}, "train/map has 1 different numbers, up to 255"),
    ({"train/map": np.zeros((6, 4, 5, 1), int)}, "train/map is int64 of shape .6, 4, 5, 1.; expected integers"),
    ({f"{s}/map": np.zeros((6, 4, 6), int) for s in ("train", "test")}, "train/depth has rows of shape .4, 5., the class maps map of .4, 6."),
    ({f"{s}/{m}": x for s in ("train", "test") for m, x in (("rgb", None), ("depth", None))},
     "map is the only input, and what is predicted"),
    ({f"{s}/sound": np.zeros((6, 7)) for s in ("train", "test")}, "train/sound has rows of shape .7,., the class maps")])
def test_what_a_segmentation_cannot_be_made_of(changes, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path, dense_arrays(**changes), target="map")
    assert "\n" not in str(error.value)
