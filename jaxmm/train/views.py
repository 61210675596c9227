"""Predictions of videos from several clips and crops of each."""
from collections.abc import Callable, Mapping

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.config import DataConfig, FramesConfig, PreprocessConfig, SpectrogramConfig
from jaxmm.errors import UserError
from jaxmm.methods.common import Method
from jaxmm.task import Task, averaged

View = dict[str, chex.Array]    # "moment" and, with several crops, "place", in [0, 1]; see `preprocess`


def make_views(config: DataConfig) -> View:
    """The V views of an example in evaluation, each value [V]: every clip with every crop.

    Clips start at equal steps from the beginning, so that the last one ends before the end, as in PySlowFast; a
    single one is in the middle. Crops are squares of the shorter side, the first and the last at the borders.

    Raises:
      UserError: no modality is cut in time, or has images, where several clips or crops are asked for.
    """
    sections = config.preprocess.values()
    for option, count, remedy, able in (
            ("clips", config.clips, "set crop_frames or crop_seconds of one", any(map(is_cut, sections))),
            ("crops", config.crops, "it is for images", any(isinstance(s, FramesConfig) for s in sections))):
        if count > 1 and not able:
            raise UserError(f"data.{option}={count}, and no modality of {config.name} has several: {remedy}, or "
                            "leave it 1")
    moments = np.arange(config.clips) / config.clips if config.clips > 1 else np.array([0.5])
    if config.crops == 1:
        return {"moment": moments}
    places = np.linspace(0, 1, config.crops)
    return {"moment": np.repeat(moments, len(places)), "place": np.tile(places, len(moments))}


def is_cut(section: PreprocessConfig) -> bool:
    """Whether a modality is cut in time."""
    return bool(section.crop_frames if isinstance(section, FramesConfig) else
                isinstance(section, SpectrogramConfig) and section.crop_seconds)


def over_views(method: Method, views: Mapping[str, np.ndarray], task: Task) -> Method:
    """The method that predicts the mean over the views; with a single one the method itself."""
    count = len(views["moment"])
    return method if count == 1 else method._replace(
        predict=_mean(method.predict, views, task), from_features=False)


def _mean(predict: Callable, views: Mapping[str, np.ndarray], task: Task) -> Callable:
    def predict_all(state, batch):
        arrays = {name: jnp.asarray(x, jnp.float32) for name, x in views.items()}
        outputs = jax.lax.map(lambda view: predict(state, batch | {"view": view}), arrays)
        return {head: averaged(task, z) for head, z in outputs.items()}

    return predict_all
