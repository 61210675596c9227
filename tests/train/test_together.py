"""Several runs in one program: the same results as one after the other."""
import json
from collections.abc import Mapping
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.batch import take
from jaxmm.config import EncoderConfig, OptimizerConfig, replace, scalar_options
from jaxmm.methods import METHODS
from jaxmm.methods.correlation import CCAConfig, DCCAEConfig
from jaxmm.methods.cpm_net import CPMNetConfig
from jaxmm.methods.imagination import IFMMINConfig
from jaxmm.methods.tate import TATEConfig
from jaxmm.train import (checkpoints, predictions, programs as programs_lib, schedule,
                         setup as setup_lib, together, writers)
from jaxmm.train.programs import stack, unstack

DEVICES = jax.devices()
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
STEPPING = sorted(name for name, entry in METHODS.items()       # ume makes no step; see test_segment.py for the dense
                  if not entry.dense and name != "ume")


def seeds(config, count):
    return [replace(config, {"train.seed": seed}) for seed in range(count)]


def assert_close(found, expected):
    chex.assert_trees_all_close(found, expected, **CLOSE)


def leaves(run):
    return checkpoints.flatten(run.setup.programs.fetch(run.state))


def numbers(records):
    return [{k: v for k, v in record.items() if k not in ("split", "kind", *writers.CLOCKED)}
            for record in records]


def train(configs, folder, dataset, devices=DEVICES[:1]):
    workdirs = [folder / str(i) for i in range(len(configs))]
    return list(schedule.train_many(configs, workdirs, dataset=dataset, devices=devices,
                                progress=False))


def steps_together(configs, dataset, devices, assert_equals=(chex.assert_trees_all_equal,)):
    """States after one call of three steps, of all configs at once and one after the other.

    With several of `assert_equals`, the second is for runs that are vmapped, as on GPU and TPU.
    """
    setups = list(together.build_many(configs, dataset=dataset, devices=devices))
    train_split = dataset.splits["train"]
    index = np.random.default_rng(0).integers(32, size=(3, len(configs), 8)).astype(np.int32)

    def run(setup, states, index):
        state = setup.programs.place(stack(states))
        state, metrics = setup.programs.steps(state, setup.programs.feed(train_split, "device").at(
                                              index))
        return setup.programs.end_task(state), jax.device_get(metrics)

    fetched = [s.programs.fetch(setup_lib.init_state(s)) for s in setups]
    alone = [run(s, [jax.tree.map(lambda x: x.copy(), state)], index[:, i])
             for i, (s, state) in enumerate(zip(setups, fetched))]
    for map_runs, assert_equal in zip((programs_lib.map_in_turn, jax.vmap), assert_equals):
        with mock.patch.object(programs_lib, "map_in_turn", map_runs):
            joined = together.join(setups, devices)
        state, metrics = run(joined, [jax.tree.map(jnp.copy, s) for s in fetched], index)
        assert_equal(metrics, jax.tree.map(lambda *x: np.stack(x, 1), *[m for _, m in alone]))
        ours = unstack(joined.programs.fetch(state), len(configs))
        for s, (expected, _), found in zip(setups, alone, ours):
            assert_equal(checkpoints.flatten(found),
                         checkpoints.flatten(s.programs.fetch(expected)))
    return joined, state, alone


@pytest.mark.parametrize("name", [*STEPPING,
                                  CCAConfig(k=2, r=0.1, labels=False), DCCAEConfig(k=2, labels=False, weight=0.5),
                                  IFMMINConfig(student=False), CPMNetConfig(size=5, retune=False),
                                  TATEConfig(distill=False)])
def test_seeds_equal_single_runs(name, make_dataset, make_config):
    """To the bit on CPU."""
    steps_together(seeds(make_config(name), 2), make_dataset(missing=True), DEVICES[:1],
                   [chex.assert_trees_all_equal, assert_close])


@pytest.mark.parametrize("runs, devices", [(4, 2), (3, 2)])
def test_on_several_devices(runs, devices, make_dataset, make_config):
    """Spread over the devices, and, where they do not divide, every batch over all devices."""
    dataset = make_dataset(missing=True)
    joined, state, alone = steps_together(seeds(make_config("mla"), runs), dataset,
                                          DEVICES[:devices], [assert_close])
    logits = predictions.predict_split(joined, state, dataset.splits["val"])
    single = setup_lib.build(make_config("mla"), dataset=dataset, devices=DEVICES[:devices])
    for i, (expected, _) in enumerate(alone):
        chex.assert_trees_all_close({h: z[:, i] for h, z in logits.items()},
                                    predictions.predict_split(single, expected,
                                                            dataset.splits["val"]), **CLOSE)


@pytest.mark.parametrize("method, values", [
    ("mla", {"optimizer.learning_rate": [0.1, 0.01], "method.alpha": [0.1, 1.0]}),
    ("samm", {"optimizer.weight_decay": [0.0, 0.1], "method.beta": [25.0, 1.0],
              "method.lambda_": [0.01, 0.5]})])
def test_scalars_equal_single_runs(method, values, make_dataset, make_config):
    configs = [replace(make_config(method), {path: v[i] for path, v in values.items()})
               for i in range(2)]
    assert values.items() <= {path: [scalar_options(c)[path] for c in configs]
                              for path in values}.items()
    steps_together(configs, make_dataset(), DEVICES[:1])


@pytest.mark.parametrize("name", STEPPING)
def test_every_scalar_of_every_method_enters_as_an_array(name, make_dataset, make_config):
    """No check or branch of the method needs the value."""
    config, dataset = make_config(name), make_dataset()
    setup = setup_lib.build(config, dataset=dataset, devices=DEVICES[:1])
    batch = take(dataset.splits["train"], np.arange(8))

    def step(values):
        method = setup.make_method(None, values)
        state = method.init(jax.random.key(0), batch)
        steps = method.step.values() if isinstance(method.step, Mapping) else [method.step]
        return [method.predict(step(state, batch)[0], batch) for step in steps]

    jax.eval_shape(step, {path: np.float32(0.1) for path in scalar_options(config)})


def test_folders_are_those_of_single_runs(make_dataset, make_config, tmp_path):
    """Cut short, then resumed at different steps, then finished: as each run alone."""
    dataset, config = make_dataset(), make_config("mla", epochs=2, steps_per_call=4)
    configs = seeds(config, 3)
    alone = [schedule.train(c, tmp_path / f"alone{i}", dataset=dataset, devices=DEVICES[:1],
                        progress=False) for i, c in enumerate(configs)]
    for i in range(3):      # seed 2 made no step, seed 1 half of them, seed 0 all
        manager = checkpoints.open_manager(tmp_path / f"alone{i}")
        assert list(manager.all_steps()) == [4, 8]
    results = train(configs, tmp_path / "many", dataset)
    for i, (expected, found) in enumerate(zip(alone, results)):
        chex.assert_trees_all_equal(leaves(found), leaves(expected))
        chex.assert_trees_all_equal(numbers(found.history), numbers(expected.history))
        records = [[json.loads(line) for line in (tmp_path / folder / "metrics.jsonl")
                    .read_text().splitlines()] for folder in (f"alone{i}", f"many/{i}")]
        chex.assert_trees_all_equal(*map(numbers, records))
    # Every run goes on from its own last checkpoint.
    for i, last in ((1, 8), (2, 4)):
        manager = checkpoints.open_manager(tmp_path / f"many/{i}")
        for step in manager.all_steps():
            if step >= last:
                manager.delete(step)
    again = train(configs, tmp_path / "many", dataset)
    for expected, found in zip(results, again):
        chex.assert_trees_all_equal(leaves(found), leaves(expected))
        chex.assert_trees_all_equal(numbers(found.history), numbers(expected.history))


def test_streams_of_other_classes(make_dataset, make_config, tmp_path):
    """Their tasks take equally many steps: as alone, matrices of accuracies included."""
    dataset, config = make_dataset(classes=4), make_config("samm", epochs=1)
    config = replace(config, {"stream.kind": "class", "stream.num_tasks": 2, "method.capacity": 8})
    configs = [replace(config, {"train.seed": seed, "stream.seed": seed}) for seed in range(2)]
    assert not together.find_obstacle(list(together.build_many(configs, dataset=dataset)))
    found = train(configs, tmp_path, dataset)
    streams = [run.setup.stream for run in found]
    assert not np.array_equal(streams[0].tasks[0].classes, streams[1].tasks[0].classes)
    for i, run in enumerate(found):
        expected = schedule.train(configs[i], tmp_path / f"alone{i}", dataset=dataset,
                              devices=DEVICES[:1], progress=False)
        chex.assert_trees_all_equal(leaves(run), leaves(expected))
        chex.assert_trees_all_equal(numbers(run.history), numbers(expected.history))


def test_streams_whose_tasks_have_other_lengths_are_compiled_once(make_dataset, make_config, tmp_path):
    """As alone, with a schedule that decays over each task."""
    dataset, config = make_dataset(), make_config("er", epochs=1, batch_size=2, optimizer=OptimizerConfig(
        learning_rate=0.1, schedule="cosine"))
    config = replace(config, {"stream.kind": "class", "stream.num_tasks": 2, "method.capacity": 8})
    configs = [replace(config, {"train.seed": seed, "stream.seed": seed}) for seed in range(3)]
    setups = list(together.build_many(configs, dataset=dataset, devices=DEVICES[:1]))
    assert len({setup.spec.rows for setup in setups}) > 1
    assert len({setup.programs.bind for setup in setups}) == 1
    more = setup_lib.build(configs[1], dataset=make_dataset(rows=(40, 16, 16)), devices=DEVICES[:1], like=setups[0])
    assert more.programs.bind is not setups[0].programs.bind        # ids of examples reach further
    for i, run in enumerate(train(configs, tmp_path, dataset)):
        expected = schedule.train(configs[i], tmp_path / f"alone{i}", dataset=dataset, devices=DEVICES[:1],
                                  progress=False)
        chex.assert_trees_all_equal(leaves(run), leaves(expected))
        chex.assert_trees_all_equal(numbers(run.history), numbers(expected.history))


def test_a_loss_that_is_not_finite_stops_its_own_run_only(make_dataset, make_config, tmp_path):
    dataset = make_dataset()
    config = make_config("late", epochs=3, steps_per_call=4)
    rates = [0.1, 1e30, 0.05]
    configs = [replace(config, {"optimizer.learning_rate": rate}) for rate in rates]
    first, broken, last = train(configs, tmp_path, dataset)
    assert isinstance(broken, FloatingPointError)
    assert str(broken).startswith(f"{tmp_path / '1'}: the loss of step ")
    for i, run in ((0, first), (2, last)):
        expected = schedule.train(configs[i], tmp_path / f"alone{i}", dataset=dataset,
                              devices=DEVICES[:1], progress=False)
        chex.assert_trees_all_equal(leaves(run), leaves(expected))
        assert list(checkpoints.open_manager(tmp_path / str(i)).all_steps()) == [8, 12]
    assert not list(checkpoints.open_manager(tmp_path / "1").all_steps())


def test_what_keeps_runs_apart(make_dataset, make_config, tmp_path, capsys):
    config = make_config()
    assert not together.difference(seeds(config, 3))
    other = replace(config, {"train.batch_size": 4, "train.seed": 1})
    assert together.difference([config, other]) == "they differ in train.batch_size"
    assert not setup_lib.build(config, dataset=make_dataset()).obstacle
    stream = {"stream.kind": "class", "stream.num_tasks": 2, "train.batch_size": 2}
    uneven = [replace(config, stream | {"stream.seed": seed}) for seed in range(3)]
    assert together.find_obstacle(list(together.build_many(
        uneven, dataset=make_dataset(), devices=DEVICES[:1]))) == "their tasks take different numbers of steps"
    config.data.placement = "host"
    assert "streamed" in setup_lib.build(config, dataset=make_dataset()).obstacle
    images = make_dataset({"image": (4, 4, 1)})
    convolutions = make_config(modalities=("image",), encoder=EncoderConfig(width=2, depth=1),
                               epochs=1)
    workdirs = [tmp_path / "0", tmp_path / "1"]
    runs = list(schedule.train_many(seeds(convolutions, 2), workdirs, dataset=images,
                                devices=DEVICES[:1]))
    assert "2 runs one after the other: convolutions" in capsys.readouterr().err
    assert runs[0].setup.programs is runs[1].setup.programs     # compiled once all the same


def test_two_accumulated_batches_equal_one_twice_as_large(make_dataset, make_config, tmp_path):
    """The order of the data and the epochs of the schedule stay those of the large batch."""
    dataset = make_dataset()
    optimizer = OptimizerConfig(learning_rate=0.1, schedule="step", decay_epochs=1)
    large, small = [
        schedule.train(make_config("late", optimizer=optimizer, epochs=3, **options), tmp_path / name,
                   dataset=dataset, devices=DEVICES[:1], progress=False)
        for name, options in (("large", {"batch_size": 16}),
                              ("small", {"batch_size": 8, "accumulate": 2}))]
    params = [run.setup.programs.fetch(run.state).params for run in (large, small)]
    chex.assert_trees_all_close(*params, rtol=1e-5, atol=1e-6)
    assert [r["epoch"] for r in small.history] == [r["epoch"] for r in large.history]
