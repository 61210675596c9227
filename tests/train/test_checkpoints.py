import logging
import os
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.errors import UserError
from jaxmm.methods import TrainState
from jaxmm.train import checkpoints


def make_state(scale=1.0):
    return TrainState({"sound": {"w": scale * jnp.arange(4.0)}}, {}, {"sound": (jnp.ones(4),)},
                      jax.random.key(3), jnp.int32(5), {"memory": jnp.zeros((2, 3), jnp.uint8)})


@pytest.fixture
def manager(tmp_path):
    manager = checkpoints.open_manager(tmp_path, keep=3)
    for step in (1, 2):
        checkpoints.save(manager, step, make_state(step), {"history": [step]})
    return manager


def payload(manager, step):
    """The largest file of a checkpoint: the arrays."""
    folder = pathlib.Path(os.fspath(manager.directory)) / str(step) / "state"
    files = [p for p in folder.rglob("*") if p.is_file()]
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


def test_only_the_newest_are_kept(manager):
    for step in (3, 4):
        checkpoints.save(manager, step, make_state(step), {})
    assert sorted(manager.all_steps()) == [2, 3, 4]


def test_nothing_to_restore(tmp_path):
    assert checkpoints.restore(checkpoints.open_manager(tmp_path), make_state()) is None


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(manager, caplog):
    path = payload(manager, 2)
    path.write_bytes(path.read_bytes()[:-8])
    with caplog.at_level(logging.WARNING):
        step, state, _ = checkpoints.restore(manager, make_state())
    assert step == 1 and "step 2" in caplog.text
    chex.assert_trees_all_equal(state, make_state(1))


def test_without_a_good_checkpoint_nothing_starts_over(manager):
    for step in (1, 2):
        payload(manager, step).write_bytes(b"")
    with pytest.raises(UserError, match="no good checkpoint"):
        checkpoints.restore(manager, make_state())


def test_after_a_fallback_the_damaged_steps_are_written_again(manager):
    payload(manager, 2).write_bytes(b"")
    step, _, _ = checkpoints.restore(manager, make_state())
    checkpoints.set_aside(manager, step)
    checkpoints.save(manager, 2, make_state(7), {})
    _, state, _ = checkpoints.restore(manager, make_state(), step=2)
    chex.assert_trees_all_equal(state, make_state(7))


def test_parameters_that_are_not_finite_are_not_saved(manager):
    with pytest.raises(FloatingPointError, match="step 3.*params/sound/w"):
        checkpoints.save(manager, 3, make_state(np.nan), {})
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
