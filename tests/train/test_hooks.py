"""When the loop calls the parts of a method: phases, surveys, ends of epochs, visits, ends of tasks."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.batch import take
from jaxmm.config import MethodConfig, StreamConfig, replace
from jaxmm.methods import METHODS, Entry
from jaxmm.methods.common import Method, TrainState
from jaxmm.train import group, schedule

ROWS = 30


def make_counting(options, model):
    """Learns nothing, and counts in `extra` how its parts are called; it surveys if its name says so."""

    def init(key, batch):
        extra = {"steps": jnp.zeros((2, 2)), "ends": jnp.zeros(2), "mean": jnp.zeros(3), "part": jnp.zeros(3),
                 "visits": jnp.zeros(ROWS), "survey": jnp.zeros(ROWS), "old": (jnp.zeros(2), jnp.zeros(2))}
        return TrainState({"head": jnp.ones(2)}, {}, {}, key, jnp.zeros((), jnp.int32), extra)

    def add(state, name, where, number=1):
        return state._replace(extra=state.extra | {name: state.extra[name].at[where].add(number)})

    def make_step(phase):
        def step(state, batch):
            task = state.extra["ends"][1].astype(int)
            state = add(state, "steps", (task, phase))
            return state._replace(step=state.step + 1), {"loss": jnp.zeros(())}
        return step

    def end_epoch(state, features_of):
        means = {}
        for name, rows in (("mean", features_of("train")), ("part", features_of("val", 0.5))):
            means[name] = jnp.asarray(rows["features"]["sound"][rows["present"]["sound"]].mean(0))
        return add(state, "ends", 0)._replace(extra=add(state, "ends", 0).extra | means)

    def count(name):
        def count_rows(state, batch):
            counts = jnp.stack(list(batch["present"].values())).any(0)
            ids, counts = model.gather((batch["id"], counts))
            return add(state, name, ids, counts.astype(jnp.float32))
        return count_rows

    def begin(state):
        """Keeps an array that the state has already, too."""
        return state._replace(extra=state.extra | {"old": (state.params["head"], state.params["head"])})

    def end_task(state):
        """Keeps the same array under two names, which a step may not donate twice."""
        state, head = add(state, "ends", 1), state.params["head"]
        return state._replace(extra=state.extra | {"old": (head, head)})

    return Method(init, {"early": make_step(0), "late": make_step(1)},
                  lambda state, batch: {"fused": jnp.zeros((len(batch["label"]), 3))},
                  lambda state, batch: batch["inputs"], begin=begin, end_epoch=end_epoch, visit=count("visits"),
                  survey=count("survey") if options.name == "surveying" else None, end_task=end_task,
                  phase=lambda at: "late" if np.max(at.extra()["ends"][..., 0]) > 3 else "early")


@pytest.mark.parametrize("devices, runs, placement", [
    (1, 1, "device"), (2, 1, "host"), (1, 2, "device"), (2, 2, "device"), (2, 3, "device")])
def test_hooks(devices, runs, placement, make_dataset, make_config, tmp_path, monkeypatch):
    """Two tasks of 20 and 10 rows, three epochs each, batches of 8; the phase goes by the epochs that ended."""
    name = "counting" if runs > 1 else "surveying"
    monkeypatch.setitem(METHODS, name, Entry(MethodConfig(name), make_counting, "counts what it is called for",
                                             "no paper"))
    dataset = make_dataset(rows=(ROWS, 9, 9), missing=True)
    config = make_config(name, epochs=3, batch_size=8, steps_per_call=2)
    config.stream, config.data.placement = StreamConfig(kind="class", num_tasks=2), placement
    configs = [replace(config, {"train.seed": seed}) for seed in range(runs)]
    results = schedule.train_many(configs, [tmp_path / str(i) for i in range(runs)], dataset=dataset,
                              devices=jax.devices()[:devices], progress=False)
    for result in results:
        sizes = [len(rows) for rows in result.setup.tasks]
        extra = result.setup.programs.fetch(result.state).extra
        steps = [size // 8 for size in sizes]
        np.testing.assert_array_equal(extra["steps"], [[3 * steps[0], 0], [steps[1], 2 * steps[1]]])
        np.testing.assert_array_equal(extra["ends"], [6, 2])
        np.testing.assert_array_equal(extra["visits"], 1)
        np.testing.assert_array_equal(extra["survey"], np.isin(np.arange(ROWS), result.setup.tasks[0]) * (runs == 1))
        np.testing.assert_array_equal(extra["old"], 1)
        for part, split, rows in (("mean", "train", result.setup.tasks[1]), (
                "part", "val", group.share_of(result.setup.stream.tasks[1].indices["val"], 0.5))):
            batch = take(result.setup.dataset.splits[split], rows)
            sound = batch["inputs"]["sound"][batch["present"]["sound"]]
            np.testing.assert_allclose(extra[part], sound.mean(0), rtol=1e-4, atol=1e-5)


def test_a_share_of_the_rows_is_spread_over_them_and_always_the_same():
    rows = np.arange(100, 1100)
    found = group.share_of(rows, 0.1)
    assert len(found) == len(np.unique(found)) == 100 and set(found) <= set(rows)
    assert 550 < found.mean() < 650 and len(np.unique(found % 10)) == 10
    np.testing.assert_array_equal(group.share_of(rows, 0.1), found)
    np.testing.assert_array_equal(group.share_of(rows, 1.0), rows)
    assert len(group.share_of(rows[:3], 0.1)) == 1
