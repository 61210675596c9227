import jax
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.errors import UserError
from jaxmm.methods.mmtm import MMTMConfig
from jaxmm.train import predictions, setup as setup_lib

SHAPES = {"sound": (6, 6), "image": (5, 7)}


def build(make_dataset, make_config, config, shapes, **encoders):
    config = make_config(config, modalities=tuple(shapes))
    config.encoders.update(encoders)
    return setup_lib.build(config, dataset=make_dataset(shapes), devices=jax.devices()[:1])


def test_one_module_behind_each_of_the_last_stages(make_dataset, make_config):
    """Maps of 2, 4 and 8 channels, of other sizes by modality; the first stage has none."""
    cnn = EncoderConfig("cnn", width=2, depth=3, features=5)
    setup = build(make_dataset, make_config, MMTMConfig(stages=2), SHAPES, sound=cnn, image=cnn)
    state = setup_lib.init_state(setup)
    exchange = state.params["exchange"]
    assert {k: p["squeeze"]["kernel"].shape for k, p in exchange.items()} == {
        "stage_1": (8, 4), "stage_2": (16, 8)}
    assert {k: p["gate"]["sound"]["kernel"].shape for k, p in exchange.items()} == {
        "stage_1": (4, 4), "stage_2": (8, 8)}
    assert set(state.batch_stats) == {"sound", "image", "exchange"}


def test_with_closed_gates_the_other_modality_does_not_matter(make_dataset, make_config):
    """What a head reads depends on the other modality through the gates, and through nothing else."""
    setup = build(make_dataset, make_config, MMTMConfig(stages=1), {m: (4,) for m in SHAPES})
    dataset, state = setup.dataset, setup_lib.init_state(setup)
    split = dataset.splits["val"]
    other = split | {"inputs": split["inputs"] | {"image": split["inputs"]["image"] + 1}}

    def change(state):
        before, after = (predictions.predict_split(setup, state, s)["sound"] for s in (split, other))
        return np.abs(before - after).max()

    assert change(state) > 1e-3
    gate = jax.tree.map(np.zeros_like, state.params["exchange"]["stage_0"]["gate"])
    closed = {"stage_0": state.params["exchange"]["stage_0"] | {"gate": gate}}
    assert change(state._replace(params=state.params | {"exchange": closed})) == 0


@pytest.mark.parametrize("stages, depths, message", [
    (-1, (1, 1), "method.stages=-1"), (3, (2, 2), "last 3 stages.*found image 2, sound 2"),
    (1, (1, 2), "found image 1, sound 2"), (0, (3, 1), "found image 3, sound 1")])
def test_encoders_that_cannot_exchange(stages, depths, message, make_dataset, make_config):
    encoders = {m: EncoderConfig("mlp", width=3, depth=d) for m, d in zip(("image", "sound"), depths)}
    with pytest.raises(UserError, match=message):
        build(make_dataset, make_config, MMTMConfig(stages=stages), SHAPES, **encoders)


def test_one_modality_has_nothing_to_exchange(make_dataset, make_config):
    with pytest.raises(UserError, match="needs two or more; use unimodal"):
        build(make_dataset, make_config, MMTMConfig(), {"sound": (3,)})
