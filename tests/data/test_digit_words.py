import numpy as np
import pytest

from jaxmm.config import DataConfig
from jaxmm.data import av_digits, digit_words

DIGIT = np.arange(3000) % 10


def read(rows):
    """The words of one-hot rows [N, L, 26]."""
    letters = np.where(rows.any(2), rows.argmax(2), -1)
    return ["".join(digit_words.ALPHABET[i] for i in row if i >= 0) for row in letters]


def test_words_are_those_of_the_digit_in_all_languages():
    rows = digit_words.draw(DIGIT, np.random.default_rng(0), changed=0.0)
    assert rows.shape == (3000, 9, 26) and rows.dtype == np.uint8
    found = {}
    for digit, word in zip(DIGIT, read(rows)):
        found.setdefault(digit, set()).add(word)
    assert found == {d: {text.split()[d] for text in digit_words.WORDS.values()} for d in range(10)}
    assert all(len(text.split()) == 10 and text.replace(" ", "").isascii() for text in digit_words.WORDS.values())
    # A word begins at the first place, and nothing stands behind its end.
    there = rows.sum(2)
    assert there.max() == 1 and (np.diff(there.astype(int), axis=1) <= 0).all()


@pytest.mark.parametrize("changed", [0.3, 1.0])
def test_letters_are_drawn_anew_with_the_probability_and_alike(changed):
    """Of the letters drawn anew one in 26 is the old one; lengths stay."""
    clean, rows = (digit_words.draw(DIGIT, np.random.default_rng(0), p) for p in (0.0, changed))
    np.testing.assert_array_equal(clean.any(2), rows.any(2))
    there = clean.any(2)
    differs = (clean != rows).any(2)[there].mean()
    assert differs == pytest.approx(changed * 25 / 26, abs=0.015)
    if changed == 1:
        np.testing.assert_allclose(rows[there].mean(0), 1 / 26, atol=0.008)


def test_the_third_modality_leaves_the_others_as_they_are(monkeypatch):
    monkeypatch.setattr(av_digits, "cached_log_mel", lambda audio, **_: audio)
    two, three = (av_digits.load(DataConfig(name=name, seed=3)) for name in ("av_digits", "avt_digits"))
    assert three.name == "avt_digits" and three.modalities == ("audio", "text", "visual")
    for split, batch in two.splits.items():
        assert batch["inputs"].keys() == {"audio", "visual"}
        for m, x in batch["inputs"].items():
            assert x.tobytes() == three.splits[split]["inputs"][m].tobytes()
        np.testing.assert_array_equal(batch["label"], three.splits[split]["label"])
        word = read(three.splits[split]["inputs"]["text"])
        lengths = [{len(words[d]) for words in digit_words.TABLE} for d in batch["label"]]
        assert all(len(w) in known for w, known in zip(word, lengths))
    again, other = (av_digits.load(DataConfig(name="avt_digits", seed=seed)) for seed in (3, 4))
    for split, batch in three.splits.items():
        np.testing.assert_array_equal(batch["inputs"]["text"], again.splits[split]["inputs"]["text"])
        assert (batch["inputs"]["text"] != other.splits[split]["inputs"]["text"]).any((1, 2)).mean() > 0.9
