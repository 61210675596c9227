"""Spectrograms that are computed once and stored in place of sound."""
import dataclasses
import functools
import json
from collections.abc import Mapping

import jax
import numpy as np

from jaxmm.config import PreprocessConfig, SpectrogramConfig
from jaxmm.data import decode
from jaxmm.data.prepared import Sound
from jaxmm.data.preprocess import preprocess
from jaxmm.errors import UserError
from jaxmm.prepare.layout import Layout, Modality


def choose(layout: Layout, sections: Mapping[str, PreprocessConfig],
           ) -> dict[str, SpectrogramConfig]:
    """The spectrograms of `sections` that can be stored in place of sound, by modality.

    Raises:
      UserError: there is none, or it is of a crop drawn at random.
    """
    sounds = [m for m, modality in layout.modalities.items() if modality.kind == "audio"]
    chosen = {m: section for m, section in sections.items()
              if m in sounds and isinstance(section, SpectrogramConfig)}
    if not chosen:
        raise UserError("--spectrograms_of: the config computes no spectrogram of "
                        f"{' or '.join(sounds) or 'this data set, which has no sound'}")
    for m, section in chosen.items():
        decode.check_sound(f"data.preprocess.{m}", section)
        if section.crop_seconds:
            raise UserError(f"--spectrograms_of: data.preprocess.{m}.crop_seconds="
                            f"{section.crop_seconds:g} draws crops at random, which cannot be "
                            "stored; leave the option out: sound is stored then")
    return chosen


def modality(section: SpectrogramConfig) -> Modality:
    """The modality as the reader needs it to know stored spectrograms."""
    shape = jax.eval_shape(_program(_key(section)),
                           jax.ShapeDtypeStruct(decode.sound_shape(section), np.int16)).shape
    return Modality("features", info={"spectrogram": json.loads(_key(section)),
                                      "shape": list(shape)})


def compute(sound: Sound, section: SpectrogramConfig) -> np.ndarray:
    """The spectrogram, float32, as `jaxmm.data.preprocess` computes it in a step."""
    return np.asarray(_program(_key(section))(decode.sound(sound, section)))


def _key(section: SpectrogramConfig) -> str:
    """All options that determine a spectrogram, before normalisation."""
    options = dataclasses.asdict(section)
    return json.dumps({name: options[name] for name in options if name not in ("mean", "std")})


@functools.lru_cache(8)
def _program(key: str):
    section = SpectrogramConfig(**json.loads(key))
    return jax.jit(lambda x: preprocess(None, 0.5, x, section))
