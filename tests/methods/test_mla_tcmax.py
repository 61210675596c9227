"""MLA, then TCMax: each phase is the step of the method that it is named after."""
import chex
import jax
import numpy as np
import pytest

from jaxmm.errors import UserError
from jaxmm.methods.common import Progress
from jaxmm.methods.mla import MLAConfig
from jaxmm.methods.mla_tcmax import MLATCMaxConfig
from jaxmm.train import setup as setup_lib

ONE = jax.devices()[:1]


def build(method, dataset, make_config, **options):
    return setup_lib.build(make_config(method, **options), dataset=dataset, devices=ONE)


def test_a_phase_is_a_step_of_its_method_on_the_same_parameters(make_dataset, make_config):
    dataset = make_dataset(missing=True)
    setup = build("mla_tcmax", dataset, make_config)
    for phase, method in (("mla", MLAConfig(projection="none", dynamic_fusion=False)), ("tcmax", "tcmax")):
        own = build(method, dataset, make_config)
        rows = own.programs.feed(dataset.splits["train"], "device").at(np.arange(8, dtype=np.int32)[None])
        expected, metrics = own.programs.steps(setup_lib.init_state(own), rows)
        state, found = setup.programs.steps(setup_lib.init_state(setup), rows, phase)
        chex.assert_trees_all_equal((state.params, state.opt_state, found), (expected.params, expected.opt_state, metrics))


@pytest.mark.parametrize("joint, epochs, first", [(0.2, 10, 8), (0.2, 5, 4), (0.2, 2, 2), (1.0, 3, 0), (0.0, 3, 3)])
def test_the_last_share_of_the_epochs_is_joint(joint, epochs, first, make_dataset, make_config):
    setup = build(MLATCMaxConfig(joint=joint), make_dataset(), make_config, epochs=epochs)
    phases = [setup.programs.phase(Progress(0, epoch, 4 * epoch)) for epoch in range(epochs)]
    assert phases == first * ["mla"] + (epochs - first) * ["tcmax"]


def test_a_share_is_one(make_dataset, make_config):
    with pytest.raises(UserError, match="method.joint=1.5"):
        build(MLATCMaxConfig(joint=1.5), make_dataset(), make_config)
