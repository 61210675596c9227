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


def test_lengths_out_of_range():
    with pytest.raises(UserError, match="length=1"):
        text.make_tokenizer(TextConfig(length=1), [])


def test_only_ends_of_lines_end_tokens(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a\u2028b", "\x85", "c"]
    path = tmp_path / "vocab.txt"
    for end in ("\n", "\r\n"):
        path.write_bytes(end.join(tokens + [""]).encode())
        assert list(text.read_vocabulary(str(path))) == tokens
