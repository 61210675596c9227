import jax
import numpy as np
import optax
import pytest

from jaxmm.errors import UserError
from jaxmm.methods.rubi import RUBiConfig, mask_of
from jaxmm.train import predictions, setup as setup_lib


@pytest.mark.parametrize("bias", ["", "image"])
def test_loss_by_hand_and_which_parts_learn(bias, make_dataset, make_config):
    """sum_b CE(z_f sigmoid(n(h_b))) + CE(c(n(h_b))); nothing of n reaches the encoder of b."""
    dataset = make_dataset()
    setup = setup_lib.build(make_config(RUBiConfig(bias=bias, hidden=7)), dataset=dataset,
                            devices=jax.devices()[:1])
    state = setup_lib.init_state(setup)
    head = jax.device_get(state.params["head"])
    rows = np.arange(8)
    part = {k: jax.tree.map(lambda x: x[rows], dataset.splits["train"][k])
            for k in dataset.splits["train"]}
    # Encoders without batch norm: evaluation is training, but for the running means, still 0.
    logits = predictions.predict_split(setup, state, part)
    features = predictions.split_features(setup, state, part)
    np.testing.assert_allclose(logits["fused"], (logits["sound"] + logits["image"]) / 2, rtol=1e-5)
    expected = 0.0
    for b in [bias] if bias else ["sound", "image"]:
        hidden = np.maximum(features[b] @ head["mask"][b]["hidden"]["kernel"], 0)
        n = hidden @ head["mask"][b]["out"]["kernel"]
        guess = n @ head["mask"][b]["classifier"]["kernel"]
        np.testing.assert_allclose(mask_of(head["mask"][b], features[b])[1], guess, rtol=1e-4, atol=1e-5)
        for z in (logits["fused"] / (1 + np.exp(-n)), guess):
            expected += float(np.mean(optax.softmax_cross_entropy_with_integer_labels(z, part["label"])))
    assert set(head["mask"]) == ({bias} if bias else {"sound", "image"})
    feed = setup.programs.feed(dataset.splits["train"], "device")
    before = jax.device_get(state.params)
    state, metrics = setup.programs.steps(state, feed.at(rows[None].astype(np.int32)))
    assert float(metrics["loss"][0]) == pytest.approx(expected, rel=1e-4)
    for group in ("sound", "image", "exchange", "head"):
        assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(before[group]),
                                                  jax.tree.leaves(jax.device_get(state.params[group]))))


@pytest.mark.parametrize("config, message", [
    (RUBiConfig(bias="smell"), "method.bias='smell'"), (RUBiConfig(hidden=0), "method.hidden=0")])
def test_options_that_cannot_be(config, message, make_dataset, make_config):
    with pytest.raises(UserError, match=message):
        setup_lib.build(make_config(config), dataset=make_dataset(), devices=jax.devices()[:1])
