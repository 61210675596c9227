"""Options that have an effect only with others, and what is said where they have none."""
import dataclasses
import re
from collections.abc import Mapping

import jax
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import EncoderConfig, OptimizerConfig, TrainConfig
from jaxmm.data.dataset import say
from jaxmm.encoders import make_encoder
from jaxmm.errors import UserError
from jaxmm.methods import METHODS, make_method, say_idle
from jaxmm.methods.continual import ERConfig
from jaxmm.methods.fusion import FusedConfig
from jaxmm.methods.g2d import G2DConfig
from jaxmm.methods.g_blending import GBlendingConfig
from jaxmm.methods.lwf import LwFConfig
from jaxmm.methods.mla_tcmax import MLATCMaxConfig
from jaxmm.methods.opm import OPMConfig
from jaxmm.methods.taught import SelfDistillConfig
from jaxmm.model import Model
from jaxmm.task import classification
from jaxmm.train.optimizers import make_optimizer
from jaxmm.train.plan import make_epoch

OTHER = {"features": "previous", "alpha_schedule": "released", "relation": "angle", "distance": "relative"}
# What is not in the step: `share` is of an epoch's end, and in a step `window` is multiplied by 0.
ELSEWHERE = {("g_blending", "window"), ("pmr", "share")}


def dependent_options():
    """(method, option, what it needs) of all; those of the fused head once."""
    fused = {field.name for field in dataclasses.fields(FusedConfig)}
    return [(name, field.name, needs) for name, entry in METHODS.items()
            for field in dataclasses.fields(entry.options) if (needs := field.metadata.get("needs"))
            if name == "concat" or field.name not in fused]


def several(values):
    return values if isinstance(values, tuple) else (values,)


def changed(options, name):
    """The options with another value of one."""
    value = getattr(options, name)
    other = not value if isinstance(value, bool) else OTHER[name] if isinstance(value, str) else value + 1
    return dataclasses.replace(options, **{name: other})


def make_model():
    """Two small encoders, and a batch."""
    rng = np.random.default_rng(0)
    rows = make_batch({m: rng.normal(size=(4, 3)).astype(np.float32) for m in "ab"}, np.array([0, 1, 2, 0]))
    epoch = make_epoch([np.arange(4)], TrainConfig(batch_size=4))
    encoders = {m: make_encoder(EncoderConfig(name="mlp", depth=1, width=3), 1) for m in "ab"}
    optimizer = make_optimizer(OptimizerConfig(schedule="constant"), 1, epoch)
    return Model(encoders, classification("abc"), lambda key, batch: batch, optimizer, epoch, 4, 4), rows


def program(options):
    """The text of what a method with these options computes in its steps."""
    model, rows = make_model()
    method, key = make_method(options, model), jax.random.key(0)
    steps = method.step if isinstance(method.step, Mapping) else {"": method.step}
    state = jax.eval_shape(method.init, key, rows)
    return re.sub("0x[0-9a-f]+", "", "\n".join(
        f"{phase} {jax.make_jaxpr(step)(state, rows)}" for phase, step in steps.items()))


@pytest.mark.parametrize("name, option, needs", dependent_options(), ids=str)
def test_options_have_an_effect_where_they_are_said_to(name, option, needs, caplog):
    """With what they need another value is another step; without a part of that it is the same one, and said."""
    options = METHODS[name].options
    assert set(needs) <= {field.name for field in dataclasses.fields(options)}
    active = dataclasses.replace(options, **{other: several(values)[0] for other, values in needs.items()})
    say_idle(changed(active, option), 99)
    assert not caplog.text
    if (name, option) not in ELSEWHERE:
        assert program(changed(active, option)) != program(active)
    alternatives = {"fusion": "concat", "projection": "none", "alpha_schedule": "released", "align": "js",
                    "level": "sample", "weighting": "equal", "prototypes": "running", "ogm": False,
                    "agreement": False, "alignment": "none", "name": None}
    for other, values in needs.items():
        if other == "name":     # of a method that shares the options of another one
            idle = dataclasses.replace(next(entry.options for key, entry in METHODS.items() if (
                type(entry.options) is type(options) and key not in several(values))))
        else:
            idle = dataclasses.replace(active, **{other: alternatives[other]})
        assert getattr(idle, other) not in several(values)
        caplog.clear()
        say.cache_clear()       # it says everything once
        say_idle(idle, 99)
        assert f"method.{option}" not in caplog.text
        say_idle(changed(idle, option), 99)
        assert re.search(rf"method\.{option}=\S+ has no effect with method\.{other}=", caplog.text)
        if (name, option) not in ELSEWHERE:
            assert program(changed(idle, option)) == program(idle)


def test_the_warning_in_full(caplog):
    say_idle(FusedConfig("concat", hidden=77), 99)
    assert "method.hidden=77 has no effect with method.fusion=concat; it is for method.fusion=mlp" in caplog.text
    caplog.clear()
    for options in (FusedConfig("mlp_head", fusion="mlp", hidden=78), FusedConfig("concat"),
                    FusedConfig("unknown", hidden=79), OPMConfig(name="concat", alpha=9.0),
                    SelfDistillConfig("self_distill_feature", weight=50.0)):
        say_idle(options, 99)
    assert not caplog.text


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if entry.starts])
def test_a_method_that_begins_after_the_last_epoch_is_said(name, caplog):
    option = METHODS[name].starts
    options = dataclasses.replace(METHODS[name].options, **{option: 3})
    say_idle(options, 4)
    assert not caplog.text
    say_idle(options, 3)
    assert (f"{name} begins after 3 epochs, and this run has 3: it is trained without what sets it apart; set "
            f"method.{option} to less, or train.epochs to more") in caplog.text


@pytest.mark.parametrize("options", [ERConfig(align=True, capacity=8), LwFConfig(align=True)], ids=["er", "lwf"])
def test_weights_of_cosine_heads_are_not_aligned(options):
    model, _ = make_model()
    with pytest.raises(UserError) as error:
        make_method(dataclasses.replace(options, fusion="cosine"), model)
    assert str(error.value) == (
        "method.align=True gives weights of new classes the size of old ones, which counts for nothing with "
        "method.fusion=cosine; set --config.method.align=false or another fusion")
    make_method(dataclasses.replace(options, fusion="shared"), model)
    make_method(dataclasses.replace(options, fusion="cosine", align=False), model)


@pytest.mark.parametrize("options, message", [
    (G2DConfig(tau=1.5), "method.tau=1.5; expected a share in [0, 1]"),
    (MLATCMaxConfig(joint=-0.1), "method.joint=-0.1; expected a share in [0, 1]")], ids=["g2d", "mla_tcmax"])
def test_shares_of_the_epochs(options, message):
    with pytest.raises(UserError) as error:
        make_method(options, make_model()[0])
    assert str(error.value) == message


def test_the_first_run_of_g_blending_has_the_head_of_the_second():
    (teacher,) = make_method(GBlendingConfig(fusion="cosine", scale=3.0), make_model()[0]).teachers.values()
    assert teacher.fusion == "cosine" and teacher.scale == 3.0 and teacher.weighting == "equal"
