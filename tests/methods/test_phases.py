"""Runs of methods that have phases, or do something at the ends of epochs: stopped in each, on more devices."""
import signal

import chex
import jax
import numpy as np
import pytest

from jaxmm.batch import take
from jaxmm.config import OptimizerConfig, scalar_options
from jaxmm.errors import UserError
from jaxmm.methods.fusion import UnimodalConfig
from jaxmm.methods.g2d import G2DConfig, find_strongest
from jaxmm.methods.mla_tcmax import MLATCMaxConfig
from jaxmm.methods.pmr import PMRConfig
from jaxmm.methods.reconboost import ReconBoostConfig
from jaxmm.methods.relearn import RelearnConfig
from jaxmm.signals import Preempted
from jaxmm.train import checkpoints, folder, schedule, setup as setup_lib, teaching

ONE, WHERE = jax.devices()[:1], "{teacher}/seed_{seed}"
EPOCHS = 3      # of 4 steps each
OPTIMIZER = OptimizerConfig(learning_rate=0.02, schedule="constant")


@pytest.fixture(scope="module")
def dataset(make_dataset):
    return make_dataset(missing=True)


@pytest.fixture(scope="module")
def teachers(dataset, make_config, tmp_path_factory):
    """Where the runs lie of which weights are taken over, or which are imitated."""
    root = tmp_path_factory.mktemp("teachers")
    for seed in (0, teaching.other_seed(0)):
        for m in dataset.modalities:
            schedule.train(make_config(UnimodalConfig(modality=m), seed=seed, epochs=1),
                           root / f"unimodal_{m}/seed_{seed}", dataset=dataset, devices=ONE, progress=False)
    return f"{root}/{WHERE}"


@pytest.mark.parametrize("options", [G2DConfig(), ReconBoostConfig(stage_epochs=1, joint_epochs=1),
                                     PMRConfig(share=0.5), RelearnConfig(every=1), MLATCMaxConfig(joint=0.5)], ids=lambda options: options.name)
def test_stopped_in_every_epoch_or_on_two_devices(options, dataset, teachers, make_config, tmp_path, monkeypatch):
    """The same bits after stops in the middle of each epoch, and so of each phase; on two devices up to rounding."""
    if hasattr(options, "teachers"):
        options.teachers = teachers
    config = make_config(options, optimizer=OPTIMIZER, epochs=EPOCHS, steps_per_call=1)

    def run(name, devices=ONE):
        return schedule.train(config, tmp_path / name, dataset=dataset, devices=devices, progress=False)

    def final(found):
        return checkpoints.flatten(found.setup.programs.fetch(found.state))

    whole, phases, build = run("whole"), [], setup_lib.build

    def build_with_signal(*args, **kwargs):
        setup = build(*args, **kwargs)

        def steps(state, fed, phase=""):
            phases.append(phase)
            if len(phases) in (2, 6, 10):
                signal.raise_signal(signal.SIGTERM)
            return setup.programs.steps(state, fed, phase)

        return setup._replace(programs=setup.programs._replace(steps=steps))

    monkeypatch.setattr(setup_lib, "build", build_with_signal)
    for step in (2, 6, 10):
        with pytest.raises(Preempted, match=f"after step {step} of 12"):
            run("cut")
    resumed = run("cut")
    chex.assert_trees_all_equal(final(resumed), final(whole))
    assert resumed.history == whole.history
    start = setup_lib.init_state(whole.setup)
    if options.name == "g2d":       # half of three epochs are two
        strongest = find_strongest(jax.device_get(whole.state.extra["confidence"]))
        assert phases == [f"without_{strongest}"] * 8 + ["all"] * 4
    if options.name == "reconboost":
        assert phases == ["stage_image"] * 4 + ["joint"] * 4 + ["stage_sound"] * 4
    if options.name == "pmr":
        assert all(np.any(c.known) for c in whole.state.extra["prototypes"].values())
    if options.name == "relearn":
        chex.assert_trees_all_equal(jax.device_get(whole.state.extra["initial"]["image"]),
                                    jax.device_get(start.params["image"]))
    monkeypatch.setattr(setup_lib, "build", build)
    chex.assert_trees_all_close(final(run("two", jax.devices()[:2])), final(whole), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [G2DConfig(), ReconBoostConfig()], ids=lambda options: options.name)
def test_which_of_five_encoders_each_phase_leaves_as_they_are(options, make_dataset, make_config):
    """In the traced step their parameters and state of the optimizer are the very values that went in."""
    shapes = {m: (3,) for m in "abcde"}
    config, dataset = make_config(options, modalities=shapes), make_dataset(shapes)
    method = setup_lib.build(config, dataset=dataset, devices=ONE).make_method(None, scalar_options(config))
    batch = take(dataset.splits["train"], np.arange(8))
    state = jax.eval_shape(method.init, jax.random.key(0), batch)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
    still = {}
    for phase, step in method.step.items():
        jaxpr = jax.make_jaxpr(lambda state, batch, step=step: step(state, batch)[0])(state, batch).jaxpr
        kept = [old is new for old, new in zip(jaxpr.invars, jaxpr.outvars)]
        of = {m: [same for path, same in zip(paths, kept) if path.startswith(
            (f".params['{m}']", f".opt_state['{m}']"))] for m in shapes}
        assert all(len(set(parts)) == 1 for parts in of.values())
        still[phase] = "".join(m for m, parts in of.items() if parts[0])
    if options.name == "g2d":
        assert still == {"all": ""} | {f"without_{m}": m for m in shapes}
    else:
        assert still == {"joint": ""} | {f"stage_{m}": "abcde".replace(m, "") for m in shapes}


@pytest.mark.parametrize("name", ["g2d", "relearn"])
def test_more_epochs_need_a_word_where_phases_go_by_their_number(name, make_config, tmp_path):
    shorter, longer = (make_config(name, epochs=epochs) for epochs in (2, 4))
    with pytest.raises(UserError, match=f"train.epochs was 2, is 4, and the course of {name} depends on it"):
        folder.check_extension(tmp_path, shorter, longer, extend=False)
    folder.check_extension(tmp_path, shorter, longer, extend=True)
    folder.check_extension(tmp_path, make_config("pmr", epochs=2), make_config("pmr", epochs=4), extend=False)
