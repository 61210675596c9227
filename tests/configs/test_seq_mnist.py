import jax
import numpy as np
import pytest

from configs import seq_mnist
from jaxmm import data
from jaxmm.errors import UserError
from jaxmm.train.setup import build


def test_digits_come_in_order_and_pixels_are_fractions(tmp_path):
    """Whatever else the file holds; normalised by nothing but 255."""
    label = np.arange(20) % 10
    arrays = {f"{s}/{k}": x for s in ("train", "val", "test") for k, x in {
        "visual": np.full((20, 28, 28), 51, np.uint8), "audio": np.ones((20, 3)), "label": label}.items()}
    np.savez(tmp_path / "digits.npz", **arrays)
    config = seq_mnist.get_config("er")
    config.data.path = str(tmp_path / "digits.npz")
    config.train.batch_size, config.method.capacity = 2, 4
    setup = build(config, devices=jax.devices()[:1])
    assert [task.classes.tolist() for task in setup.stream.tasks] == [[i, i + 1] for i in range(0, 10, 2)]
    mean, std = setup.spec.norms["visual"]
    assert (mean, std) == (0, 255)
    method = setup.make_method(None, {})
    state = method.init(jax.random.key(0), data.dataset.select(setup.dataset.splits["train"], np.arange(2)))
    assert set(state.params) == {"visual", "head"}
    assert [state.params["visual"][f"Dense_{i}"]["kernel"].shape for i in (0, 1)] == [(784, 100), (100, 100)]


def test_only_classes_come_in_order():
    config = seq_mnist.get_config("er")
    config.stream.kind = "generalized"
    with pytest.raises(UserError, match="stream.order=sorted is for stream.kind=class"):
        data.streams.make_stream(config.stream, data.load(data.DataConfig(name="synthetic", kind="A")))
