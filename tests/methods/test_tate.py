import dataclasses

import jax
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.errors import UserError
from jaxmm.methods import tate
from jaxmm.methods.tate import TATEConfig
from jaxmm.train import predictions, schedule, setup as setup_lib

ONE = jax.devices()[:1]
RNG = np.random.default_rng(0)


def masks(rows):
    return dict(zip("abc", np.array(rows, bool).T))


def head_of(names, size=4, rows=5):
    """Parameters and features of a head for three classes."""
    params = tate.init_head(jax.random.key(0), dict.fromkeys(names, size), 3)
    return params, {m: RNG.normal(size=(rows, size)).astype(np.float32) for m in names}


def test_tags_by_hand():
    np.testing.assert_array_equal(tate.tag(masks([[1, 1, 1], [1, 0, 1], [0, 0, 1]])),
                                  [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]])


def test_divergence_by_hand():
    """softmax of (log 3, 0) is (3/4, 1/4) against (1/2, 1/2): log(3) / 4, in one token of two."""
    a, b = np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.float32)
    a[0, 0, 0] = np.log(3)
    np.testing.assert_allclose(tate.divergence(a, b), [np.log(3) / 8], rtol=1e-6)
    np.testing.assert_allclose(tate.divergence(b, a), [np.log(3) / 8], rtol=1e-6)
    np.testing.assert_array_equal(tate.divergence(a, a), [0])
    far = np.float32([[[1000, 0], [0, 0]]])
    assert np.isfinite(jax.grad(lambda x: tate.divergence(x, b).sum())(far)).all()


@pytest.mark.parametrize("names", ["ab", "abc"])
def test_tokens_against_numpy(names):
    """Of what is given, with the matrix that both members of a pair share."""
    params, features = head_of(names)
    given = dict(zip(names, RNG.random((len(names), 5)) < 0.6))
    hidden = {m: np.where(given[m][:, None], h, np.nan) for m, h in features.items()}
    found = tate.run(params, hidden, given)
    for i in range(5):
        h = {m: features[m][i] * given[m][i] for m in names}
        sure = []
        for m in names:
            z = np.exp(h[m] @ params["certainty"][m]["kernel"] + params["certainty"][m]["bias"])
            sure.append(z.max() / z.sum())
        shares = np.exp(sure) / np.exp(sure).sum()
        t = [float(all(given[m][i] for m in names)), *(float(not given[m][i]) for m in names)]
        for k, m in enumerate(names):
            parts = [h[m] @ params["pairs"]["/".join(sorted(m + n))] for n in names if n != m]
            np.testing.assert_allclose(found["tokens"][i, k], [*shares[k] * np.concatenate(parts), *t],
                                       rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["shares"].sum(1), 1, rtol=1e-6)
    plain = tate.run(params, features, given, weigh=False)["tokens"]
    ratio = np.asarray(found["tokens"][..., :4] / plain[..., :4])
    np.testing.assert_allclose(np.nansum(ratio, 1)[np.all(list(given.values()), 0)].sum(), 4 * np.sum(
        np.all(list(given.values()), 0)), rtol=1e-4)


def test_a_layer_against_numpy():
    params, _ = head_of("abc")
    p = params["encoder"]
    x = RNG.normal(size=(2, 3, 8)).astype(np.float32)
    found = tate.transformer_layer(p, x, lambda name, y: y)

    def dense(name, x):
        return x @ np.asarray(p[name]["kernel"]) + np.asarray(p[name]["bias"])

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)

    for i in range(2):
        heads = []
        for k in range(4):      # of one unit each
            q, key, v = (dense(name, x[i])[:, k:k + 1] for name in ("query", "key", "value"))
            scores = np.exp(q @ key.T)
            heads.append(scores / scores.sum(1, keepdims=True) @ v)
        y = norm(x[i] + dense("out", np.concatenate(heads, 1)))
        y = norm(y + dense("narrow", np.maximum(dense("wide", y), 0)))
        np.testing.assert_allclose(found[i], y, rtol=1e-4, atol=1e-5)


def prepared(config, dataset):
    return setup_lib.build(config, dataset=dataset, devices=ONE)


def first_loss(setup, state, batch):
    feed = setup.programs.feed(batch, "device")
    return setup.programs.steps(state, feed.at(np.arange(16, dtype=np.int32)[None]))


def test_nothing_to_imitate_where_teacher_and_student_are_one(make_dataset, make_config):
    """They start alike here; without hiding and dropout the first J is 0, with hiding it is not."""
    dataset = make_dataset(missing=True)
    for hide in (0.0, 0.9):
        setup = prepared(make_config(TATEConfig(hide=hide, dropout=0.0)), dataset)
        before = jax.device_get(setup_lib.init_state(setup))
        state, metrics = first_loss(setup, setup_lib.init_state(setup), dataset.splits["train"])
        assert (abs(metrics["loss/distillation"][0]) < 1e-6) == (hide == 0)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.extra), before.extra)


@pytest.mark.parametrize("targets", ["present", "oracle"])
def test_what_is_missing_is_read_by_the_oracle_alone(targets, make_dataset, make_config):
    dataset, found = make_dataset(missing=True), []
    setup = prepared(make_config(TATEConfig(targets=targets)), dataset)
    fillings = (0.0, 1e30, np.nan) if targets == "present" else (0.0, 1.0)
    for filling in fillings:
        splits = {s: batch | {"inputs": {m: np.where(batch["present"][m][:, None], x, np.float32(filling))
                                         for m, x in batch["inputs"].items()}}
                  for s, batch in dataset.splits.items()}
        state, metrics = first_loss(setup, setup_lib.init_state(setup), splits["train"])
        found.append(jax.device_get((state.params, metrics)) + (
            predictions.predict_split(setup, state, splits["test"]),
            predictions.split_features(setup, state, splits["test"])))
    if targets == "present":
        for other in found[1:]:
            jax.tree.map(np.testing.assert_array_equal, found[0], other)
    else:
        assert found[0][1]["loss/distillation"] != found[1][1]["loss/distillation"]
        assert found[0][1]["loss/fused"] == found[1][1]["loss/fused"]


def test_the_head_of_a_modality_sees_it_alone(make_dataset, make_config):
    """So it is the fused one of a row that has no other."""
    dataset = make_dataset({m: (3,) for m in "abcde"}, rows=(32, 16, 16))
    config = make_config(TATEConfig(), modalities="abcde", encoder=EncoderConfig("mlp", depth=1, width=4))
    setup = prepared(config, dataset)
    state, _ = first_loss(setup, setup_lib.init_state(setup), dataset.splits["train"])
    test = dataset.splits["test"]
    logits = predictions.predict_split(setup, state, test)
    assert set(logits) == {*"abcde", "fused"}
    alone = test | {"present": {m: np.full(16, m == "c") for m in "abcde"}}
    np.testing.assert_allclose(predictions.predict_split(setup, state, alone)["fused"], logits["c"], rtol=1e-5,
                               atol=1e-6)


def test_the_teacher_is_another_run_whose_tokens_are_imitated(make_dataset, make_config, tmp_path):
    dataset = make_dataset(missing=True)
    run = schedule.train(make_config(TATEConfig(weight=0.5), epochs=1), tmp_path / "run", dataset=dataset,
                         devices=ONE, progress=False)
    (folder,) = (tmp_path / "run/teachers").iterdir()
    assert folder.name == "tate+weight=0.5+distill=false"
    teacher = schedule.train(make_config(TATEConfig(weight=0.5, distill=False), epochs=1, seed=1000), folder,
                             dataset=dataset, devices=ONE, progress=False)
    jax.tree.map(np.testing.assert_array_equal, run.state.extra["teacher"],
                 (teacher.state.params, teacher.state.batch_stats))
    assert not teacher.state.extra


def test_what_cannot_be_done_is_refused(make_dataset, make_config):
    three = make_dataset({m: (3,) for m in "abc"})
    for options, dataset, width, message in [
            ({}, three, 5, "tate divides .* among the 2 others, and 5 do not divide.*multiple of 2"),
            ({}, make_dataset({"a": (3,)}), 4, "tate pairs modalities and needs two or more; use unimodal"),
            ({"hide": 1.0}, three, 4, "method.hide=1.0"), ({"dropout": -0.1}, three, 4, "method.dropout=-0.1"),
            ({"weight": -1.0}, three, 4, "method.weight=-1.0"), ({"targets": "all"}, three, 4, "method.targets")]:
        config = make_config(dataclasses.replace(TATEConfig(), **options), modalities=dataset.modalities,
                             encoder=EncoderConfig("mlp", depth=1, width=width))
        with pytest.raises(UserError, match=message) as error:
            prepared(config, dataset)
        assert "\n" not in str(error.value)
    config = make_config(TATEConfig(), modalities="abc")
    config.encoders["a"] = EncoderConfig("mlp", depth=1, width=8)
    with pytest.raises(UserError, match="tate pairs .* features of one size; found a 8, b 6, c 6"):
        prepared(config, three)
