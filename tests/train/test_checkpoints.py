import contextlib
import errno
import logging
import os
import pathlib
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from jaxmm.errors import UserError, WriteError
from jaxmm.methods.common import TrainState
from jaxmm.train import checkpoints


def make_state(scale=1.0):
    return TrainState({"sound": {"w": scale * jnp.arange(4.0)}}, {}, {"sound": (jnp.ones(4),)},
                      jax.random.key(3), jnp.int32(5), {"memory": jnp.zeros((2, 3), jnp.uint8)})


@pytest.fixture
def manager(tmp_path):
    manager = checkpoints.open_manager(tmp_path)
    for step in (1, 2):
        save(manager, step, make_state(step), {"history": [step]})
    return manager


def save(manager, step, state, meta, keep=3):
    checkpoints.save(manager, step, state, meta, keep)


def folder(manager, step=""):
    return pathlib.Path(os.fspath(manager.directory), str(step))


def names(manager):
    return sorted(p.name for p in folder(manager).iterdir())


def payload(manager, step):
    """The largest file of a checkpoint: the arrays."""
    files = [p for p in (folder(manager, step) / "state").rglob("*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


def test_restores_every_leaf_and_type(manager):
    step, state, meta = checkpoints.restore(manager, make_state())
    assert (step, meta["history"]) == (2, [2])
    chex.assert_trees_all_equal(state, make_state(2))
    chex.assert_trees_all_equal_dtypes(state, make_state(2))
    np.testing.assert_array_equal(jax.random.uniform(state.key), jax.random.uniform(make_state().key))


def test_a_named_step_is_restored_or_refused(manager):
    _, state, _ = checkpoints.restore(manager, make_state(), step=1)
    chex.assert_trees_all_equal(state, make_state(1))
    with pytest.raises(UserError, match="step 7.*\\[1, 2\\]"):
        checkpoints.restore(manager, make_state(), step=7)


def test_what_training_removes_meanwhile_is_not_called_damaged(manager, caplog):
    """One process has seen the steps 1 and 2; another saves step 3 and keeps only that."""
    save(checkpoints.open_manager(folder(manager).parent), 3, make_state(3), {"history": [3]}, keep=1)
    assert set(manager.all_steps()) == {1, 2} and names(manager) == ["3"]
    step, state, _ = checkpoints.restore(manager, make_state())
    assert step == 3 and not caplog.text
    chex.assert_trees_all_equal(state, make_state(3))
    with pytest.raises(UserError, match=r"no checkpoint of step 1; found \[3\]"):
        checkpoints.restore(manager, make_state(), step=1)


def test_meta_is_that_of_the_newest_legible_checkpoint(manager, tmp_path):
    assert checkpoints.last_meta(tmp_path)["history"] == [2]
    shutil.rmtree(folder(manager, 2) / "meta")
    assert checkpoints.last_meta(tmp_path)["history"] == [1]
    assert checkpoints.last_meta(tmp_path / "elsewhere") is None
    assert not (tmp_path / "elsewhere").exists()


def test_only_the_newest_are_kept(manager):
    for step in (3, 4):
        save(manager, step, make_state(step), {})
    assert sorted(manager.all_steps()) == [2, 3, 4]
    assert names(manager) == ["2", "3", "4"]


def test_a_step_is_not_saved_twice(manager):
    with pytest.raises(ValueError, match="checkpoint of step 2 already"):
        save(manager, 2, make_state(5), {})
    chex.assert_trees_all_equal(checkpoints.restore(manager, make_state())[1], make_state(2))


def test_old_ones_are_removed_only_when_the_new_one_is_read_back(manager, monkeypatch):
    """A disk that keeps other bits than it was given: what is read back has a wrong checksum."""
    read = checkpoints.read

    def flip_and_read(manager, step):
        assert names(manager) == ["1", "2", "3"]    # nothing is removed before it is read
        path = payload(manager, step)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        return read(manager, step)

    monkeypatch.setattr(checkpoints, "read", flip_and_read)
    with pytest.raises(WriteError, match="checkpoint of step 3 could not be.*that of step 2 is kept"):
        save(manager, 3, make_state(3), {}, keep=1)
    assert names(manager) == ["1", "2"]
    monkeypatch.undo()
    save(manager, 3, make_state(3), {}, keep=1)
    assert names(manager) == ["3"]
    chex.assert_trees_all_equal(checkpoints.restore(manager, make_state())[1], make_state(3))


def swapped(manager):
    one, two = folder(manager, 1), folder(manager, 2)
    one.rename(folder(manager, "x"))
    two.rename(one)
    folder(manager, "x").rename(two)


def test_the_step_is_part_of_what_is_verified(manager, caplog):
    """The older of two in the folder of the newer is not taken for the newer."""
    save(manager, 3, make_state(3), {})
    swapped(manager)
    manager = checkpoints.open_manager(folder(manager).parent)
    assert checkpoints.restore(manager, make_state())[0] == 3
    for step, other in ((1, 2), (2, 1)):
        with pytest.raises(UserError, match=f"no good checkpoint among the steps .{step}."):
            checkpoints.restore(manager, make_state(), step)
        assert f"step {step} in" in caplog.text and f"it is that of step {other}, in" in caplog.text


def test_a_checkpoint_from_before_the_step_was_noted_has_that_of_its_state(manager):
    for step in (5, 6):     # the state has step 5
        leaves = checkpoints.copy_leaves(step, make_state())
        manager.save(step, args=ocp.args.Composite(
            state=ocp.args.StandardSave(leaves),
            meta=ocp.args.JsonSave(checkpoints._with_checksums(leaves, {}))))
    assert checkpoints.restore(manager, make_state())[0] == 5


def test_one_that_is_removed_while_it_is_read_is_not_damaged(manager, monkeypatch, caplog):
    """As `launch.evaluate` finds it while training continues: it takes the newest there is."""
    reader, read = checkpoints.open_manager(folder(manager).parent), checkpoints.read

    def train_and_read(of, step):
        monkeypatch.setattr(checkpoints, "read", read)
        save(manager, 3, make_state(3), {}, keep=1)
        return read(of, step)

    monkeypatch.setattr(checkpoints, "read", train_and_read)
    step, state, _ = checkpoints.restore(reader, make_state())
    assert step == 3 and names(manager) == ["3"] and not caplog.records
    chex.assert_trees_all_equal(state, make_state(3))
    monkeypatch.setattr(checkpoints, "read", lambda of, step: shutil.rmtree(folder(of, step)))
    with pytest.raises(UserError, match="no checkpoint of step 3; found none"):
        checkpoints.restore(reader, make_state(), 3)
    assert checkpoints.restore(reader, make_state()) is None and not caplog.records


def test_links_are_not_followed(manager, tmp_path):
    """Neither that of the whole folder, nor those that look like old or unfinished checkpoints."""
    for name in ("0", "9.orbax-checkpoint-tmp-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("precious")
        folder(manager, name).symlink_to(tmp_path / name)
    manager = checkpoints.open_manager(folder(manager).parent)
    checkpoints.remove_unfinished(manager)
    save(manager, 3, make_state(3), {}, keep=1)
    assert names(manager) == ["3"]
    assert {(tmp_path / n / "file").read_text() for n in ("0", "9.orbax-checkpoint-tmp-1")} == {"precious"}
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").symlink_to(folder(manager))
    with pytest.raises(UserError, match="run/checkpoints is not this folder's own"):
        checkpoints.open_manager(tmp_path / "run")


def test_a_pipe_in_a_checkpoint_is_damage_and_not_waited_for(manager):
    os.mkfifo(folder(manager, 2) / "state/pipe")
    assert checkpoints.restore(manager, make_state())[0] == 1


def test_nothing_to_restore(tmp_path):
    assert checkpoints.restore(checkpoints.open_manager(tmp_path), make_state()) is None


def empty_folder(manager):
    shutil.rmtree(folder(manager, 2))
    folder(manager, 2).mkdir()


def missing_manifest(manager):
    for path in (folder(manager, 2) / "state").rglob("manifest.ocdbt"):
        path.unlink()


def truncated_payload(manager):
    path = payload(manager, 2)
    path.write_bytes(path.read_bytes()[:-8])


def missing_meta(manager):
    shutil.rmtree(folder(manager, 2) / "meta")


def changed_meta(manager):
    path = folder(manager, 2) / "meta" / "metadata"
    content = path.read_text()
    assert '"history":[2]' in content.replace(" ", "")
    path.write_text(content.replace("[2]", "[3]"))


def missing_array(manager):
    """As if it had been saved without one of its arrays."""
    leaves, meta = checkpoints.read(manager, 2)
    leaves.pop("step")
    shutil.rmtree(folder(manager, 2))
    manager.reload()
    manager.save(2, args=ocp.args.Composite(state=ocp.args.StandardSave(leaves),
                                            meta=ocp.args.JsonSave(meta)))


@pytest.mark.parametrize("damage, reason", [
    (empty_folder, ""), (missing_manifest, ""), (truncated_payload, ""), (missing_meta, "meta"),
    (changed_meta, "meta has a wrong checksum"), (missing_array, "step has a wrong checksum")])
def test_a_damaged_checkpoint_is_named_and_the_one_before_used(damage, reason, manager, caplog):
    damage(manager)
    manager = checkpoints.open_manager(folder(manager).parent)
    with caplog.at_level(logging.WARNING):
        step, state, _ = checkpoints.restore(manager, make_state())
    assert step == 1
    chex.assert_trees_all_equal(state, make_state(1))
    message, = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert message.startswith(f"checkpoint of step 2 in {folder(manager)} is damaged and left out: ")
    assert reason in message and "\n" not in message
    with pytest.raises(UserError, match="no good checkpoint among the steps \\[2\\]"):
        checkpoints.restore(manager, make_state(), step=2)


def test_no_flipped_bit_is_restored(manager):
    """Wherever the bit is: either it does not matter, or the checkpoint before is used."""
    rng = np.random.default_rng(0)
    paths = sorted(p for p in folder(manager, 2).rglob("*") if p.is_file())
    steps = []
    for path in 3 * [p for p in paths if p.stat().st_size]:
        content = path.read_bytes()
        changed = bytearray(content)
        changed[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        manager = checkpoints.open_manager(folder(manager).parent)
        step, state, meta = checkpoints.restore(manager, make_state())
        chex.assert_trees_all_equal(state, make_state(step))
        assert meta["history"] == [step]
        steps.append(step)
        path.write_bytes(content)
    assert set(steps) == {1, 2}


def test_what_a_killed_save_left_is_no_checkpoint_and_is_removed(manager):
    shutil.copytree(folder(manager, 2), folder(manager, "3.orbax-checkpoint-tmp"))
    manager = checkpoints.open_manager(folder(manager).parent)
    assert checkpoints.restore(manager, make_state())[0] == 2
    assert checkpoints.remove_unfinished(manager) == ["3.orbax-checkpoint-tmp"]
    assert names(manager) == ["1", "2"]
    save(manager, 3, make_state(3), {})
    assert checkpoints.restore(manager, make_state())[0] == 3


def big_state():
    noise = np.random.default_rng(0).normal(size=100_000)     # does not compress
    return make_state()._replace(extra={"memory": jnp.asarray(noise, jnp.float32)})


def test_a_full_disk_is_said_in_one_line_and_the_last_checkpoint_kept(manager, caplog, full_disk):
    with full_disk(), pytest.raises(WriteError) as error:
        save(manager, 3, big_state(), {}, keep=1)
    assert str(error.value) == (
        f"{folder(manager)}: the checkpoint of step 3 could not be written (File too large); "
        "that of step 2 is kept")
    assert names(manager) == ["1", "2"] and not caplog.records
    save(manager, 3, big_state(), {}, keep=1)
    assert names(manager) == ["3"]


def test_a_disk_that_fills_up_while_it_is_written(manager, monkeypatch, full_disk):
    """Orbax itself fails halfway: what there is of the step is removed."""
    monkeypatch.setattr(checkpoints, "_check_room", lambda manager, size: None)
    with full_disk(), pytest.raises(WriteError, match="step 3 could not be written .*too large.*step 2"):
        save(manager, 3, big_state(), {})
    monkeypatch.undo()
    save(manager, 3, big_state(), {})
    assert names(manager) == ["1", "2", "3"]
    chex.assert_trees_all_equal(checkpoints.restore(manager, big_state())[1], big_state())


def test_saving_in_the_background_keeps_what_the_state_was(tmp_path):
    manager = checkpoints.open_manager(tmp_path)
    step_fn = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state, history = {"params": jnp.zeros(1000)}, []
    with checkpoints.open_saver(manager, 5, "stop") as save_later:
        for step in range(1, 5):
            state = step_fn(state)
            history.append(step)
            save_later(step, state, {"history": history})
        save_later(5, step_fn(state), {"history": history + [5]}, last=True)
        assert sorted(manager.all_steps()) == [1, 2, 3, 4, 5]
    for step in range(1, 6):
        _, found, meta = checkpoints.restore(manager, {"params": jnp.zeros(1000)}, step=step)
        np.testing.assert_array_equal(found["params"], step)
        assert meta["history"] == list(range(1, step + 1))


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_an_error_in_the_background_follows_the_policy(policy, tmp_path, caplog, full_disk):
    manager = checkpoints.open_manager(tmp_path)
    reached = []

    def run():
        with checkpoints.open_saver(manager, 2, policy) as save_later:
            save_later(1, big_state(), {}, last=True)
            with full_disk():
                save_later(2, big_state(), {})
                try:
                    save_later(3, big_state(), {})
                finally:
                    reached.append(3)
            save_later(4, big_state(), {})
            reached.append(4)

    if policy == "stop":
        with pytest.raises(WriteError, match="step 2 could not be written.*step 1 is kept"):
            run()
        assert reached == [3] and names(manager) == ["1"]
    else:
        run()
        assert reached == [3, 4]
        # Step 3 may have been written after the disk had room again.
        assert set(names(manager)) <= {"1", "3", "4"} and "4" in names(manager)
        assert "step 2 could not be written (File too large); that of step 1 is kept; " \
               "training continues" in caplog.text


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_the_last_save_must_succeed(policy, tmp_path, full_disk):
    manager = checkpoints.open_manager(tmp_path)
    with pytest.raises(WriteError, match="step 1 could not be written.*none before it"):
        with checkpoints.open_saver(manager, 2, policy) as save_later, full_disk():
            save_later(1, big_state(), {}, last=True)


def test_without_a_good_checkpoint_nothing_starts_over(manager):
    for step in (1, 2):
        payload(manager, step).write_bytes(b"")
    with pytest.raises(UserError, match="no good checkpoint"):
        checkpoints.restore(manager, make_state())


def test_one_that_is_out_of_reach_is_not_called_damaged(manager, monkeypatch):
    """For want of rights, say, of which the tests may have all: what reads may say what it likes."""
    def read(manager, step):
        raise ValueError("PERMISSION_DENIED: Error reading local file")

    def refuse(path, mode):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(checkpoints, "read", read)
    monkeypatch.setattr(checkpoints, "open", refuse, raising=False)
    with pytest.raises(UserError, match="2/.* cannot be read now .Permission denied"):
        checkpoints.restore(manager, make_state())


def test_after_a_fallback_the_damaged_steps_are_written_again(manager):
    payload(manager, 2).write_bytes(b"")
    step, _, _ = checkpoints.restore(manager, make_state())
    checkpoints.set_aside(manager, step)
    save(manager, 2, make_state(7), {})
    _, state, _ = checkpoints.restore(manager, make_state(), step=2)
    chex.assert_trees_all_equal(state, make_state(7))


def test_parameters_that_are_not_finite_are_not_saved(manager):
    with pytest.raises(FloatingPointError, match="step 3.*params/sound/w"):
        save(manager, 3, make_state(np.nan), {})
    assert sorted(manager.all_steps()) == [1, 2]


def test_another_model_is_not_called_damaged(manager):
    other = make_state()._replace(params={"sound": {"w": jnp.zeros(5)}})
    with pytest.raises(UserError, match="another model or other data: params/sound/w"):
        checkpoints.restore(manager, other)


def test_wrong_shapes_are_refused():
    leaves = checkpoints.flatten(make_state())
    other = make_state()._replace(extra={"memory": jnp.zeros((2, 4), jnp.uint8)})
    with pytest.raises(ValueError, match="extra/memory"):
        checkpoints.unflatten(other, leaves)
    del leaves["step"]
    with pytest.raises(ValueError, match="step"):
        checkpoints.unflatten(make_state(), leaves)


@pytest.mark.parametrize("name", ["a[b", "a*", "a?", "a\\b", "gs:", "a/gs:/b", "a\udce9", "d/" * 1800])
def test_paths_that_orbax_misreads_are_refused_before_there_is_anything_to_save(name, tmp_path):
    with pytest.raises(UserError, match="checkpoints cannot be kept under|the path has") as error:
        checkpoints.check_path(tmp_path / name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert not list(tmp_path.iterdir())


def test_other_odd_paths_are_taken(tmp_path):
    folder = tmp_path / " a b%c\nd#{e}~$HOME:ü.orbax-checkpoint-tmp "
    checkpoints.check_path(folder)
    with contextlib.closing(checkpoints.open_manager(folder)) as manager:
        checkpoints.save(manager, 1, {"params": np.arange(3.0)}, {}, keep=1)
        step, state, _ = checkpoints.restore(manager, {"params": np.zeros(3)})
    assert step == 1
    np.testing.assert_array_equal(state["params"], [0, 1, 2])


def test_arrays_of_older_versions_are_found_where_they_are_now():
    logits = np.arange(6, dtype=np.float32).reshape(2, 3)
    old = {"extra/memory/storage/logits": logits}
    new = {"extra": {"memory": {"storage": {"logits": {"fused": jax.ShapeDtypeStruct((2, 3), np.float32)}}}}}
    np.testing.assert_array_equal(
        checkpoints.unflatten(new, old)["extra"]["memory"]["storage"]["logits"]["fused"], logits)
    same = {"extra": {"memory": {"storage": {"logits": jax.ShapeDtypeStruct((2, 3), np.float32)}}}}
    np.testing.assert_array_equal(checkpoints.unflatten(same, old)["extra"]["memory"]["storage"]["logits"], logits)
