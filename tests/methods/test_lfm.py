"""LFM: the weight of the labels by epoch, and both terms of the loss."""
import itertools

import jax
import numpy as np
import pytest

from jaxmm.config import replace
from jaxmm.errors import UserError
from jaxmm.losses.alignment import contrastive_loss
from jaxmm.methods.lfm import LFMConfig, label_weight
from jaxmm.train import schedule, setup as setup_lib
from jaxmm.train.plan import Epoch

ONE = jax.devices()[:1]


@pytest.mark.parametrize("done, epochs, expected", [
    (0, 200, .205), (10, 200, .253), (50, 200, .437), (199, 200, .916), (25, 100, .437), (0, 1, .205),
    (1, 2, .539)])
def test_weight_of_the_labels(done, epochs, expected):
    """As released over 200 epochs, and stretched to others; the same in all steps of an epoch."""
    epoch = Epoch(np.int32(done), np.int32(3), 4, epochs)
    np.testing.assert_allclose(label_weight(epoch), expected, rtol=1e-6)


@pytest.mark.parametrize("align, count", [("js", 2), ("contrastive", 3)])
def test_loss_in_numpy(align, count, make_dataset, make_config):
    """CE of the mean of the logits, and what the rows with several modalities have to align."""
    dataset = make_dataset(dict(list({"sound": (3,), "image": (5,), "flow": (4,)}.items())[:count]),
                           rows=(8, 8, 8), missing=True)
    batch = dataset.splits["train"]
    config = make_config(LFMConfig(align=align), modalities=dataset.modalities)
    method = setup_lib.build(config, dataset=dataset, devices=ONE).make_method(None, {})

    @jax.jit
    def run(key):
        state = method.init(key, batch)
        return method.predict(state, batch), method.features(state, batch), method.step(state, batch)[1]

    z, h, metrics = jax.device_get(run(jax.random.key(0)))
    mask = np.stack([batch["present"][m] for m in dataset.modalities])
    stacked = np.stack([z[m] for m in dataset.modalities]).astype(np.float64)
    fused = (mask[..., None] * stacked).sum(0) / mask.sum(0)[:, None]
    labels = (np.log(np.exp(fused).sum(1)) - fused[np.arange(8), batch["label"]]).mean()
    if align == "js":
        values = []
        p = np.exp(stacked) / np.exp(stacked).sum(-1, keepdims=True)
        for i in np.flatnonzero(mask.sum(0) > 1):
            own = p[mask[:, i], i]
            values.append((own.mean(0) * np.log(own.mean(0) / own)).sum(1).mean())
    else:
        pairs = [(m, n, batch["present"][m] & batch["present"][n])
                 for m, n in itertools.combinations(dataset.modalities, 2)]
        values = [contrastive_loss(h[m], h[n], both, 0.4) for m, n, both in pairs if both.any()]
    found = {name: float(metrics[f"loss/{name}"]) for name in ("fused", "alignment")}
    assert found == pytest.approx({"fused": .205 * labels, "alignment": .795 * np.mean(values)}, rel=1e-4)
    np.testing.assert_allclose(metrics["loss"], sum(found.values()), rtol=1e-5)
    assert metrics["label_weight"] == np.float32(.205)


def test_what_cannot_be_aligned_is_said(make_dataset, make_config):
    one = make_dataset({"sound": (3,)})
    with pytest.raises(UserError, match="lfm aligns modalities.*needs two or more; use unimodal"):
        setup_lib.build(make_config("lfm", modalities=("sound",)), dataset=one)
    for options, said in (({"method.align": "cosine"}, "method.align='cosine'.*js, contrastive"),
                          ({"method.temperature": 0.0}, "method.temperature=0.0")):
        with pytest.raises(UserError, match=said):
            setup_lib.build(replace(make_config("lfm"), options), dataset=make_dataset())
    config = replace(make_config("lfm"), {"method.align": "contrastive"})
    config.encoders["sound"].features = 5
    config.encoders["image"].features = 7
    with pytest.raises(UserError, match="a contrastive loss needs features of one size; found image 7, so"):
        setup_lib.build(config, dataset=make_dataset())


def test_a_loss_that_depends_on_the_length_needs_a_word(make_dataset, make_config, tmp_path):
    dataset, config = make_dataset(rows=(8, 8, 8)), make_config("lfm", epochs=1)
    longer, options = replace(config, {"train.epochs": 2}), {"devices": ONE, "progress": False}
    schedule.train(config, tmp_path, dataset=dataset, **options)
    with pytest.raises(UserError, match="the course of lfm depends on it.*give --extend"):
        schedule.train(longer, tmp_path, dataset=dataset, **options)
