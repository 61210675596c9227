import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm import task as tasks
from jaxmm.config import DataConfig, FramesConfig, SpectrogramConfig
from jaxmm.data.preprocess import crop_frames, preprocess
from jaxmm.data.transform import make_transform
from jaxmm.errors import UserError
from jaxmm.methods.common import Method
from jaxmm.train.views import make_views, over_views

CUT = {"video": FramesConfig(frames=300, crop_frames=64)}


def test_ten_clips_and_three_crops_of_pyslowfast():
    views = make_views(DataConfig(clips=10, crops=3, preprocess=CUT))
    starts = views["moment"] * (300 - 64)
    np.testing.assert_allclose(starts[::3], 23.6 * np.arange(10))
    assert views["place"][:4].tolist() == [0, 0.5, 1, 0] and len(starts) == 30
    frames = [crop_frames(np.arange(300), t, CUT["video"]) for t in views["moment"][::3]]
    assert [int(f[0]) for f in frames] == [0, 24, 47, 71, 94, 118, 142, 165, 189, 212]
    assert all(len(f) == 64 for f in frames)


def test_one_view_is_the_middle():
    assert {k: v.tolist() for k, v in make_views(DataConfig()).items()} == {"moment": [0.5]}
    method = Method(None, None, None, None)
    assert over_views(method, make_views(DataConfig()), tasks.classification(("a", "b"))) is method


@pytest.mark.parametrize("options, message", [
    ({"clips": 2, "preprocess": {"a": FramesConfig(frames=4)}}, "data.clips=2, and no modality"),
    ({"crops": 3, "preprocess": {"a": SpectrogramConfig(seconds=2.0, crop_seconds=1.0)}}, "data.crops=3, and no")])
def test_views_that_no_modality_has(options, message):
    with pytest.raises(UserError, match=message) as error:
        make_views(DataConfig(**options))
    assert "\n" not in str(error.value)


def test_crops_are_squares_of_the_shorter_side():
    x = np.broadcast_to(np.arange(6, dtype=np.uint8)[None, :, None], (4, 6, 1)) * 10
    config = FramesConfig(size=4)
    seen = [preprocess(None, 0.5, x, config, place)[0, :, 0] * 255 for place in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(seen, [[0, 10, 20, 30], [10, 20, 30, 40], [20, 30, 40, 50]], rtol=1e-5)
    upright = preprocess(None, 0.5, x.swapaxes(0, 1), config, 1.0)[:, 0, 0] * 255
    np.testing.assert_allclose(upright, [20, 30, 40, 50], rtol=1e-5)


@pytest.mark.parametrize("task, expected", [
    (tasks.classification(("a", "b")), lambda z: np.log(np.mean(np.exp(z) / np.exp(z).sum(-1, keepdims=True), 0))),
    (tasks.multilabel(("a", "b")), lambda z: (lambda p: np.log(p / (1 - p)))(np.mean(1 / (1 + np.exp(-z)), 0))),
    (tasks.regression(("a", "b")), lambda z: z.mean(0))])
def test_predictions_are_means_over_clips_and_crops(task, expected):
    """Two rows of six frames, of which a head sees one pixel of one frame."""
    frames = np.random.default_rng(0).integers(0, 255, (2, 6, 2, 4, 1)).astype(np.uint8)
    sections = {"video": FramesConfig(frames=6, crop_frames=2, size=2)}
    transform = make_transform({}, {}, sections)

    def predict(state, batch):
        batch = transform(None, batch)
        assert "view" not in batch
        z = state * batch["inputs"]["video"][:, 0, 0, :, 0]
        return {"fused": z, "video": 2 * z}

    config = DataConfig(clips=2, crops=3, preprocess=sections)
    method = over_views(Method(None, None, predict, None), make_views(config), task)
    batch = {"inputs": {"video": frames}, "present": {"video": np.ones(2, bool)},
             "id": np.arange(2), "label": np.zeros(2, np.int32)}
    found = jax.jit(method.predict)(jnp.float32(5), batch)
    seen = [5 / 255 * frames[:, start, 0, left:left + 2, 0] for start in (0, 2) for left in (0, 1, 2)]
    np.testing.assert_allclose(found["fused"], expected(np.stack(seen).astype(np.float64)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["video"], expected(2 * np.stack(seen)), rtol=1e-4, atol=1e-5)
