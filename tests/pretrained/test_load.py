"""Files of pretrained weights: what is read, and the line that each other file ends in."""
import hashlib
import json
import logging
import pathlib
import struct

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxmm.config import Config, EncoderConfig
from jaxmm.encoders import make_encoder
from jaxmm.errors import UserError, of
from jaxmm.pretrained import load

SHAPE = (8, 8, 3)


@pytest.fixture(name="like", scope="module")
def make_like():
    """The shapes of a ViT of width 8 with one block, for images of 8 pixels in patches of 4."""
    encoder = make_encoder(EncoderConfig("mae", width=8, depth=1, patch=4), 3)
    params, stats = jax.eval_shape(encoder.init, jax.random.key(0), np.zeros((1, *SHAPE), np.float32))
    return {"params": params, "batch_stats": stats}


@pytest.fixture(name="arrays")
def make_arrays(vit_arrays):
    return vit_arrays()


def write(path: pathlib.Path, arrays, form=save_file) -> EncoderConfig:
    form(arrays, path)
    return EncoderConfig("mae", weights=str(path))


def savez(arrays, path):
    np.savez(path, **arrays)


def complete(config: EncoderConfig, kind="image") -> EncoderConfig:
    return load.complete(Config(encoders={"picture": config}), {"picture": kind}).encoders["picture"]


def read(config: EncoderConfig, like, kind="image"):
    """What a run does with a file: its sizes, then its arrays."""
    config = complete(config, kind)
    with of("encoders.picture"):
        return load.load(config, kind, like, SHAPE[:2])


@pytest.mark.parametrize("form, name", [(save_file, "a.safetensors"), (savez, "a.npz")])
def test_arrays_and_sizes_are_those_of_the_file(form, name, arrays, like, tmp_path):
    config = write(tmp_path / name, arrays, form)
    found = complete(config)
    assert (found.width, found.depth, found.patch, found.name) == (8, 1, 4, "mae")
    assert found.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    tree = read(config, like)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), tree) == jax.tree.map(lambda x: (x.shape, x.dtype), like)
    block = tree["params"]["block_0"]
    np.testing.assert_array_equal(block["expand"]["kernel"], arrays["blocks.0.mlp.fc1.weight"].T)
    np.testing.assert_array_equal(block["attention"]["value"]["bias"].ravel(), arrays["blocks.0.attn.qkv.bias"][16:])


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_types_of_numbers_become_float32_and_the_log_says_so(kind, arrays, like, tmp_path, caplog):
    arrays = {name: x.astype(kind) for name, x in arrays.items()}
    with caplog.at_level(logging.WARNING):
        tree = read(write(tmp_path / "a.safetensors", arrays), like)
    found = tree["params"]["norm_out"]["scale"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, arrays["norm.weight"].astype(np.float32))
    short = {np.float16: "F16", np.float64: "F64"}.get(kind, "BF16")
    assert f"{len(arrays)} arrays of {short} become float32" in caplog.text


def test_names_that_are_not_needed_are_counted_by_prefix(arrays, like, tmp_path, caplog):
    more = {"head.weight": np.full((3, 8), np.nan, np.float32), "head.bias": np.zeros(3, np.float32),
            "decoder.embed": np.zeros(2, np.int64)}
    for wrapped in ("", "module."):
        path = tmp_path / f"{wrapped}a.safetensors"
        with caplog.at_level(logging.WARNING):
            read(write(path, {wrapped + name: x for name, x in (arrays | more).items()}), like)
        assert (f"{path}: {len(arrays)} of {len(arrays) + 3} arrays are used; not used: decoder 1, head 2"
                in caplog.text)


def test_a_relative_of_the_network_takes_its_place_and_the_log_says_so(arrays, tmp_path, caplog):
    config = write(tmp_path / "a.safetensors", arrays)
    config.name = "vit"
    with caplog.at_level(logging.WARNING):
        assert complete(config).name == "mae"
    assert "holds another relative of vit: the encoder is mae" in caplog.text


@pytest.mark.parametrize("vocabulary", [50, 49])
def test_a_vocabulary_of_fewer_words_than_the_file_is_said(vocabulary, tmp_path, caplog):
    with np.load(pathlib.Path(__file__).with_name("bert.npz"), allow_pickle=False) as file:
        arrays = {name.removeprefix("weights/"): x for name, x in file.items() if name.startswith("weights/")}
    save_file(arrays, tmp_path / "bert.safetensors")
    config = EncoderConfig("bert", weights=str(tmp_path / "bert.safetensors"), heads=4)
    config = load.complete(Config(encoders={"words": config}), {"words": "text"}).encoders["words"]
    encoder = make_encoder(config, 1, num_tokens=vocabulary)
    params, stats = jax.eval_shape(encoder.init, jax.random.key(0), np.zeros((1, 9), np.int32))
    with caplog.at_level(logging.WARNING):
        tree = load.load(config, "text", {"params": params, "batch_stats": stats})
    assert len(tree["params"]["embed"]["embedding"]) == vocabulary
    assert ("knows 50 words, and the vocabulary has 49: the first" in caplog.text) == (vocabulary == 49)


def renamed(arrays, old, new):
    return {name.replace(old, new): x for name, x in arrays.items()}


@pytest.mark.parametrize("change, message", [
    (lambda a: renamed(a, "blocks.0.norm1", "blocks.0.norm0"),
     r"2 of \d+ names .* missing: blocks.0.norm1.bias, blocks.0.norm1.weight; .*blocks.0.norm0"),
    (lambda a: a | {"blocks.0.mlp.fc1.bias": np.zeros(31, np.float32)},
     r"1 of \d+ arrays .*blocks.0.mlp.fc1.bias: \[31\], \[32\]"),
    (lambda a: a | {"norm.bias": np.array([0.0] * 7 + [np.nan], np.float32)},
     "norm.bias holds numbers that are not finite in float32, 1 of 8"),
    (lambda a: a | {"norm.bias": np.full(8, 1e300)}, "norm.bias holds numbers that are not finite in float32, 8 of 8"),
    (lambda a: a | {"norm.bias": np.zeros(8, np.int32)}, r"norm.bias is \S+; expected float32, float16"),
    (lambda a: renamed(a, "", "x"), "holds .*no model.*, expected ViT"),
    (lambda a: {}, "holds .*, expected ViT")])
@pytest.mark.parametrize("form, name", [(save_file, "a.safetensors"), (savez, "a.npz")])
def test_what_does_not_fit_ends_in_one_line(form, name, change, message, arrays, like, tmp_path):
    config = write(tmp_path / name, change(arrays), form)
    with pytest.raises(UserError, match=message) as error:
        read(config, like)
    assert str(tmp_path / name) in str(error.value) and "picture" in str(error.value).split(":", maxsplit=1)[0]
    assert "\n" not in str(error.value)


def test_another_model_and_another_kind_of_modality(arrays, like, tmp_path):
    config = write(tmp_path / "a.safetensors", arrays)
    for name, kind, message in (("m3ae", "image", "holds ViT, expected M3AE"), ("bert", "text", "holds ViT, expected BERT"),
                                ("resnet18", "image", "holds ViT, expected ResNet"),
                                ("vit", "text", "vit takes images?, found text"),
                                ("bert", "image", "bert takes texts?, found image"),
                                ("mlp", "image", "encoders.picture: name='mlp'; expected one of m3ae")):
        config.name = name
        with pytest.raises(UserError, match=message):
            complete(config, kind)


def test_options_that_contradict_the_file(arrays, like, tmp_path):
    config = write(tmp_path / "a.safetensors", arrays)
    for option, value in (("width", 16), ("depth", 2), ("patch", 8)):
        with pytest.raises(UserError, match=f"encoders.picture: {option}={value}, but .* leave it out"):
            complete(EncoderConfig("mae", weights=config.weights, **{option: value}))
    assert complete(EncoderConfig("mae", weights=config.weights, width=8)).width == 8


def test_another_file_under_the_same_name_is_refused(arrays, like, tmp_path):
    config = complete(write(tmp_path / "a.safetensors", arrays))
    write(tmp_path / "a.safetensors", arrays | {"norm.bias": np.ones(8, np.float32)})
    with pytest.raises(UserError, match="has the SHA-256 .*, expected"):
        load.load(config, "image", like, SHAPE[:2])
    config.sha256 = ""
    assert load.load(config, "image", like, SHAPE[:2])["params"]["norm_out"]["bias"].tolist() == [1.0] * 8


ZIP, PICKLE = b"PK\3\4" + bytes(60), bytes([0x80, 4]) + bytes(60)


@pytest.mark.parametrize("name, content, message", [
    ("gone.safetensors", None, "no such file"), ("folder.safetensors", "", "is a folder"),
    ("a.safetensors", b"", "is no safetensors file"), ("a.safetensors", b"words and words", "[Hh]eader"),
    ("a.safetensors", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
    ("a.npz", b"words", "is not an .npz file"), ("a.npz", PICKLE, "is not an .npz file"),
    ("a.txt", b"words", "has another ending"),
    *((name, content, rf"looks like a {what}.*convert --weights=\S+/{name} --output=\S+/a.safetensors")
      for name in ("a.safetensors", "a.pth", "a.bin", "a.pkl", "a.pt")
      for content, what in ((ZIP, "zip archive"), (PICKLE, "pickle")))])
def test_files_of_another_form(name, content, message, tmp_path):
    path = tmp_path / name
    if content == "":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"^encoders.picture: weights: {path}.*{message}") as error:
        complete(EncoderConfig("mae", weights=str(path)))
    assert "\n" not in str(error.value)


def safetensors(header, data=b"", length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(start, end, shape=(2,), kind="F32"):
    return {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize("content", [
    safetensors({"a": tensor(0, 8)}, bytes(8), length=2**63), safetensors({}, length=2**40), b"\1\2\3",
    safetensors(b"[" * 100_000), safetensors(b"\xff{}"), safetensors(b"{'a': 1}"), safetensors([1]),
    safetensors({"a": tensor(0, 8)}), safetensors({"a": tensor(4, 12)}, bytes(12)),
    safetensors({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)),
    safetensors({"a": tensor(8, 0)}, bytes(8)), safetensors({"a": tensor(-8, 0)}, bytes(8)),
    safetensors({"a": tensor(0, 8, (2**62, 4))}, bytes(8)), safetensors({"a": tensor(0, 8, (-2,))}, bytes(8)),
    safetensors({"a": tensor(0, 8, (3,))}, bytes(8)), safetensors({"a": tensor(0, 8, kind="OBJECT")}, bytes(8)),
    safetensors({"a": tensor(0, 8)}, bytes(16)), safetensors({"a": {"dtype": "F32"}}, bytes(8)),
    safetensors(b'{"a": %s, "a": %s}' % ((json.dumps(tensor(0, 8)).encode(),) * 2), bytes(8)),
    safetensors({"norm.weight": tensor(0, 0, (0, 2**60)), "patch_embed.proj.weight": tensor(0, 0, (0, 2**62))}),
    safetensors({f"blocks.{10**9}.norm1.weight": tensor(0, 8)}, bytes(8))])
def test_hostile_headers_end_in_one_line(content, like, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"^encoders.picture: weights: {path}: ") as error:
        read(EncoderConfig("mae", weights=str(path)), like)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000


@pytest.mark.parametrize("form, name", [(save_file, "a.safetensors"), (savez, "a.npz")])
def test_damaged_files_end_in_one_line(form, name, arrays, like, tmp_path):
    """Cut short anywhere they do; with a flipped bit they do, or give a tree of numbers."""
    config = write(tmp_path / name, arrays, form)
    content = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(0)
    said = 0
    for end in [0, 7, 8, 9, len(content) - 1, *rng.integers(len(content), size=8)]:
        (tmp_path / name).write_bytes(content[:end])
        with pytest.raises(UserError, match=f"encoders.picture: weights: {tmp_path / name}"):
            read(config, like)
    length = struct.unpack("<Q", content[:8])[0] + 8 if form is save_file else len(content)
    for bit in rng.integers(8 * length, size=60):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / name).write_bytes(flipped)
        try:
            tree = read(config, like)
            assert all(np.isfinite(x).all() for x in jax.tree.leaves(tree))
        except UserError as error:
            assert "\n" not in str(error) and str(tmp_path / name) in str(error)
            said += 1
    assert said > 30
