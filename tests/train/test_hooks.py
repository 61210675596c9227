"""When the loop calls the parts of a method: phases, ends of epochs, visits, ends of tasks."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import MethodConfig, StreamConfig, replace
from jaxmm.methods import METHODS, Entry
from jaxmm.methods.common import Method, TrainState
from jaxmm.train import schedule

ROWS = 30


def make_counting(options, model):
    """Learns nothing, and counts in `extra` how its parts are called."""
    del options

    def init(key, batch):
        extra = {"steps": jnp.zeros((2, 2)), "ends": jnp.zeros(2), "mean": jnp.zeros(3),
                 "visits": jnp.zeros(ROWS), "old": (jnp.zeros(2), jnp.zeros(2))}
        return TrainState({"head": jnp.zeros(2)}, {}, {}, key, jnp.zeros((), jnp.int32), extra)

    def add(state, name, where, number=1):
        return state._replace(extra=state.extra | {name: state.extra[name].at[where].add(number)})

    def make_step(phase):
        def step(state, batch):
            task = state.extra["ends"][1].astype(int)
            state = add(state, "steps", (task, phase))
            return state._replace(step=state.step + 1), {"loss": jnp.zeros(())}
        return step

    def end_epoch(state, features_of):
        train = features_of("train")
        state = add(state, "ends", 0)
        mean = jnp.asarray(train["features"]["sound"][train["present"]["sound"]].mean(0))
        return state._replace(extra=state.extra | {"mean": mean})

    def visit(state, batch):
        counts = jnp.stack(list(batch["present"].values())).any(0)
        ids, counts = model.gather((batch["id"], counts))
        return add(state, "visits", ids, counts.astype(jnp.float32))

    def end_task(state):
        """Keeps the same array under two names, which a step may not donate twice."""
        state, head = add(state, "ends", 1), state.params["head"]
        return state._replace(extra=state.extra | {"old": (head, head)})

    return Method(init, {"early": make_step(0), "late": make_step(1)},
                  lambda state, batch: {"fused": jnp.zeros((len(batch["label"]), 3))},
                  lambda state, batch: batch["inputs"], end_epoch=end_epoch, visit=visit,
                  end_task=end_task, phase=lambda at: "late" if at.task and at.epoch else "early")


@pytest.mark.parametrize("devices, runs, placement", [
    (1, 1, "device"), (2, 1, "host"), (1, 2, "device"), (2, 2, "device"), (2, 3, "device")])
def test_hooks(devices, runs, placement, make_dataset, make_config, tmp_path, monkeypatch):
    """Two tasks of 20 and 10 rows, three epochs each, batches of 8."""
    monkeypatch.setitem(METHODS, "counting", Entry(MethodConfig("counting"), make_counting,
                                                "counts what it is called for", "no paper"))
    dataset = make_dataset(rows=(ROWS, 9, 9), missing=True)
    config = make_config("counting", epochs=3, batch_size=8, steps_per_call=2)
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
        train = result.setup.dataset.splits["train"]
        sound = train["inputs"]["sound"][train["present"]["sound"]]
        np.testing.assert_allclose(extra["mean"], sound.mean(0), rtol=1e-4, atol=1e-5)
