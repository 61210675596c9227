"""Runs that go on for more epochs, and that start from the weights of others."""
import chex
import jax
import numpy as np
import pytest

from jaxmm.config import EncoderConfig, OptimizerConfig, StreamConfig, replace
from jaxmm.errors import UserError
from jaxmm.train import checkpoints
from jaxmm.train.folder import read_config
from jaxmm.train.schedule import train
from jaxmm.train.weights import init_from
from jaxmm.train.setup import build, init_state

ONE = jax.devices()[:1]


def leaves(run):
    return checkpoints.flatten(run.setup.programs.fetch(run.state))


@pytest.mark.parametrize("options", [{}, {"keep": "best"}])
def test_more_epochs_are_those_of_a_run_that_is_as_long(options, make_dataset, make_config, tmp_path):
    dataset = make_dataset()

    def run(folder, epochs):
        return train(make_config("late", epochs=epochs, **options), tmp_path / folder, dataset=dataset,
                     devices=ONE, progress=False)

    whole = run("whole", 4)
    run("short", 2)
    longer = run("short", 4)
    chex.assert_trees_all_equal(leaves(longer), leaves(whole))
    assert longer.history == whole.history
    assert [r["split"] for r in longer.history].count("test") == 1
    assert read_config(tmp_path / "short").train.epochs == 4
    with pytest.raises(UserError, match="train.epochs was 4, is 3"):
        run("short", 3)


def test_a_rate_that_depends_on_the_length_needs_a_word(make_dataset, make_config, tmp_path):
    config = make_config("concat", epochs=1, optimizer=OptimizerConfig(schedule="cosine"))
    longer = replace(config, {"train.epochs": 2})
    options = {"dataset": make_dataset(), "devices": ONE, "progress": False}
    before = train(config, tmp_path, **options)
    with pytest.raises(UserError, match="of the schedule cosine depends on it.*give --extend"):
        train(longer, tmp_path, **options)
    assert read_config(tmp_path).train.epochs == 1
    after = train(longer, tmp_path, **options, extend=True)
    assert after.state.step == 2 * before.state.step and after.history[-1]["epoch"] == 2


def test_a_stream_is_not_continued(make_dataset, make_config, tmp_path):
    config = make_config("sgd", epochs=1)
    config.stream = StreamConfig(kind="class", num_tasks=2)
    options = {"dataset": make_dataset(), "devices": ONE, "progress": False}
    train(config, tmp_path, **options)
    with pytest.raises(UserError, match="the first tasks of a stream are over"):
        train(replace(config, {"train.epochs": 2}), tmp_path, **options)


def test_weights_of_another_run(make_dataset, make_config, tmp_path, caplog):
    """Its encoder of sound, but not that of image, which has another width."""
    dataset = make_dataset()
    config = make_config("late", epochs=1)
    config.encoders["image"] = EncoderConfig(name="mlp", width=7, depth=1)
    other = leaves(train(config, tmp_path / "other", dataset=dataset, devices=ONE, progress=False))
    config = make_config("late", epochs=1, init_from=str(tmp_path / "other"), seed=5)
    setup = build(config, dataset=dataset, devices=ONE)
    first = setup.programs.fetch(init_state(setup))
    found, fresh = checkpoints.flatten(init_from(setup, first)), checkpoints.flatten(first)
    same = {name for name in fresh if name.startswith("params/") and np.shape(other.get(name)) == fresh[name].shape}
    assert any(name.startswith("params/sound/") for name in same) and same
    for name, x in found.items():
        np.testing.assert_array_equal(x, (other if name in same else fresh)[name])
    trained = train(config, tmp_path / "new", dataset=dataset, devices=ONE, progress=False)
    assert trained.state.step == 4
    plain = train(replace(config, {"train.init_from": ""}), tmp_path / "plain", dataset=dataset, devices=ONE,
                  progress=False)
    name = min(name for name in same if name.startswith("params/sound/"))
    assert not np.array_equal(leaves(trained)[name], leaves(plain)[name])
    config.encoders["sound"] = config.encoders["image"] = EncoderConfig(name="mlp", width=9, depth=1)
    with pytest.raises(UserError, match="is not a run folder"):
        init_from(build(replace(config, {"train.init_from": "nowhere"}), dataset=dataset), first)


def test_nothing_that_matches_is_refused(make_dataset, make_config, tmp_path):
    dataset = make_dataset()
    train(make_config("concat", epochs=1), tmp_path / "other", dataset=dataset, devices=ONE, progress=False)
    config = make_config("concat", epochs=1, encoder=EncoderConfig(name="mlp", width=9, depth=1),
                         init_from=str(tmp_path / "other"))
    other = make_dataset(shapes={"sound": (4,), "image": (6,)}, classes=4)
    with pytest.raises(UserError, match="nothing in it has the name and shape of a parameter here"):
        train(config, tmp_path / "new", dataset=other, devices=ONE, progress=False)
