"""The replay memory against algorithm R in NumPy, over batches, devices and seeds."""
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.errors import UserError
from jaxmm.state import replay

CAPACITY = 6
EXAMPLE = {"image": jax.ShapeDtypeStruct((2, 2), jnp.uint8), "label": np.int32(0),
           "present": np.bool_(True)}
LABELS = np.array([7] * 9 + [2] * 3 + [0], np.int32)    # of a memory with three free slots more

add = jax.jit(replay.add)
sample = jax.jit(replay.sample, static_argnums=1)


def stream(size):
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(1, size + 1, dtype=np.uint8), 4).reshape(size, 2, 2)
    return {"image": image, "label": rng.integers(0, 3, size).astype(np.int32),
            "present": rng.random(size) < 0.5}


def rows(batch, index):
    return jax.tree.map(lambda x: x[index], batch)


def fill(state, data, weights=None):
    """Adds `data` in batches of 8, the last of them padded with rows of weight 0."""
    size = len(data["label"])
    weights = np.ones(size) if weights is None else weights
    for start in range(0, size, 8):
        index = np.arange(start, start + 8)
        row = np.minimum(index, size - 1)
        state = add(state, rows(data, row), np.where(index < size, weights[row], 0))
    return state


def algorithm_r(state, data):
    """Row by row: row t fills slot t, or replaces the slot it drew, if there is such a slot."""
    size = len(data["label"])
    draws = np.asarray(replay.draw_slots(state.add_key, jnp.arange(size), CAPACITY))
    storage = {k: np.zeros((CAPACITY, *x.shape[1:]), x.dtype) for k, x in data.items()}
    for t, slot in enumerate(draws):
        slot = t if t < CAPACITY else slot
        if slot < CAPACITY:
            for k, x in data.items():
                storage[k][slot] = x[t]
    return storage, draws


def assert_trees_equal(actual, desired):
    jax.tree.map(np.testing.assert_array_equal, actual, desired)


@pytest.fixture(scope="module")
def empty():
    return replay.init(CAPACITY, EXAMPLE, jax.random.key(3))


@pytest.fixture(scope="module")
def samples():
    """4000 samples of a memory that holds `LABELS`: the slots drawn, without and with balance."""
    slot = jnp.arange(16, dtype=jnp.int32)
    state = replay.ReplayState({"label": jnp.pad(LABELS, (0, 3)), "slot": slot},
                               jnp.int32(13), jax.random.key(0), jax.random.key(1))

    @partial(jax.jit, static_argnums=1)
    def draw(keys, balanced):
        one = lambda key: replay.sample(state._replace(sample_key=key), 16, balanced=balanced)
        return jax.vmap(one)(keys)[1]["slot"]

    keys = jax.random.split(jax.random.key(2), 4000)
    return np.asarray(draw(keys, False)), np.asarray(draw(keys, True))


def assert_rate(actual, p):
    """Four standard errors of a rate over 4000 draws."""
    np.testing.assert_array_less(np.abs(actual - p), 4 * np.sqrt(p * (1 - p) / 4000) + 1e-9)


def test_draws_are_uniform_over_the_stream_so_far():
    keys = jax.random.split(jax.random.key(0), 4000)
    number = jnp.array([0, 3, 4, 9])
    draw = jax.jit(jax.vmap(replay.draw_slots, (0, None, None)), static_argnums=2)
    slots = np.asarray(draw(keys, number, 4))
    np.testing.assert_array_equal(slots[:, :2], np.broadcast_to([0, 3], (4000, 2)))
    for column, t in ((2, 4), (3, 9)):      # on [0, t], both ends included
        rate = np.bincount(slots[:, column], minlength=t + 1) / 4000
        assert_rate(rate, np.full(t + 1, 1 / (t + 1)))


def test_equals_algorithm_r_however_the_stream_is_cut(empty):
    data = stream(44)
    expected, draws = algorithm_r(empty, data)
    kept = draws[draws < CAPACITY][CAPACITY:]
    assert len(np.unique(kept)) < len(kept)     # in the one batch of 44, slots are drawn twice
    whole, parts = replay.add(empty, data), fill(empty, data)      # the first without jit
    for state in (whole, parts):
        assert_trees_equal(state.storage, expected)
        assert state.seen == 44 and replay.size(state) == CAPACITY
        dtypes = {name: x.dtype for name, x in state.storage.items()}
        assert dtypes == {"image": np.uint8, "label": np.int32, "present": np.bool_}


def test_rows_of_weight_zero_neither_enter_nor_count(empty):
    data = stream(44)
    weights = np.random.default_rng(1).integers(0, 2, 44)
    state = fill(empty, data, weights)
    assert_trees_equal(state.storage, algorithm_r(empty, rows(data, weights == 1))[0])
    assert state.seen == weights.sum()


def test_filled_slots(empty):
    state = fill(empty, stream(4))
    assert replay.size(empty) == 0 and replay.size(state) == 4
    np.testing.assert_array_equal(replay.filled(state), np.arange(CAPACITY) < 4)


def test_every_item_is_equally_likely_to_be_kept():
    """20,000 streams of 200 items into 20 slots: each is kept with probability 1/10."""
    num_streams, items, capacity = 20_000, 200, 20
    batches = jnp.arange(items, dtype=jnp.int32).reshape(4, 50)

    @jax.jit
    @jax.vmap
    def memory(key):
        state = replay.init(capacity, jax.ShapeDtypeStruct((), jnp.int32), key)
        return jax.lax.scan(lambda s, b: (replay.add(s, b), None), state, batches)[0].storage

    held = np.asarray(memory(jax.random.split(jax.random.key(0), num_streams)))
    assert (np.diff(np.sort(held, axis=1), axis=1) > 0).all()
    rate = np.bincount(held.ravel(), minlength=items) / num_streams
    np.testing.assert_allclose(rate, 0.1, atol=4 * np.sqrt(0.1 * 0.9 / num_streams), rtol=0)


def test_vmap_over_seeds_equals_each_seed_alone(empty):
    first, second = rows(stream(16), slice(0, 8)), rows(stream(16), slice(8, 16))
    keys = jax.random.split(jax.random.key(1), 3)
    add_all = jax.jit(jax.vmap(replay.add, (0, None, None)))
    states = jax.vmap(lambda key: empty._replace(add_key=key))(keys)
    states = add_all(add_all(states, first, np.ones(8)), second, np.ones(8))
    for i in range(3):
        alone = fill(empty._replace(add_key=keys[i]), stream(16))
        assert_trees_equal(rows(states.storage, i), alone.storage)


def test_eight_devices_hold_the_memory_of_one(empty):
    assert jax.device_count() == 8
    p_add = jax.pmap(partial(replay.add, axis_name="devices"), axis_name="devices")
    p_sample = jax.pmap(lambda s: replay.sample(s, 2, axis_name="devices"), axis_name="devices")
    data, weights = stream(48), np.random.default_rng(2).integers(0, 2, 48)
    states = jax.pmap(lambda _: empty)(np.arange(8))
    for part in (slice(0, 24), slice(24, 48)):
        sharded = jax.tree.map(lambda x: x[part].reshape(8, 3, *x.shape[1:]), (data, weights))
        states = p_add(states, *sharded)
    state = fill(empty, data, weights)
    for d in range(8):
        assert_trees_equal(rows(states.storage, d), state.storage)
        assert states.seen[d] == state.seen

    state, batch, valid = sample(state, 16)
    states, batches, valids = p_sample(states)
    assert_trees_equal(jax.tree.map(lambda x: x.reshape(16, *x.shape[2:]), batches), batch)
    np.testing.assert_array_equal(valids.ravel(), valid)
    assert valid.sum() == CAPACITY
    for d in range(8):
        assert states.sample_key[d] == state.sample_key


def test_sample_is_without_replacement_and_says_what_is_missing(empty):
    data = stream(4)
    state = fill(empty, data)
    for size in (5, 16):        # fewer and more than the memory has slots
        _, batch, valid = sample(state, size)
        np.testing.assert_array_equal(valid, np.arange(size) < 4)
        order = np.asarray(batch["image"][:4, 0, 0]) - 1
        np.testing.assert_array_equal(np.sort(order), np.arange(4))
        assert_trees_equal(rows(batch, slice(0, 4)), rows(data, order))
        assert batch["image"].dtype == np.uint8
    assert not sample(empty, 5)[2].any()


def test_sample_is_uniform(samples):
    slots = samples[0][:, :13]
    assert (np.sort(slots, axis=1) == np.arange(13)).all()
    pairs = np.zeros((13, 13))
    np.add.at(pairs, (slots[:, 0], slots[:, 12]), 1 / 4000)
    assert_rate(pairs, (1 - np.eye(13)) / (13 * 12))


def test_sample_advances_its_key_and_leaves_the_draws_of_add_alone(empty):
    data = stream(44)
    state = fill(empty, rows(data, slice(0, 20)))
    after_one, first, _ = sample(state, 5)
    after_two, second, _ = sample(after_one, 5)
    assert (first["image"] != second["image"]).any()
    assert_trees_equal(sample(state, 5)[1], first)      # the same key, the same sample
    rest = rows(data, slice(20, 44))
    assert_trees_equal(fill(after_two, rest).storage, algorithm_r(empty, data)[0])


def test_balanced_sample_goes_round_the_classes(samples):
    labels = LABELS[samples[1][:, :13]]
    # One row of each class; then of the two that are left, twice; then class 7 is alone.
    for start, stop, classes in ((0, 3, [0, 2, 7]), (3, 5, [2, 7]), (5, 7, [2, 7]), (7, 8, [7])):
        found = np.sort(labels[:, start:stop], axis=1)
        np.testing.assert_array_equal(found, np.broadcast_to(classes, found.shape))


def test_balanced_sample_is_uniform_over_classes_and_within_them(samples):
    slots = samples[1][:, 0]
    rate = np.bincount(slots, minlength=13) / 4000
    assert_rate(rate, np.array([1 / 27] * 9 + [1 / 9] * 3 + [1 / 3]))


def test_sample_then_add_on_donated_memory_copies_nothing():
    capacity, pixels = 1000, 32 * 32
    row = {"image": jax.ShapeDtypeStruct((32, 32), jnp.uint8), "label": np.int32(0)}
    state = jax.eval_shape(lambda: replay.init(capacity, row, jax.random.key(0)))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((4, *x.shape), x.dtype), row)

    def step(state, batch):
        state, replayed, _ = replay.sample(state, 4)
        return replay.add(state, batch), replayed["image"].astype(jnp.float32).mean()

    memory = jax.jit(step, donate_argnums=0).lower(state, batch).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= capacity * pixels
    assert memory.temp_size_in_bytes < capacity * pixels / 10


def test_wrong_uses_are_refused(empty):
    with pytest.raises(UserError, match="replay capacity 0"):
        replay.init(0, EXAMPLE, jax.random.key(0))
    with pytest.raises(AssertionError, match="dtype"):
        replay.add(empty, stream(4) | {"image": np.zeros((4, 2, 2), np.float32)})
    with pytest.raises(AssertionError, match="shape"):
        replay.add(empty, stream(4) | {"image": np.zeros((4, 2, 3), np.uint8)})
