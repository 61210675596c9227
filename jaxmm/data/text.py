"""Texts -> token ids: WordPiece as BERT-uncased has it, the byte pairs of CLIP, or any tokenizer.json."""
import collections
import gzip
import io
import itertools
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxmm import extras, files
from jaxmm.config import TextConfig
from jaxmm.errors import UserError, check_at_least

if TYPE_CHECKING:
    from tokenizers import Tokenizer

tokenizers = extras.Later("tokenizers", "text")

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
START, END = "<|startoftext|>", "<|endoftext|>"     # of CLIP
CLIP_MERGES = 49152 - 256 - 2       # that CLIP takes of the 262,144 in its file
CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
MOST_BYTES = 2**26      # of a vocabulary file
FORMS = ("one token a line, as BERT's vocab.txt, a tokenizer.json, or CLIP's bpe_simple_vocab_16e6.txt.gz, "
         "in UTF-8")


def make_tokenizer(config: TextConfig, texts: Sequence[str],
                   vocabulary: Sequence[str] | None = None) -> "Tokenizer":
    """Splits texts into words and these into pieces; see `tokenize`.

    It is made of `vocabulary`, as a run has kept it (see `kept`); otherwise of the file
    `config.vocabulary`; otherwise it is WordPiece with a vocabulary built from `texts`, those of the
    training split.

    Raises:
      UserError: there is no such file, it is not a vocabulary, or an option is out of range.
    """
    check_at_least("preprocess length", config.length, 2)
    check_at_least("preprocess max_tokens", config.max_tokens, 2 * len(SPECIAL))
    if vocabulary is None and config.vocabulary:
        tokenizer = read_tokenizer(config.vocabulary)
    elif vocabulary is None:
        tokenizer = wordpiece(make_vocabulary(texts, config.max_tokens))
    elif len(vocabulary) == 1:
        tokenizer = from_json("the vocabulary of the run", *vocabulary)
    else:
        tokenizer = wordpiece({token: number for number, token in enumerate(vocabulary)})
    if not config.special:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing("$A", special_tokens=[])
    tokenizer.enable_truncation(config.length)
    tokenizer.enable_padding(length=config.length, pad_id=0)
    return tokenizer


def wordpiece(vocabulary: dict[str, int]) -> "Tokenizer":
    """WordPiece (Wu et al., 2016) as in BERT-uncased: lower case, the longest pieces first."""
    return tokenizers.BertWordPieceTokenizer(vocabulary)


def clip(merges: Sequence[tuple[str, str]]) -> "Tokenizer":
    """The byte pairs (Sennrich et al., 2016) of CLIP (Radford et al., 2021), by rank.

    Ids are those of OpenAI's code, which also mends HTML entities and wrongly decoded letters before.
    That is left out here.

    Raises:
      Exception: a pair is of tokens that are neither bytes nor pairs of a lower rank.
    """
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges), START, END]
    numbers = {token: number for number, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(numbers, list(merges), end_of_word_suffix="</w>"))
    tokenizer.add_special_tokens([START, END])
    tokenizer.normalizer = tokenizers.normalizers.Sequence([
        tokenizers.normalizers.NFC(), tokenizers.normalizers.Lowercase()])
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(CLIP_WORDS), "removed", invert=True),
        tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        f"{START} $A {END}", special_tokens=[(token, numbers[token]) for token in (START, END)])
    return tokenizer


def make_vocabulary(texts: Sequence[str], size: int) -> dict[str, int]:
    """At most `size` tokens with their ids: characters, then words that occur at least twice.

    They are the most frequent ones, in alphabetical order among equals, so the same texts give the same
    ids. (The trainer of the tokenizers package does not.)
    """
    bare = tokenizers.BertWordPieceTokenizer()
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


def read_tokenizer(path: str) -> "Tokenizer":
    """The tokenizer of a file of one of `FORMS`, which its content tells.

    Raises:
      UserError: it cannot be read, or is none of them.
    """
    content = _read(path)
    if content.lstrip().startswith("{"):
        return from_json(path, content)
    # Not `splitlines`, which takes some tokens of other scripts for ends of lines.
    lines = content.removesuffix("\n").split("\n")
    if "#version" in lines[0]:
        return _clip(path, lines)
    return wordpiece(_numbered(path, lines))


def _read(path: str) -> str:
    """The text of a file, which may be compressed."""
    found = files.expand(path).absolute()
    try:
        with open(found, "rb") as file:
            content = file.read(MOST_BYTES + 1)
        if content.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(content)) as file:
                content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = f"no such file: {found}" if isinstance(error, FileNotFoundError) else error
        raise UserError(f"cannot read the vocabulary {path}: {reason}; expected {FORMS}") from error


def _numbered(path: str, lines: Sequence[str]) -> dict[str, int]:
    """The tokens of a WordPiece vocabulary with their ids, which are the numbers of their lines."""
    vocabulary = {token: number for number, token in enumerate(lines)}
    if len(vocabulary) < len(lines):
        token, count = collections.Counter(lines).most_common(1)[0]
        raise UserError(f"{path} has the token {token!r} in {count} lines; expected every token once, "
                        "as its line is its number")
    missing = [token for token in SPECIAL[:4] if token not in vocabulary]
    if missing or vocabulary["[PAD]"] != 0:
        raise UserError(f"{path} is not a WordPiece vocabulary: expected [PAD] in its first line, and "
                        f"{', '.join(SPECIAL[1:4])}; or a file of another form: {FORMS}")
    return vocabulary


def _clip(path: str, lines: Sequence[str]) -> "Tokenizer":
    """CLIP's tokenizer of the lines of its file: a version, then two tokens a line, by rank."""
    merges = [tuple(line.split(" ")) for line in lines[1:CLIP_MERGES + 1]]
    wrong = next((number for number, pair in enumerate(merges, 2) if len(pair) != 2 or not all(pair)), 0)
    if wrong:
        raise UserError(f"{path}: line {wrong} is {lines[wrong - 1][:40]!r}; expected two tokens, which make "
                        "one")
    try:
        return clip(merges)
    except Exception as error:      # whatever the package finds wrong with the pairs
        raise UserError(f"{path} does not hold CLIP's pairs of tokens ({error}); download it "
                        "again") from error


def from_json(where: str, content: str) -> "Tokenizer":
    """The tokenizer that the tokenizers package has written, as tokenizer.json of a model is.

    Raises:
      UserError: it is none, or pads with another id than 0.
    """
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content)
    except Exception as error:      # of a package that raises nothing more special
        raise UserError(f"{where} is not a tokenizer.json ({' '.join(str(error).split())[:200]}); "
                        f"expected {FORMS}") from error
    if tokenizer.padding and tokenizer.padding["pad_id"] != 0:
        raise UserError(f"{where} pads texts with the id {tokenizer.padding['pad_id']}; expected 0, which "
                        "encoders of texts take for padding")
    return tokenizer


def kept(tokenizer: "Tokenizer") -> tuple[str, ...]:
    """What a run keeps of a tokenizer: the tokens of WordPiece, by id, or else its JSON alone."""
    if not isinstance(tokenizer, tokenizers.BertWordPieceTokenizer):
        return (tokenizer.to_str(),)
    vocabulary = tokenizer.get_vocab()
    return tuple(sorted(vocabulary, key=vocabulary.get))


def check_encoder(modality: str, config: TextConfig, vocabulary: Sequence[str], pool: str) -> None:
    """Raises UserError for an encoder that cannot read the texts of a kept vocabulary.

    With `pool` "end" its feature stands at the highest id, which has to end every text, as in CLIP. With
    any other it takes the id 0 for padding, which in CLIP is a token.
    """
    option, named = f"--config.data.preprocess.{modality}", config.vocabulary or "this vocabulary"
    pieces = len(vocabulary) > 1        # WordPiece
    tokenizer = None if pieces else make_tokenizer(config, (), vocabulary)
    if pool == "end" and (pieces or tokenize(tokenizer, [""]).max() != num_tokens(tokenizer) - 1):
        raise UserError(f"encoders.{modality}: its feature stands at the token with the highest id, which "
                        f"does not end the texts of {named}; name CLIP's by {option}.vocabulary=FILE, with "
                        f"{option}.special=True")
    padding = pieces or 0 in tokenizer.get_added_tokens_decoder()
    if pool != "end" and not padding:
        raise UserError(f"encoders.{modality} takes the id 0 for padding, which is "
                        f"{tokenizer.id_to_token(0)!r} in {named}; name a vocabulary that begins with [PAD] "
                        f"by {option}.vocabulary=FILE, or choose the encoder clip")


def num_tokens(tokenizer: "Tokenizer") -> int:
    """All ids are below it."""
    return max(tokenizer.get_vocab().values()) + 1


def tokenize(tokenizer: "Tokenizer", texts: Sequence[str]) -> np.ndarray:
    """Token ids int32 [N, L], special tokens before and after them if it has some; 0 is padding."""
    return np.array([e.ids for e in tokenizer.encode_batch(list(texts))], np.int32)
