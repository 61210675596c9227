import csv

import jax
import numpy as np
import pytest

from benchmarks import reproduce
from configs import seq_mnist
from jaxmm import data
from jaxmm.errors import UserError
from jaxmm.experiments import configs
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
    with pytest.raises(UserError, match="stream.order=sorted is for stream.kind=class or group"):
        data.streams.make_stream(config.stream, data.load(data.DataConfig(name="synthetic", kind="A")))


def test_every_row_has_a_figure_to_reach():
    with open(configs.folder() / "tuned.csv", encoding="utf-8", newline="") as file:
        rows = [f"{row['method']}/{row['buffer']}".rstrip("/") for row in csv.DictReader(file)
                if row["stream"] == "seq_mnist"]
    assert rows == list(reproduce.figures())


def test_a_row_misses_by_what_is_beyond_its_margin():
    figure = {"published": "80.43", "all_digits": "79.1", "few_digits": "", "within": "3"}
    few = reproduce.compared(figure, [76.0, 78.0], False)
    assert (few["figure"], few["mean"], few["difference"], few["misses"], few["holds"]) == (
        80.43, 77.0, -3.43, 0.43, False)
    many = reproduce.compared(figure, [76.0, 78.0], True)
    assert (many["figure"], many["misses"], many["holds"]) == (79.1, 0.0, True)
    assert not reproduce.compared(figure, [], True)["holds"]      # all diverged


def test_of_all_digits_a_task_is_one_epoch():
    lwf, er = seq_mnist.get_config("lwf"), seq_mnist.get_config("er")
    for config in (lwf, er):
        reproduce.in_one_epoch(config)
    assert (lwf.train.epochs, lwf.method.head_epochs, er.train.epochs) == (2, 1, 1)
