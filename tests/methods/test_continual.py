import jax
import numpy as np
import pytest

from jaxmm.config import OptimizerConfig, StreamConfig
from jaxmm.errors import UserError
from jaxmm.evaluate import tasks
from jaxmm.methods.continual import ERConfig, SGDConfig
from jaxmm.methods.fusion import UnimodalConfig
from jaxmm.state import replay
from jaxmm.train import checkpoints, plan, predictions, schedule, setup as setup_lib

pytestmark = pytest.mark.usefixtures("compiled_once")
ONE = jax.devices()[:1]


def run(method, dataset, make_config, workdir, **stream):
    config = make_config(method, epochs=6, batch_size=10, optimizer=OptimizerConfig(
        learning_rate=0.03, schedule="constant"))
    config.stream = StreamConfig(kind="class", num_tasks=3, **stream)
    return schedule.train(config, workdir, dataset=dataset, devices=ONE, progress=False)


def test_replay_remembers_what_fine_tuning_forgets(make_dataset, make_config, tmp_path):
    dataset = make_dataset(rows=(150, 30, 90), noise=0.05)
    R = {name: tasks.matrices(run(method, dataset, make_config, tmp_path / name, **stream).history)
         for name, method, stream in (("sgd", SGDConfig(), {}), ("er", ERConfig(capacity=60), {}),
                                      ("joint", SGDConfig(), {"joint": True}))}
    assert R["sgd"]["fused"].shape == (3, 3) and R["joint"]["fused"].shape == (1, 3)
    np.testing.assert_array_equal(np.triu(R["sgd"]["fused"], 1), 0)
    last = {name: by_head["fused"][-1] for name, by_head in R.items()}
    # Of classes far apart, known as a whole or not at all.
    learned = np.diag(R["sgd"]["fused"])
    assert (learned - last["sgd"])[:-1].min() > 0.5
    assert (last["er"] - last["sgd"])[:-1].min() > 0.5 and (last["joint"] - last["sgd"])[:-1].min() > 0.5


class Stop:
    """A batch that cannot be read."""
    def __getitem__(self, i):
        raise KeyboardInterrupt


@pytest.mark.parametrize("method, stops", [
    ("samm", (5, 7, 10, 12)), ("er", (7, 10)), ("derpp", (7, 10)), ("er_ace", (7, 10)), ("er_aml", (7, 10)),
    ("cls_er", (7, 10)), ("agem", (7, 10)), ("lwf", (7, 10)), ("av_cil", (7, 10)), ("ewc", (7, "visit", 10)),
    ("analytic", (7, "visit", 10))])
def test_resume_inside_and_at_the_end_of_a_task(method, stops, make_dataset, make_config, tmp_path,
                                                monkeypatch):
    """Tasks end after 5 and 10 steps; the memory, its keys and the history come back bit by bit.

    At "visit" it stops when a part of the second task's rows has been visited.
    """
    dataset = make_dataset(rows=(60, 12, 12))

    def train(name):
        config = make_config(method, epochs=1, batch_size=4, steps_per_call=1,
                             optimizer=OptimizerConfig(learning_rate=0.02, schedule="constant"))
        if hasattr(config.method, "capacity"):
            config.method.capacity = 12
        config.stream = StreamConfig(kind="class", num_tasks=3)
        return schedule.train(config, tmp_path / name, dataset=dataset, devices=ONE, progress=False)

    def final(result):
        return checkpoints.flatten(result.setup.programs.fetch(result.state))

    whole = train("whole")
    chunk_of, visits = plan.Chunks.__getitem__, plan.visits

    def cut_short(tasks, batch_size):
        order = list(visits(tasks, batch_size))
        return order if np.array_equal(tasks[0], whole.setup.tasks[0]) else [order[0], Stop()]

    for stop in stops:
        def killed(chunks, number, stop=stop):
            chunk = chunk_of(chunks, number)
            if chunk.end > stop:
                raise KeyboardInterrupt
            return chunk

        with monkeypatch.context() as patch:
            if stop == "visit":
                patch.setattr(plan, "visits", cut_short)
            else:
                patch.setattr(plan.Chunks, "__getitem__", killed)
            with pytest.raises(KeyboardInterrupt):
                train("cut")
    resumed = train("cut")
    found, expected = final(resumed), final(whole)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert resumed.history == whole.history


def test_one_modality_alone(make_dataset, make_config):
    """Neither parameters nor memory hold anything of the other modality."""
    dataset = make_dataset()
    row = 5 * 4 + 2 * 4 + 1         # bytes of image, label, id and mask
    config = make_config(ERConfig(modalities="image", capacity_bytes=17 * row - 1))
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)
    feed = setup.programs.feed(dataset.splits["train"], "device")
    state, _ = setup.programs.steps(setup_lib.init_state(setup), feed.at(np.arange(8, dtype=np.int32)[None]))
    assert set(state.params) == {"image", "head"}
    assert {m: x.shape for m, x in state.extra["memory"].storage["inputs"].items()} == {"image": (16, 5)}
    logits = predictions.predict_split(setup, state, dataset.splits["val"])
    np.testing.assert_array_equal(logits["image"], logits["fused"])


def test_rows_the_memory_does_not_fill_do_not_count(make_dataset, make_config):
    """The first step of replay, with an empty memory, is the first step of fine-tuning."""
    dataset = make_dataset()
    results = []
    for method in (SGDConfig(), ERConfig(capacity=16)):
        setup = setup_lib.build(make_config(method), dataset=dataset, devices=ONE)
        feed = setup.programs.feed(dataset.splits["train"], "device")
        state, metrics = setup.programs.steps(setup_lib.init_state(setup), feed.at(
                                              np.arange(8, dtype=np.int32)[None]))
        results.append((state.params, metrics))
    for a, b in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1])):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert int(replay.size(state.extra["memory"])) == 8


@pytest.mark.parametrize("devices", [1, 4])
def test_rows_that_fill_up_a_batch_enter_the_memory_once(devices, make_dataset, make_config):
    """Of a task of five rows in batches of eight, over devices too."""
    dataset = make_dataset()
    setup = setup_lib.build(make_config(ERConfig(capacity=16)), dataset=dataset,
                            devices=jax.devices()[:devices])
    feed = setup.programs.feed(dataset.splits["train"], "device")
    index = np.array([[3, 1, 4, 0, 2, 3, 1, 4]], np.int32)
    state, _ = setup.programs.steps(setup_lib.init_state(setup), feed.at(index))
    memory = setup.programs.fetch(state).extra["memory"]
    assert int(memory.seen) == 5
    np.testing.assert_array_equal(memory.storage["id"][:5], [3, 1, 4, 0, 2])


@pytest.mark.parametrize("method", [SGDConfig(modalities="sound"), UnimodalConfig(modality="sound")],
                         ids=["sgd", "unimodal"])
def test_a_run_of_part_of_the_modalities_learns_from_rows_that_have_one(
        method, make_dataset, make_config, caplog):
    """20 of 32 rows, in its steps and order; it says how many of each split are left out."""
    setup_lib.say.cache_clear()     # it says everything once
    dataset = make_dataset()
    for split, lost in (("train", 12), ("test", 4)):
        dataset.splits[split]["present"]["sound"][:lost] = False
    setup = setup_lib.build(make_config(method), dataset=dataset, devices=ONE)
    np.testing.assert_array_equal(setup.tasks[0], np.arange(12, 32))
    assert setup.total_steps == 2 * (20 // 8)
    assert [f"{n} rows of {split} have none of sound" in caplog.text for n, split in (
        ("12 of 32", "train"), ("4 of 16", "test"))] == [True, True] and "of val" not in caplog.text
    logits = np.eye(3)[np.where(np.arange(16) < 4, 0, dataset.splits["test"]["label"])]
    scores = predictions.score_split(setup, {"sound": logits, "fused": logits}, "test")["scores"]
    assert scores["fused"]["accuracy"] == scores["sound"]["accuracy"] == 1
    config = make_config(method, batch_size=4)
    config.stream = StreamConfig(kind="class", num_tasks=3)
    dataset.splits["train"]["present"]["sound"][dataset.splits["train"]["label"] == 1] = False
    with pytest.raises(UserError, match="task [123] of 3 has no training row with sound"):
        setup_lib.build(config, dataset=dataset, devices=ONE)


@pytest.mark.parametrize("stream, message", [
    (dict(kind="class", num_tasks=4), "4 tasks cannot share 3 classes"),
    (dict(kind="class", num_tasks=0), "0 tasks"),
    (dict(kind="time"), "stream.kind='time'; expected class, domain, group or generalized"),
    (dict(kind="group"), "stream.kind=group: tiny does not say which group its rows are of"),
    (dict(kind="domain", coarse="nowhere.csv"), "nowhere.csv"),
    (dict(kind="generalized", num_tasks=2, phase_size=0), "phase_size is 0"),
    (dict(kind="class", num_tasks=3, budget=9), "stream.budget=9 is for a stream that is learned at once"),
    (dict(kind="class", num_tasks=3, joint=True, budget=7), "train.batch_size=8; .* 7 training examples")])
def test_streams_that_cannot_be_made_are_refused(stream, message, make_dataset, make_config):
    config = make_config("sgd")
    config.stream = StreamConfig(**stream)
    with pytest.raises(UserError, match=message):
        setup_lib.build(config, dataset=make_dataset(), devices=ONE)
