import json
import os
import re
import signal
from collections import UserList
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import AugmentConfig, EncoderConfig, replace
from jaxmm.data import feeding
from jaxmm.errors import UserError, WriteError
from jaxmm.methods.mla import MLAConfig
from jaxmm.signals import Preempted
from jaxmm.train import checkpoints, loop, opened, schedule, setup as setup_lib, writers
from jaxmm.train.folder import claim_folder

pytestmark = pytest.mark.usefixtures("compiled_once")
ONE = jax.devices()[:1]


def run(config, workdir, dataset, **kwargs):
    return schedule.train(config, workdir, dataset=dataset, devices=ONE, progress=False, **kwargs)


def final(result):
    return checkpoints.flatten(result.setup.programs.fetch(result.state))


def measured(workdir):
    """The last epoch's records, by folder of the run and its teachers, without what the clock says.

    A stop within an epoch adds a look to it.
    """
    def last(path):
        records = map(json.loads, path.read_text().splitlines())
        return [{k: v for k, v in r.items() if k not in writers.CLOCKED} for r in records if r["step"] > 8]

    return {path.relative_to(workdir): last(path) for path in workdir.rglob("metrics.jsonl")}


@pytest.mark.parametrize("name, phases", [
    ("er", 1), ("g_blending", 2), ("mla", 1), ("qmf", 1), ("samm", 1), ("frozen_linear_on_distilled", 4),
    ("cca", 2), ("dcca", 2), ("dccae", 2), ("ae", 1), ("cra", 1), ("mmin", 2), ("if_mmin", 2), ("cpm_net", 2),
    ("tate", 2), ("agm", 1), ("opm", 1), ("smv", 1)])
def test_resumed_equals_undisturbed(name, phases, make_dataset, make_config, tmp_path, monkeypatch):
    """A signal in the middle of an epoch of each phase, and the same command after each: the same bits at the end.

    The phases are the run itself and those of its teachers.
    """
    dataset = make_dataset()
    config = make_config(name, epochs=3, steps_per_call=1)
    config.augment["sound"] = AugmentConfig(noise=0.1)
    whole = run(config, tmp_path / "whole", dataset)
    stopped = []

    def steps_with_signal(steps, method):
        count = iter(range(100))

        def wrapped(*args):
            if next(count) == 5 and method not in stopped:
                stopped.append(method)
                signal.raise_signal(signal.SIGTERM)
            return steps(*args)
        return wrapped

    build = setup_lib.build

    def build_with_signal(built, **kwargs):
        setup = build(built, **kwargs)
        return setup._replace(programs=setup.programs._replace(
            steps=steps_with_signal(setup.programs.steps, built.method)))

    monkeypatch.setattr(setup_lib, "build", build_with_signal)
    for _ in range(phases):
        with pytest.raises(Preempted, match="step 6 of 12"):
            run(config, tmp_path / "cut", dataset)
    resumed = run(config, tmp_path / "cut", dataset)
    chex.assert_trees_all_equal(final(resumed), final(whole))
    assert resumed.history == whole.history
    assert measured(tmp_path / "cut") == measured(tmp_path / "whole")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_is_restored_is_not_drawn_first(make_dataset, make_config, tmp_path, monkeypatch):
    dataset, config = make_dataset(), make_config("er", epochs=1)
    before = run(config, tmp_path, dataset)
    monkeypatch.setattr(opened, "init_state", None)
    found = run(config, tmp_path, dataset)
    assert found.history == before.history
    chex.assert_trees_all_equal(final(found), final(before))


def test_streamed_rows_give_the_same_batches(make_dataset, make_config, tmp_path):
    dataset = make_dataset(missing=True)
    results = []
    for placement in ("device", "host"):
        for steps_per_call in (1, 3):
            config = make_config("mla", steps_per_call=steps_per_call)
            config.data.placement = placement
            results.append(final(run(config, tmp_path / f"{placement}{steps_per_call}", dataset)))
    for other in results[1:]:
        chex.assert_trees_all_close(other, results[0], rtol=1e-6, atol=1e-7)


def test_streamed_rows_lie_on_a_device_that_has_room(make_dataset, make_config, tmp_path, monkeypatch):
    """They are trained on as those that are placed there, 32 steps in a call; all else stays as it is."""
    dataset, config = make_dataset(missing=True), make_config("mla")
    config.data.placement = "device"
    placed = run(config, tmp_path / "placed", dataset)
    config.data.placement = "auto"
    monkeypatch.setattr(feeding, "STREAM_ABOVE_BYTES", 0)
    monkeypatch.setattr(feeding, "device_memory", lambda: 2**30)
    found = run(config, tmp_path / "auto", dataset)
    assert found.setup.steps_per_call == setup_lib.SCANNED_STEPS and not found.setup.obstacle
    assert found.setup.spec.checksums == placed.setup.spec.checksums
    chex.assert_trees_all_equal(final(found), final(placed))
    monkeypatch.setattr(feeding, "device_memory", lambda: 0)
    assert setup_lib.build(config, dataset=dataset, devices=ONE).steps_per_call == 1


def test_streamed_rows_on_several_devices(make_dataset, make_config):
    dataset = make_dataset(missing=True)
    setup = setup_lib.build(make_config("late"), dataset=dataset, devices=jax.devices()[:4])
    states = []
    for placement in ("device", "host"):
        feed = setup.programs.feed(dataset.splits["train"], placement)
        index = np.random.default_rng(0).integers(32, size=(3, 8)).astype(np.int32)
        state, _ = setup.programs.steps(setup_lib.init_state(setup), feed.at(index))
        states.append(checkpoints.flatten(setup.programs.fetch(state)))
    chex.assert_trees_all_close(*states, rtol=1e-6, atol=1e-7)


def test_history_and_metrics_file(make_dataset, make_config, tmp_path):
    config = make_config("concat", epochs=3, eval_epochs=2)
    result = run(config, tmp_path / "run", make_dataset())
    assert [(r["epoch"], r["split"]) for r in result.history] == [(2, "val"), (3, "val"),
                                                                 (3, "test")]
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    trained = [r for r in lines if r["kind"] == "train"]
    assert [r["step"] for r in trained] == [4, 8, 12] and not any("gradient_norm" in r for r in trained)
    assert [r["learning_rate"] for r in trained] == [0.1] * 3
    assert 0 < trained[0]["seconds"] < trained[1]["seconds"] < trained[2]["seconds"]
    assert [r for r in lines if r["kind"] == "eval"] == [{"kind": "eval"} | r
                                                         for r in result.history]
    # Running a finished folder again changes nothing.
    again = run(config, tmp_path / "run", make_dataset())
    assert again.history == result.history
    chex.assert_trees_all_equal(final(again), final(result))


@pytest.mark.parametrize("name, heads", [
    ("concat", ["fused"]), ("late", ["sound", "image", "fused"]),
    ("mla", ["sound", "image", "fused"]), ("samm", ["fused", "dynamic"])])
def test_learns(name, heads, make_dataset, make_config, tmp_path):
    """Of classes that lie far apart it knows far more than who guesses, whose loss is log 3."""
    dataset = make_dataset(rows=(300, 30, 150), noise=0.05)
    result = run(make_config(name, epochs=15, batch_size=30), tmp_path, dataset)
    scores = result.history[-1]["scores"]
    assert all(scores[head]["nll"] < np.log(3) / 2 for head in heads), scores


def test_another_config_is_refused_with_the_differences(make_dataset, make_config, tmp_path):
    run(make_config("mla", epochs=1), tmp_path / "run", make_dataset())
    other = make_config(MLAConfig(alpha=0.5), epochs=1)
    other.train.batch_size = 4
    with pytest.raises(UserError, match="method.alpha was 0.1, is 0.5; train.batch_size was 8, is 4"):
        run(other, tmp_path / "run", make_dataset())


def test_a_folder_of_other_files_is_refused(make_dataset, make_config, tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not a run folder"):
        run(make_config(), tmp_path, make_dataset())
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_non_finite_loss_stops_and_keeps_the_last_good_checkpoint(make_dataset, make_config,
                                                                  tmp_path, monkeypatch):
    """Inputs turn infinite in the second epoch; the checkpoint of the first one stays."""
    dataset = make_dataset()
    config = make_config("concat", epochs=3, steps_per_call=1)

    def break_steps(setup):
        count = iter(range(100))

        def steps(*args):
            state, metrics = setup.programs.steps(*args)
            return state, metrics if next(count) < 5 else metrics | {"loss": np.array([np.inf])}

        return setup._replace(programs=setup.programs._replace(steps=steps))

    build = setup_lib.build
    monkeypatch.setattr(setup_lib, "build", lambda *a, **k: break_steps(build(*a, **k)))
    with pytest.raises(FloatingPointError, match="the loss of step 6 is inf"):
        run(config, tmp_path / "run", dataset)
    manager = checkpoints.open_manager(tmp_path / "run")
    assert list(manager.all_steps()) == [4]


def test_the_clock_is_read_when_the_steps_are_done(make_dataset, make_config, tmp_path, monkeypatch):
    """Metrics that take a second for each step to come, on a clock that nothing else moves."""
    now = [0.0]

    class Coming(UserList):
        def __array__(self, dtype=None, copy=None):
            now[0] += len(self)
            return np.array(self.data)

    def delay(setup):
        def steps(*args):
            state, metrics = setup.programs.steps(*args)
            return state, {"loss": Coming(metrics["loss"])}

        return setup._replace(programs=setup.programs._replace(steps=steps))

    build = setup_lib.build
    monkeypatch.setattr(setup_lib, "build", lambda *args, **kwargs: delay(build(*args, **kwargs)))
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    run(make_config("concat", epochs=2, steps_per_call=3), tmp_path / "run", make_dataset())
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["examples_per_second"]) for r in lines if r["kind"] == "train"] == [
        (4, 8.0), (8, 8.0)]      # a batch is 8


@pytest.mark.parametrize("broken", [None, 2])
def test_metrics_are_read_once_the_next_steps_are_on_their_way(broken, make_dataset, make_config, tmp_path,
                                                               monkeypatch):
    """Five steps of an epoch, whose metrics are read two by two; the end of the epoch waits for its own."""
    events = []

    class Logged(UserList):
        def __array__(self, dtype=None, copy=None):
            events.append(f"read {self.data[0]}")
            return np.array([np.inf if self.data[0] == broken else self.data[0]])

    def log(setup):
        def steps(*args):
            number = 1 + sum(event.startswith("step") for event in events)
            events.append(f"step {number}")
            return setup.programs.steps(*args)[0], {"loss": Logged([number])}

        return setup._replace(programs=setup.programs._replace(steps=steps))

    build = setup_lib.build
    monkeypatch.setattr(setup_lib, "build", lambda *args, **kwargs: log(build(*args, **kwargs)))
    monkeypatch.setattr(loop, "METRICS_EVERY", 2)
    config, dataset = make_config("concat", epochs=1, steps_per_call=1), make_dataset(rows=(40, 16, 16))
    if broken:
        with pytest.raises(FloatingPointError, match="the loss of step 2 is inf"):
            run(config, tmp_path / "run", dataset)
        assert events == ["step 1", "step 2", "step 3", "read 1", "read 2"]
        return
    run(config, tmp_path / "run", dataset)
    assert events == ["step 1", "step 2", "step 3", "read 1", "read 2", "step 4", "step 5", "read 3",
                      "read 4", "read 5"]
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    assert [(r["step"], r["loss"]) for r in lines if r["kind"] == "train"] == [(2, 1.5), (4, 3.5), (5, 5.0)]


def test_a_teacher_that_diverges_stops_only_the_runs_that_need_it(make_dataset, make_config, tmp_path):
    config = make_config("ume", epochs=3)
    configs = [replace(config, {"optimizer.learning_rate": rate}) for rate in (1e30, 0.1)]
    folders = [tmp_path / "broken", tmp_path / "sound"]
    broken, sound = schedule.train_many(configs, folders, dataset=make_dataset(), devices=ONE,
                                    progress=False)
    assert isinstance(broken, FloatingPointError)
    assert re.match(rf"{folders[0]} starts from unimodal_image: {folders[0]}/teachers/unimodal_image: "
                    "the loss of step ", str(broken))
    assert [r["split"] for r in sound.history] == ["val", "test"]
    assert not list((folders[0] / "checkpoints").glob("*"))


def test_means_leave_out_steps_without_a_number():
    values = {"loss": np.array([1.0, 2.0, 6.0]), "accuracy/sound": np.array([0.5, np.nan, 1.0]),
              "accuracy/image": np.full(3, np.nan)}
    assert loop.mean_metrics(values, 3) == {"loss": 3.0, "accuracy/sound": 0.75}


def test_a_loss_that_is_large_makes_a_record_and_what_overflows_is_left_out():
    large = np.finfo(np.float32).max
    means = loop.mean_metrics({"loss": np.float32([1e25, large]), "gradient_norm": np.float32([1, np.inf])}, 2)
    assert means == {"loss": pytest.approx(large / 2 + 5e24)}
    record = {"kind": "train", "step": 2} | means
    assert writers.parse(json.dumps(record).encode()) == record


def test_a_full_disk_stops_the_run_or_not_as_the_config_says(make_dataset, make_config, tmp_path,
                                                              monkeypatch, caplog):
    """The checkpoint of the second epoch of four does not fit; the end is the same either way."""
    dataset, full = make_dataset(), {8}
    real_write = checkpoints.write

    def write(manager, step, *args):
        with monkeypatch.context() as patch:
            if step in full:
                patch.setattr(checkpoints, "SPARE_BYTES", 1 << 60)      # the disk has less
            real_write(manager, step, *args)

    monkeypatch.setattr(checkpoints, "write", write)
    config = make_config("concat", epochs=4, on_save_error="continue")
    whole = run(config, tmp_path / "continued", dataset)
    assert "step 8 could not be written (" in caplog.text and "training continues" in caplog.text
    assert sorted(checkpoints.open_manager(tmp_path / "continued").all_steps()) == [12, 16]

    config.train.on_save_error = "stop"
    with pytest.raises(WriteError, match="step 8 could not be written.*that of step 4 is kept"):
        run(config, tmp_path / "stopped", dataset)
    full.clear()
    stopped = run(config, tmp_path / "stopped", dataset)
    chex.assert_trees_all_equal(final(stopped), final(whole))
    assert stopped.history == whole.history


def test_a_signal_does_not_claim_that_a_state_is_saved_which_is_not(make_dataset, make_config,
                                                                    tmp_path, monkeypatch):
    def copy_leaves(step, state):
        if step == 4:
            signal.raise_signal(signal.SIGTERM)
        return {}

    def write(manager, step, *args):
        raise WriteError(f"step {step} could not be written")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "copy_leaves", copy_leaves)
        patch.setattr(checkpoints, "write", write)
        with pytest.raises(WriteError, match="step 8"):
            run(make_config("concat", epochs=4, on_save_error="continue"), tmp_path, make_dataset())
    assert run(make_config("concat", epochs=4), tmp_path, make_dataset()).history


def test_a_folder_is_locked_while_it_is_trained_in(make_dataset, make_config, tmp_path):
    dataset, config = make_dataset(), make_config("concat", epochs=1)
    with claim_folder(tmp_path, config):
        with pytest.raises(UserError, match="is in use by process"):
            run(config, tmp_path, dataset)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "lock"]
    run(config, tmp_path, dataset)


def test_what_a_killed_save_left_is_named_and_removed(make_dataset, make_config, tmp_path, caplog):
    config = make_config("concat", epochs=1)
    left = tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp"
    with claim_folder(tmp_path, config):
        left.mkdir(parents=True)
        (left / "state").write_text("half")
    run(config, tmp_path, make_dataset())
    assert "removed 4.orbax-checkpoint-tmp, left by a save that was cut short" in caplog.text
    assert [p.name for p in left.parent.iterdir()] == ["4"]


def test_a_line_says_what_the_state_takes(make_dataset, make_config, tmp_path, capsys):
    setup = setup_lib.build(make_config("mla"), dataset=make_dataset(), devices=ONE)
    state = setup_lib.init_state(setup)
    # Parameters: encoders 3 x 6 + 6 and 5 x 6 + 6, head 6 x 3 + 3.
    many = state._replace(extra={"memory": jnp.zeros(2**18)}, opt_state=jnp.zeros(2**19))
    assert loop.describe_state(many) == ("81 parameters; state of 3.0 MiB: params 0.0, "
                                         "optimizer 2.0, memory 1.0")
    schedule.train(make_config("mla", epochs=1), tmp_path / "run", dataset=make_dataset(), devices=ONE)
    err = capsys.readouterr().err
    assert "81 parameters; state of 0.0 MiB" in err and "first call: " in err


def test_a_damaged_last_checkpoint_is_made_again(make_dataset, make_config, tmp_path):
    config = make_config("concat", epochs=3, steps_per_call=3)
    whole = run(config, tmp_path / "run", make_dataset())
    for path in (tmp_path / "run/checkpoints/12/state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    again = run(config, tmp_path / "run", make_dataset())
    chex.assert_trees_all_equal(final(again), final(whole))
    manager = checkpoints.open_manager(tmp_path / "run")
    step, _, _ = checkpoints.restore(manager, again.state)
    assert step == 12


def test_other_data_in_the_same_place_are_refused(make_dataset, make_config, tmp_path):
    config = make_config("concat", epochs=1)
    run(config, tmp_path / "run", make_dataset())
    with pytest.raises(UserError, match="not the data this run was trained on"):
        run(config, tmp_path / "run", make_dataset(seed=1))


@pytest.mark.parametrize("option, value, message", [
    ("batch_size", 33, "batch_size=33.*32 training examples"),
    ("batch_size", 0, "batch_size=0"), ("epochs", 0, "epochs=0"),
    ("on_save_error", "ignore", "train.on_save_error='ignore'.*stop, continue"),
    ("seed", -1, "train.seed=-1"), ("eval_epochs", 0, "eval_epochs"), ("steps_per_call", -1, "steps_per_call")])
def test_bad_counts_are_refused_before_anything_is_written(option, value, message, make_dataset,
                                                           make_config, tmp_path):
    with pytest.raises(UserError, match=message):
        run(make_config("concat", **{option: value}), tmp_path / "run", make_dataset())
    assert not (tmp_path / "run").exists()


def test_options_for_a_modality_that_does_not_exist(make_dataset, make_config):
    config = make_config()
    config.augment["smell"] = AugmentConfig(noise=1.0)
    with pytest.raises(UserError, match="augment.smell.*image, sound"):
        setup_lib.build(config, dataset=make_dataset())


@pytest.mark.parametrize("method, change, message", [
    ("mla", lambda c: setattr(c.encoders["sound"], "width", 7), "sound 7.*image 6|image 6.*sound 7"),
    ("mla", lambda c: setattr(c.method, "name", "concat"), "FILE.py:concat"),
    ("concat", lambda c: setattr(c.data, "placement", "disk"), "data.placement='disk'"),
    ("concat", lambda c: c.augment.update(sound=AugmentConfig(noise=-1.0)), "augment.sound.noise"),
    ("concat", lambda c: c.augment.update(sound=AugmentConfig(crop=1)), "vectors, which take only")])
def test_what_does_not_fit_is_found_before_anything_is_written(method, change, message,
                                                               make_dataset, make_config, tmp_path):
    config = make_config(method)
    change(config)
    with pytest.raises(UserError, match=message):
        run(config, tmp_path / "run", make_dataset())
    assert not (tmp_path / "run").exists()


def test_a_batch_must_divide_over_the_devices(make_dataset, make_config):
    with pytest.raises(UserError, match="batch_size=9.*4 devices"):
        setup_lib.build(make_config(batch_size=9), dataset=make_dataset(), devices=jax.devices()[:4])


def test_three_modalities(make_dataset, make_config, tmp_path):
    shapes = {"sound": (3,), "image": (4, 4, 1), "flow": (2, 4, 4, 1)}
    dataset = make_dataset(shapes, rows=(32, 8, 8))
    config = make_config("mla", modalities=tuple(shapes), epochs=1,
                         encoder=EncoderConfig(width=2, depth=1, features=6))
    result = run(config, tmp_path / "run", dataset)
    assert set(result.history[-1]["scores"]) == {"sound", "image", "flow", "fused"}
