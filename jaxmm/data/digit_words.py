"""Written words for digits, in 31 languages of the Latin alphabet, with letters changed."""
import numpy as np

# From zero to nine; accents and other marks are left out.
WORDS = {
    "basque": "zero bat bi hiru lau bost sei zazpi zortzi bederatzi",
    "catalan": "zero un dos tres quatre cinc sis set vuit nou",
    "croatian": "nula jedan dva tri cetiri pet sest sedam osam devet",
    "czech": "nula jedna dva tri ctyri pet sest sedm osm devet",
    "danish": "nul en to tre fire fem seks syv otte ni",
    "dutch": "nul een twee drie vier vijf zes zeven acht negen",
    "english": "zero one two three four five six seven eight nine",
    "esperanto": "nul unu du tri kvar kvin ses sep ok nau",
    "estonian": "null uks kaks kolm neli viis kuus seitse kaheksa uheksa",
    "finnish": "nolla yksi kaksi kolme nelja viisi kuusi seitseman kahdeksan yhdeksan",
    "french": "zero un deux trois quatre cinq six sept huit neuf",
    "german": "null eins zwei drei vier funf sechs sieben acht neun",
    "hungarian": "nulla egy ketto harom negy ot hat het nyolc kilenc",
    "icelandic": "null einn tveir thrir fjorir fimm sex sjo atta niu",
    "indonesian": "nol satu dua tiga empat lima enam tujuh delapan sembilan",
    "italian": "zero uno due tre quattro cinque sei sette otto nove",
    "japanese": "zero ichi ni san yon go roku nana hachi kyu",
    "latvian": "nulle viens divi tris cetri pieci sesi septini astoni devini",
    "lithuanian": "nulis vienas du trys keturi penki sesi septyni astuoni devyni",
    "maori": "kore tahi rua toru wha rima ono whitu waru iwa",
    "norwegian": "null en to tre fire fem seks sju atte ni",
    "polish": "zero jeden dwa trzy cztery piec szesc siedem osiem dziewiec",
    "portuguese": "zero um dois tres quatro cinco seis sete oito nove",
    "romanian": "zero unu doi trei patru cinci sase sapte opt noua",
    "slovak": "nula jeden dva tri styri pat sest sedem osem devat",
    "slovenian": "nic ena dva tri stiri pet sest sedem osem devet",
    "spanish": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "swahili": "sifuri moja mbili tatu nne tano sita saba nane tisa",
    "swedish": "noll ett tva tre fyra fem sex sju atta nio",
    "turkish": "sifir bir iki uc dort bes alti yedi sekiz dokuz",
    "welsh": "dim un dau tri pedwar pump chwech saith wyth naw",
}
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
TABLE = [text.split() for text in WORDS.values()]           # [languages][digits]
LENGTH = max(len(word) for words in TABLE for word in words)
CHANGED = 0.22              # share of the letters that are drawn anew


def draw(digit: np.ndarray, rng: np.random.Generator, changed: float = CHANGED) -> np.ndarray:
    """For each digit [N] its word in a language of its own: uint8 [N, LENGTH, 26], 1 where a letter stands.

    Every letter is replaced with the probability `changed` by one of the 26, all alike. Places after the end of
    a word are 0.
    """
    language = rng.integers(len(TABLE), size=len(digit))
    letters = np.array([list(TABLE[i][d].ljust(LENGTH)) for i, d in zip(language, digit)])
    drawn = rng.choice(list(ALPHABET), letters.shape)
    letters = np.where((letters != " ") & (rng.random(letters.shape) < changed), drawn, letters)
    return (letters[:, :, None] == np.array(list(ALPHABET))).astype(np.uint8)
