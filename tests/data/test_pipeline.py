import json
import pathlib

import numpy as np
import pytest

from jaxmm import data
from jaxmm.config import (Config, DataConfig, EncoderConfig, FlowConfig, FramesConfig, MapConfig, PictureConfig,
                          PreprocessConfig, SpectrogramConfig, TextConfig)
from jaxmm.data import pipeline
from jaxmm.data.dataset import fingerprint, statistics
from jaxmm.data.feeding import count_pixels
from jaxmm.data.new_rows import read_blocks
from jaxmm.data.prepared import Sound, open_prepared
from jaxmm.data.rows import Rows
from jaxmm.data.spec import from_json, make_spec, to_json
from jaxmm.errors import UserError
from jaxmm.methods import method_config
from jaxmm.prepare.decode import Options
from jaxmm.prepare.run import prepare
from jaxmm.train.setup import build

SOUND = SpectrogramConfig(rate=8000, seconds=0.25, n_fft=64, hop=32)
IMAGE = FramesConfig(height=16, width=24, size=8)


@pytest.fixture(name="made", scope="module")
def prepared_folders(layouts, tmp_path_factory):
    """made(name): the folder of a prepared data set, made at its first use, and what it is made of."""
    root, found = tmp_path_factory.mktemp("pipeline"), {}

    def make(name, maker=None, allow_missing=False, change=lambda source: None, **options):
        if name not in found:
            content = getattr(layouts, maker or name)(root / name / "source", **options)
            change(root / name / "source")
            prepare(maker or name, root / name / "source", root / name, Options(),
                    allow_missing=allow_missing, progress=False)
            found[name] = str(root / name / (maker or name)), content
        return found[name]
    return make


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXMM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config(path, **options):
    sections = {m: options.pop(m) for m in list(options) if isinstance(options[m], PreprocessConfig)}
    name = options.pop("name", pathlib.Path(path).name)
    return DataConfig(name=name, path=path, preprocess=sections, **options)


def test_rows_labels_and_classes_are_those_of_the_records(made):
    path, _ = made("cremad")
    dataset = data.load(config(path, audio=SOUND, visual=IMAGE, placement="host"))
    records = open_prepared(path).splits["test"]
    test = dataset.splits["test"]
    assert dataset.class_names == ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
    assert dataset.modalities == ("audio", "visual")
    np.testing.assert_array_equal(test["label"], [record["label"] for record in records])
    np.testing.assert_array_equal(test["id"], np.arange(len(records)))
    assert all(isinstance(x, Rows) for x in test["inputs"].values())
    samples = records[3]["inputs"]["audio"].samples            # 16 kHz, to 8 kHz
    np.testing.assert_allclose(test["inputs"]["audio"][3][100:-100], samples[200:-200:2], atol=200)
    red = test["inputs"]["visual"][3]
    assert red.shape == (16, 24, 3)
    np.testing.assert_allclose(red.mean((0, 1)), [210, 10, 10], atol=3)     # frame 2 of 3


def test_rows_in_memory_are_those_that_are_streamed(made):
    path, _ = made("cremad")
    streamed, kept = (data.load(config(path, audio=SOUND, visual=IMAGE, placement=p)).splits
                      for p in ("host", "auto"))
    for split in ("train", "val", "test"):
        for m, rows in streamed[split]["inputs"].items():
            assert isinstance(kept[split]["inputs"][m], np.ndarray)
            np.testing.assert_array_equal(kept[split]["inputs"][m], rows[np.arange(len(rows))])


def test_validation_data_is_cut_from_train(made):
    path, content = made("cremad")
    sizes = {}
    for fraction in (0.5, 0.25):
        splits = data.load(config(path, audio=SOUND, visual=IMAGE, val_fraction=fraction)).splits
        sizes[fraction] = [len(splits[s]["label"]) for s in ("train", "val", "test")]
    train = sum(split == "train" for split, _ in content.values())
    assert sizes[0.5] == [train // 2, train // 2, len(content) - train]
    assert sizes[0.25][1] == 6 > round(0.25 * train)    # one of each class at least


def test_the_index_is_kept_and_a_damaged_one_is_made_again(made, cache, monkeypatch):
    path, _ = made("mvsa", clips=5)
    options = config(path, text=TextConfig(length=12), visual=IMAGE)
    first = data.load(options)
    files = list(cache.glob("index_*"))
    assert len(files) == 3                                      # one a split
    monkeypatch.setattr(pipeline.Records, "__iter__", None)     # not to be read through again
    monkeypatch.setattr(pipeline.Records, "__getitem__", lambda *_: {"inputs": {"visual": []}})
    again = data.load(options)
    np.testing.assert_array_equal(again.splits["test"]["inputs"]["text"],
                                  first.splits["test"]["inputs"]["text"])
    monkeypatch.undo()
    monkeypatch.setenv("JAXMM_CACHE", str(cache))
    files[0].write_bytes(b"damaged")
    third = data.load(options)
    assert fingerprint(third) == fingerprint(first)


def test_texts_are_tokens_of_a_vocabulary_made_of_train_alone(made):
    path, _ = made("mvsa", clips=5)
    dataset = data.load(config(path, text=TextConfig(length=12), visual=IMAGE))
    text = dataset.splits["train"]["inputs"]["text"]
    assert text.shape == (27, 12) and text.dtype == np.int32
    assert text.max() < dataset.num_tokens["text"] and (text[:, 0] == text[0, 0]).all()
    assert not dataset.splits["train"]["inputs"]["visual"].dtype == np.int32
    # A run keeps it: other texts, or a file that is gone, change nothing then.
    kept = dataset.vocabularies["text"]
    assert len(kept) == dataset.num_tokens["text"] and kept[0] == "[PAD]"
    other = (*kept[:5], *reversed(kept[5:]))
    again = data.load(config(path, text=TextConfig(length=12, vocabulary="gone.txt"), visual=IMAGE),
                      {"text": other})
    assert again.vocabularies["text"] == other
    number = np.array([other.index(token) for token in kept])
    np.testing.assert_array_equal(again.splits["train"]["inputs"]["text"], number[text])


def test_a_run_keeps_a_tokenizer_that_is_not_wordpiece(made, tmp_path):
    """The byte pairs of CLIP: 512 bytes, "da", "day", start and end."""
    path, _ = made("mvsa", clips=5)
    merges = tmp_path / "merges.txt"
    merges.write_text("#version: 0.2\nd a\nda y</w>\n")
    section = TextConfig(length=12, vocabulary=str(merges))
    dataset = data.load(config(path, text=section, visual=IMAGE))
    ids = dataset.splits["train"]["inputs"]["text"]
    assert dataset.num_tokens["text"] == 516 and (ids[:, 0] == 514).all() and (ids.max(1) == 515).all()
    assert (ids == 513).any(1).all()        # every text says "day"
    kept = dataset.vocabularies["text"]
    spec = make_spec(dataset, None, [], {}, {"text": section})
    assert from_json(json.loads(json.dumps(to_json(spec)))).vocabularies["text"] == kept
    merges.unlink()
    again = data.load(config(path, text=section, visual=IMAGE), {"text": kept})
    np.testing.assert_array_equal(again.splits["train"]["inputs"]["text"], ids)
    blocks = read_blocks(path, spec, config(path, text=section, visual=IMAGE, placement="host"), 99, "test")
    np.testing.assert_array_equal(next(blocks)[1]["inputs"]["text"], dataset.splits["test"]["inputs"]["text"])


@pytest.mark.parametrize("name, lines, message", [
    ("clip", "", "encoders.text: its feature stands at the token with the highest id"),
    ("transformer", "#version: 0.2\nd a", "encoders.text takes the id 0 for padding, which is '!' in"),
    ("bag", "#version: 0.2\nd a", "encoders.text takes the id 0 for padding, which is '!' in")])
def test_an_encoder_that_cannot_read_the_vocabulary_is_refused(name, lines, message, made, tmp_path):
    path, _ = made("mvsa", clips=5)
    (tmp_path / "merges.txt").write_text(lines)
    section = TextConfig(length=12, vocabulary=str(tmp_path / "merges.txt") if lines else "")
    options = Config(data=config(path, text=section, visual=IMAGE), method=method_config("late"))
    options.encoders["text"], options.train.batch_size = EncoderConfig(name=name, width=4, depth=1), 4
    with pytest.raises(UserError, match=message):
        build(options)


def test_rows_of_a_prepared_split_are_read_for_a_trained_model(made):
    """Texts by the vocabulary of the run, images on demand; named by their keys, labels not read."""
    path, _ = made("mvsa", clips=5)
    options = config(path, text=TextConfig(length=12), visual=IMAGE, placement="host")
    dataset = data.load(options)
    spec = make_spec(dataset, None, [], {}, options.preprocess)
    with pytest.raises(UserError, match="has the splits train, val, test; name one by --split"):
        next(read_blocks(path, spec, options, 4))
    blocks = list(read_blocks(path, spec, options, 4, "test"))
    test, records = dataset.splits["test"], open_prepared(path).splits["test"]
    assert [name for names, _ in blocks for name in names] == [record["key"] for record in records]
    for m in ("text", "visual"):
        np.testing.assert_array_equal(np.concatenate([b["inputs"][m] for _, b in blocks]),
                                      test["inputs"][m][np.arange(len(records))])
    assert {len(names) for names, _ in blocks[:-1]} == {4} and not blocks[0][1]["label"].any()
    other = spec._replace(vocabularies={"text": (*spec.vocabularies["text"], "more")})
    forms = {"visual": spec.forms["visual"]}
    assert next(read_blocks(path, other, options, 4, "test"))[1]["inputs"]["text"].shape == (4, 12)
    with pytest.raises(UserError, match="'text' is not a modality of the model; expected one of visual"):
        next(read_blocks(path, spec._replace(forms=forms), options, 4, "test"))


def test_vectors_are_arrays_or_many_are_read_on_demand(made, monkeypatch, tmp_path):
    path, _ = made("mosi")
    dataset = data.load(config(path))
    text = dataset.splits["train"]["inputs"]["text"]
    assert text.ndim == 3 and text.dtype == np.float32
    records = open_prepared(path).splits["train"]
    np.testing.assert_array_equal(text[2], records[2]["inputs"]["text"])
    # Many of them stay on disk.
    monkeypatch.setattr(pipeline, "FEW_BYTES", 100)
    monkeypatch.setenv("JAXMM_CACHE", str(tmp_path))
    rows = data.load(config(path, placement="host")).splits["train"]["inputs"]["text"]
    assert isinstance(rows, Rows)
    np.testing.assert_array_equal(rows[np.arange(len(rows))], text)


def test_examples_that_lack_a_file_are_marked(made):
    def remove(source):
        (source / "audio/yt-0000_000030.wav").unlink()
    path, _ = made("incomplete", "vggsound", allow_missing=True, change=remove, clips=5)
    dataset = data.load(config(path, audio=SOUND, visual=IMAGE))
    present = [dataset.splits[s]["present"]["audio"] for s in ("train", "val", "test")]
    assert sum((~p).sum() for p in present) == 1
    for split in dataset.splits.values():
        assert split["present"]["visual"].all()
        assert not split["inputs"]["audio"][~split["present"]["audio"]].any()


def test_fingerprints_follow_the_data_and_how_it_is_read(made):
    path, _ = made("cremad")
    other, _ = made("more", "cremad", actors=6)
    prints = [fingerprint(data.load(config(p, audio=SOUND, visual=v, placement="host")))
              for p, v in ((path, IMAGE), (path, IMAGE), (other, IMAGE),
                           (path, FramesConfig(height=16, width=20)))]
    assert prints[0] == prints[1]
    for split in ("train", "val", "test"):
        assert len({each[split] for each in prints}) == 3


def test_statistics_of_many_rows_are_those_of_a_sample(monkeypatch):
    monkeypatch.setattr("jaxmm.data.dataset.SAMPLED_ROWS", 50)
    read = []

    def row(record, position):
        read.append(position)
        return np.array([record % 9], np.uint8)

    rows = Rows(range(700), row, (1,), np.uint8, 0)
    found = statistics({"inputs": {"x": rows}, "present": {"x": np.arange(700) % 2 == 0}})["x"]
    assert len(read) == len(set(read)) == 50 and not np.mod(read, 2).any()
    np.testing.assert_allclose(found, [[4], [2.58]], atol=0.3)


@pytest.mark.parametrize("sections, message", [
    ({"audio": SOUND}, "data.preprocess.visual.kind=''.*as frames; expected 'frames'"),
    ({"audio": TextConfig(), "visual": IMAGE}, "audio.kind='text'.*expected 'spectrogram'"),
    ({"audio": SOUND, "visual": FlowConfig()}, "visual.kind='flow'.*expected 'frames'"),
    ({"audio": SOUND, "visual": IMAGE, "smell": IMAGE}, "'smell'; expected one of audio, visual"),
    ({"audio": SOUND, "visual": FramesConfig(fit="x")}, "data.preprocess.visual.fit='x'")])
def test_sections_that_do_not_fit(sections, message, made):
    with pytest.raises(UserError, match=message):
        data.load(config(made("cremad")[0], **sections))


def test_folders_that_hold_no_data_set(made, tmp_path):
    with pytest.raises(UserError, match="data.path is empty.*DIR/cremad"):
        data.load(config("", name="cremad"))
    with pytest.raises(UserError, match="expected a prepared data set"):
        data.load(config(str(tmp_path), name="cremad"))
    with pytest.raises(UserError, match="holds nyuv2; expected cremad"):
        data.load(config(made("nyuv2")[0], name="cremad"))
    with pytest.raises(UserError, match="nyuv2 has no classes.*for a segmentation .* --config.data.target=segments"):
        pipeline.load(config(made("nyuv2")[0]))


ROOMS = {"rgb": PictureConfig(height=8, width=12), "depth": MapConfig(height=8, width=12),
         "segments": MapConfig(height=8, width=12)}


@pytest.mark.parametrize("placement", ["host", "device"])
def test_class_maps_are_rows_like_those_of_modalities(placement, made):
    path, _ = made("rooms", "nyuv2", rooms=4)
    dataset = data.load(config(path, target="segments", placement=placement, val_fraction=0.25, **ROOMS))
    assert (dataset.modalities, dataset.target) == (("depth", "rgb"), "segments")
    assert dataset.num_classes == 40 and dataset.class_names[39] == "otherprop"
    assert {s: len(x["label"]) for s, x in dataset.splits.items()} == {"train": 3, "val": 1, "test": 4}
    test = dataset.splits["test"]
    assert not test["label"].any() and sorted(test["present"]) == ["depth", "rgb"]
    assert all(isinstance(x, Rows) == (placement == "host") for x in test["inputs"].values())
    read = {m: x[np.arange(4)] for m, x in test["inputs"].items()}
    assert {m: (x.shape, x.dtype.name) for m, x in read.items()} == {
        "rgb": ((4, 8, 12, 3), "uint8"), "depth": ((4, 8, 12), "uint16"), "segments": ((4, 8, 12), "int16")}
    np.testing.assert_array_equal(read["segments"][:, 5, 5], [1, 3, 5, 7])      # of rooms 1, 3, ..: less one
    assert (read["segments"][:, :2, :2] == -1).all()
    np.testing.assert_array_equal(read["depth"][:, 0, 0], [1001, 1003, 1005, 1007])
    np.testing.assert_allclose(read["rgb"][:, 5, 5, 0], [10, 30, 50, 70], atol=3)
    pixels, area = count_pixels(test["inputs"]["segments"], np.array([1, 3]), 40)
    assert {c: n for c, n in enumerate(pixels) if n} == {3: 92, 7: 92} and set(area[[3, 7]]) == {96}
    spec = make_spec(dataset, None, [np.arange(3)], {}, ROOMS)
    assert sorted(spec.norms) == ["depth", "rgb"] == list(spec.modalities)
    assert to_json(from_json(json.loads(json.dumps(to_json(spec))))) == to_json(spec)


@pytest.mark.parametrize("options, message", [
    ({"target": "depth"}, "data.target='depth' is no map of classes.*segments"),
    ({"rgb": FramesConfig()}, "data.preprocess.rgb.kind='frames'.*expected 'picture'"),
    ({"depth": PictureConfig()}, "data.preprocess.depth.kind='picture'.*expected 'map'"),
    ({"depth": MapConfig(height=0)}, "data.preprocess.depth.height=0; expected a number of at least 1"),
    ({"depth": MapConfig(height=8, width=16)}, "train/depth has rows of shape .8, 16., the class maps segments of .8, 12.")])
def test_what_a_prepared_segmentation_cannot_be_read_as(options, message, made):
    with pytest.raises(UserError, match=message):
        data.load(config(made("rooms", "nyuv2", rooms=4)[0], **{"target": "segments", "val_fraction": 0.25} | ROOMS | options))


def test_every_prepared_data_set_can_be_named():
    from jaxmm.prepare import BUILDERS
    assert set(data.PREPARED) == set(BUILDERS)


def test_records_in_memory_are_bounded_by_their_bytes(monkeypatch):
    monkeypatch.setattr(pipeline, "CACHED_BYTES", 3 * 5000)
    monkeypatch.setattr(pipeline, "RECORD_BYTES", 1000)
    reads = []

    class Source:
        def __getitem__(self, index):
            reads.append(index)
            return {"inputs": {"frames": [b"x" * 3000, b"y" * 500], "audio": Sound(np.zeros(250, np.int16), 8000)}}

    shared = pipeline.Shared(Source())
    for index in (0, 1, 2, 0, 1, 2):        # 5000 bytes each
        shared[index]
    assert reads == [0, 1, 2]
    shared[3]                               # in place of 0, which was used least lately
    shared[1]
    shared[0]
    assert reads == [0, 1, 2, 3, 0]
