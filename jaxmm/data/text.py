"""Texts -> token ids by WordPiece (Wu et al., 2016), as BERT-uncased does it."""
import collections
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxmm import extras, files
from jaxmm.config import TextConfig
from jaxmm.errors import UserError, check_at_least

if TYPE_CHECKING:
    from tokenizers import Tokenizer

wordpiece = extras.Later("tokenizers.implementations", "text")

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_tokenizer(config: TextConfig, texts: Sequence[str],
                   tokens: Sequence[str] | None = None) -> "Tokenizer":
    """Lower-cases, splits into words and these into pieces; see `tokenize`.

    The vocabulary is `tokens`, by id, as a run has kept them; otherwise the file `config.vocabulary`,
    one token a line, "[PAD]" first; otherwise it is built from `texts`, those of the training split.

    Raises:
      UserError: there is no such file, it is not a vocabulary, or an option is out of range.
    """
    check_at_least("preprocess length", config.length, 2)
    check_at_least("preprocess max_tokens", config.max_tokens, 2 * len(SPECIAL))
    if tokens is not None:
        vocabulary = {token: number for number, token in enumerate(tokens)}
    elif config.vocabulary:
        vocabulary = read_vocabulary(config.vocabulary)
    else:
        vocabulary = make_vocabulary(texts, config.max_tokens)
    tokenizer = wordpiece.BertWordPieceTokenizer(vocabulary)
    tokenizer.enable_truncation(config.length)
    tokenizer.enable_padding(length=config.length)
    return tokenizer


def make_vocabulary(texts: Sequence[str], size: int) -> dict[str, int]:
    """At most `size` tokens with their ids: characters, then words that occur at least twice.

    They are the most frequent ones, in alphabetical order among equals, so the same texts give the same
    ids. (The trainer of the tokenizers package does not.)
    """
    bare = wordpiece.BertWordPieceTokenizer()
    words = collections.Counter(
        word for text in texts
        for word, _ in bare.pre_tokenizer.pre_tokenize_str(bare.normalizer.normalize_str(text)))
    characters = collections.Counter()
    for word, count in words.items():
        for i, character in enumerate(word):
            characters["##" * (i > 0) + character] += count
    frequent = {word: count for word, count in words.items() if count > 1 and len(word) > 1}
    ranked = [sorted(counts, key=lambda token, c=counts: (-c[token], token))
              for counts in (characters, frequent)]
    tokens = itertools.islice(itertools.chain(SPECIAL, *ranked), size)
    return {token: number for number, token in enumerate(tokens)}


def read_vocabulary(path: str) -> dict[str, int]:
    """The tokens of a file with their ids, which are the numbers of their lines."""
    found = files.expand(path).absolute()
    try:
        # Not `splitlines`, which takes some tokens of other scripts for ends of lines.
        lines = found.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = f"no such file: {found}" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"cannot read the vocabulary {path}: {reason}; expected one token a line, "
                        "in UTF-8") from error
    vocabulary = {token: number for number, token in enumerate(lines)}
    if len(vocabulary) < len(lines):
        token, count = collections.Counter(lines).most_common(1)[0]
        raise UserError(f"{path} has the token {token!r} in {count} lines; expected every token once, "
                        "as its line is its number")
    missing = [token for token in SPECIAL[:4] if token not in vocabulary]
    if missing or vocabulary["[PAD]"] != 0:
        raise UserError(f"{path} is not a WordPiece vocabulary: expected [PAD] in its first line, and "
                        f"{', '.join(SPECIAL[1:4])}")
    return vocabulary


def tokens(tokenizer: "Tokenizer") -> tuple[str, ...]:
    """The vocabulary, by id."""
    vocabulary = tokenizer.get_vocab()
    return tuple(sorted(vocabulary, key=vocabulary.get))


def tokenize(tokenizer: "Tokenizer", texts: Sequence[str]) -> np.ndarray:
    """Token ids int32 [N, L] with "[CLS]" before and "[SEP]" after them; 0 is padding."""
    return np.array([e.ids for e in tokenizer.encode_batch(list(texts))], np.int32)
