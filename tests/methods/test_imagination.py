import dataclasses
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import EncoderConfig, OptimizerConfig, TrainConfig
from jaxmm.data.transform import make_transform
from jaxmm.encoders import make_encoder
from jaxmm.errors import UserError
from jaxmm.keys import named_key
from jaxmm.methods import imagination, make_method, method_config
from jaxmm.methods.common import own_key, step_key
from jaxmm.methods.imagination import IFMMINConfig, cascade, hide, init_cascade
from jaxmm.model import Model
from jaxmm.task import classification
from jaxmm.train.optimizers import make_optimizer
from jaxmm.train.plan import make_epoch

NAMES = ("flow", "image", "sound")
RNG = np.random.default_rng(0)


def build(options, modalities, encoder=EncoderConfig("identity"), num_tokens=0):
    """The method of these options, on inputs that are not normalised."""
    encoders = {m: make_encoder(encoder, 1, num_tokens=num_tokens) for m in modalities}
    epoch = make_epoch([np.arange(12)], TrainConfig(batch_size=12))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.1, schedule="constant"), 1, epoch)
    return make_method(options, Model(encoders, classification("xyz"), make_transform({}), optimizer, epoch,
                                      12, 12))


def given(present, probability=0.5, seed=0, ids=None):
    """[M, B] of what `hide` leaves of the masks [M, B]."""
    ids = np.arange(present.shape[1]) if ids is None else ids
    masks = jax.jit(hide)(jax.random.key(seed), ids, dict(zip(NAMES, present)), probability)
    return np.stack([masks[m] for m in NAMES[:len(present)]])


def test_what_is_hidden_of_what():
    """Each of n is kept with 1 - p, or as the one of n that is left where all were drawn."""
    patterns = np.array(list(itertools.product([False, True], repeat=3))).T
    present = np.repeat(patterns, 4000, axis=1)
    for p in (0.3, 0.8):
        kept = given(present, p)
        assert not (kept & ~present).any()
        np.testing.assert_array_equal(kept.any(0), present.any(0))
        for pattern, rows in list(zip(patterns.T, np.split(kept, 8, axis=1)))[1:]:
            n = pattern.sum()
            np.testing.assert_allclose(rows[pattern].mean(1), 1 - p + p**n / n, atol=0.03)
            assert rows[pattern].all(0).mean() == pytest.approx((1 - p)**n if n > 1 else 1, abs=0.03)
    np.testing.assert_array_equal(given(present, 0.0), present)
    np.testing.assert_array_equal(given(present, 1.0).sum(0), present.any(0))


def test_draws_follow_from_key_name_and_id_alone():
    """Not from the place in the batch, nor from which others there are, unless nothing would be left."""
    present = np.ones((3, 200), bool)
    kept, order = given(present), np.random.default_rng(0).permutation(200)
    np.testing.assert_array_equal(given(present, ids=order), kept[:, order])
    assert 100 < (given(present, seed=1) != kept).sum() < 500
    assert (kept[0] != kept[1]).any() and (kept[1] != kept[2]).any()
    np.testing.assert_array_equal(given(present[:2]).all(0), kept[:2].all(0))


def layers_by_hand(layers, x, slope=0.0):
    for i, layer in enumerate(layers):
        x = np.where(x < 0, slope * x, x) if i else x
        x = x @ np.float64(layer["kernel"]) + np.float64(layer["bias"])
    return x


@pytest.mark.parametrize("skip, transition, shifted", [
    (False, False, False), (True, True, False), (False, True, True)])     # ae, cra and mmin, if_mmin
def test_cascade_against_numpy(skip, transition, shifted):
    params = init_cascade(jax.random.key(0), 6, 3, (5, 4), transition)
    z = RNG.normal(size=(7, 6)).astype(np.float32)
    shift = RNG.normal(size=z.shape) if shifted else np.zeros_like(z)
    u, latents, outs = z.astype(np.float64), [], []
    for encoder, decoder in zip(params["encoders"], params["decoders"], strict=True):
        latents.append(layers_by_hand(encoder, u + shift, 0.01))
        outs.append(layers_by_hand(decoder, latents[-1]))
        u = u + outs[-1] if skip else outs[-1]
    if skip:        # each predicts what those before it have left over
        np.testing.assert_allclose(u - z, sum(outs), rtol=1e-6)
    found, units = cascade(params, z, skip=skip, shift=np.float32(shift))
    np.testing.assert_allclose(found, layers_by_hand(params["transition"], u), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(units, np.concatenate(latents, 1), rtol=1e-4, atol=1e-5)


def test_autoencoders_that_put_out_nothing_leave_their_input():
    params = init_cascade(jax.random.key(0), 6, 2, (5, 4), False)
    for decoder in params["decoders"]:
        put_out(decoder, np.zeros(6))
    z = RNG.normal(size=(7, 6)).astype(np.float32)
    found, units = cascade(params, z, skip=True)
    np.testing.assert_array_equal(found, z)
    for i, encoder in enumerate(params["encoders"]):
        np.testing.assert_allclose(units[:, 4 * i:4 * i + 4], layers_by_hand(encoder, z, 0.01), atol=1e-5)


def put_out(layers, values):
    """Makes the last of the layers put out these values, whatever goes in."""
    layers[-1] = {"kernel": jnp.zeros_like(layers[-1]["kernel"]), "bias": jnp.asarray(values, jnp.float32)}


def rows_of(inputs, *patterns):
    """A batch of rows with the same inputs by modality, [s] each; its masks by row, such as "ab" or "a"."""
    return make_batch({m: np.tile(np.float32(x), (len(patterns), 1)) for m, x in inputs.items()},
                      [0] * len(patterns), present={m: [m in p for p in patterns] for m in inputs})


@pytest.mark.parametrize("targets, expected", [
    ("present", {("ab", "ab"): 9.25, ("a", "a"): 2.5, ("ab", "a"): 7.0}),
    ("oracle", {("ab", "ab"): 0.0, ("a", "a"): 16.0, ("ab", "b"): 2.5})])
def test_reconstruction_by_hand(targets, expected):
    """xhat is (1, 2) and 5, x (0, 0) and 9: errors of 2.5 and 16, in a mean over examples and modalities."""
    method = build(dataclasses.replace(method_config("ae"), targets=targets, weight=3.0), "ab")
    inputs = {"a": [0, 0], "b": [9]}
    state = jax.jit(method.init)(jax.random.key(0), rows_of(inputs, "ab", "ab"))
    for m, xhat in {"a": [1, 2], "b": [5]}.items():
        put_out(state.params["head"]["decoders"][m], xhat)
    step = jax.jit(method.step)
    for patterns, value in expected.items():
        metrics = step(state, rows_of(inputs, *patterns))[1]
        assert metrics["loss/reconstruction"] == pytest.approx(3 * value)
        assert metrics["loss"] == pytest.approx(3 * value + float(metrics["loss/fused"]))


# What is imagined is (1, 2), and the features of the teacher, here of everybody, are 7 and 5.
TERMS = {
    "mmin": {        # the way back leads to (3, 2)
        "present": {"forward": 4 * 5, "backward": 2 * (10 + 16 + 12.5) / 3},
        "alone": {"forward": 0, "backward": 2 * (16 + 16 + 9) / 3},
        "oracle": {"forward": 4 * 5, "backward": 2 * (12.5 + 10 + 12.5) / 3}},
    "if_mmin": {     # V(x) = x + 1: what is not given has 1 in place of 6
        "present": {"forward": 5, "invariance": 100 * 12.5 / 3},
        "alone": {"forward": 0, "invariance": 0},
        "oracle": {"forward": 5, "invariance": 100 * 12.5 / 3}}}


@pytest.mark.parametrize("case", ["present", "alone", "oracle"])
@pytest.mark.parametrize("name", TERMS)
def test_imagined_features_by_hand(name, case, monkeypatch):
    """b is hidden from the first row and missing in the second; the third is given both.

    Slots of what a row lacks do not count, but by "oracle", for which alone b is hidden from the second.
    """
    def hide_b_of_the_first(key, ids, present, probability):
        return present | {"b": present["b"] & (ids > 0)} if case == "present" else present

    monkeypatch.setattr(imagination, "hide", hide_b_of_the_first)
    options = dataclasses.replace(method_config(name), blocks=1,
                                  targets="oracle" if case == "oracle" else "present")
    method = build(options, "ab")
    batch = rows_of({"a": [7], "b": [5]}, *(("a", "a", "b") if case == "alone" else ("ab", "a", "ab")))
    state = jax.jit(method.init)(jax.random.key(0), batch)
    head = state.params["head"]
    put_out(head["forward"]["transition"], [1, 2])
    if name == "mmin":
        put_out(head["backward"]["transition"], [3, 2])
    else:
        plus = [{"kernel": jnp.eye(1), "bias": jnp.float32([bias])} for bias in (0, 1)]
        head["invariant"] = state.extra["teacher"][0]["head"]["invariant"] = plus
    metrics = jax.device_get(jax.jit(method.step)(state, batch)[1])
    terms = {k.removeprefix("loss/"): float(x) for k, x in metrics.items() if k.startswith("loss/")}
    expected = TERMS[name][case] | {"fused": terms["fused"]}
    assert terms == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert metrics["loss"] == pytest.approx(sum(expected.values()), rel=1e-5)


PHASES = {"ae": method_config("ae"), "if_mmin+student=false": IFMMINConfig(student=False)} | {
    name: dataclasses.replace(method_config(name), blocks=2) for name in ("cra", "mmin", "if_mmin")}
FIVE = dict.fromkeys("abcde", 3)


def cross_entropy(z, label):
    z = np.float64(z)
    return (np.log(np.exp(z).sum(-1)) - z[np.arange(len(label)), label]).mean()


@pytest.mark.parametrize("name", PHASES)
def test_what_is_read_and_what_is_not(name):
    """With five modalities: nothing of what is missing, by any value, nor hidden modalities as inputs."""
    present = RNG.random((5, 12)) < 0.6
    present[0] |= ~present.any(0)
    batch = make_batch({m: RNG.normal(size=(12, n)).astype(np.float32) for m, n in FIVE.items()},
                       np.arange(12) % 3, present=dict(zip(FIVE, present)))
    encoder = EncoderConfig("mlp", width=4, depth=1)
    state = jax.jit(build(PHASES[name], FIVE, encoder).init)(jax.random.key(0), batch)

    @jax.jit
    def step(options, batch):
        method = build(dataclasses.replace(PHASES[name], **options), FIVE, encoder)

        def loss(inputs):
            new, metrics = method.step(state, batch | {"inputs": inputs})
            return metrics["loss"], (new.params, new.extra, metrics)

        return jax.grad(loss, has_aux=True)(batch["inputs"])

    predict = jax.jit(lambda batch: build(PHASES[name], FIVE, encoder).predict(state, batch))
    options = {"hide": 0.5, "dropout": 0.5}
    results = []
    for rubbish in (0.0, np.nan, 1e30):
        filled = batch | {"inputs": {m: np.where(batch["present"][m][:, None], x, np.float32(rubbish))
                                     for m, x in batch["inputs"].items()}}
        results.append(jax.device_get((*step(options, filled), predict(filled))))
    grads, (_, _, metrics), logits = results[0]
    for other in results[1:]:
        chex.assert_trees_all_equal(other, results[0])
    for m, grad in grads.items():
        assert not grad[~batch["present"][m]].any() and grad[batch["present"][m]].any()
    # A head's own prediction is that for an example that has this modality alone.
    for m in FIVE:
        alone = {n: p & (n == m) for n, p in batch["present"].items()}
        has = batch["present"][m]
        np.testing.assert_allclose(predict(batch | {"present": alone})["fused"][has], logits[m][has],
                                   rtol=1e-4, atol=1e-6)
    # Without dropout, what is learned from is the prediction for the modalities that are given.
    draws = hide(named_key(own_key(step_key(state)), "hide"), batch["id"], batch["present"], 0.5)
    seen = draws if name != "if_mmin+student=false" else batch["present"]
    whole = step({"hide": 0.5, "dropout": 0.0}, batch)[1][2]["loss/fused"]
    np.testing.assert_allclose(
        whole, cross_entropy(predict(batch | {"present": seen})["fused"], batch["label"]), rtol=1e-4)
    assert abs(whole - metrics["loss/fused"]) > 1e-4


def test_teacher_of_common_features_by_hand():
    """The mean over pairs of the discrepancy of V(h_m), each over the rows that have the modality."""
    present = {"a": [True] * 8, "b": np.arange(8) > 2, "c": np.arange(8) % 2 == 0}
    x = {m: RNG.normal(size=(8, 2)).astype(np.float32) for m in "abc"}
    batch = make_batch(x, [0] * 8, present=present)
    method = build(IFMMINConfig(student=False), "abc")
    state = jax.jit(method.init)(jax.random.key(0), batch)
    layers, moments = state.params["head"]["invariant"], {}
    for m, values in x.items():
        v = layers_by_hand(layers, np.float64(values), 0.01)
        v = np.where(v < 0, 0.01 * v, v)[batch["present"][m]]
        moments[m] = [v.mean(0), *(((v - v.mean(0))**q).mean(0) for q in (2, 3, 4, 5))]
    expected = np.mean([sum(np.linalg.norm(p - q) for p, q in zip(moments[m], moments[n]))
                        for m, n in itertools.combinations("abc", 2)])
    np.testing.assert_allclose(jax.jit(method.step)(state, batch)[1]["loss/discrepancy"], expected, rtol=1e-4)


@pytest.mark.parametrize("name, changes, message", [
    ("ae", {"hide": 1.0}, r"method.hide=1.0; expected a probability in \[0, 1\)"),
    ("mmin", {"dropout": -0.1}, "method.dropout=-0.1; expected a probability"),
    ("cra", {"targets": "oracles"}, "method.targets='oracles'; did you mean oracle"),
    ("cra", {"blocks": 0}, "method.blocks=0; expected a number of at least 1"),
    ("ae", {"weight": -1.0}, "method.weight=-1.0"), ("mmin", {"forward": -1.0}, "method.forward=-1.0"),
    ("mmin", {"backward": -1.0}, "method.backward=-1.0"),
    ("if_mmin", {"invariance": np.inf}, "method.invariance=inf")])
def test_options_out_of_range(name, changes, message):
    with pytest.raises(UserError, match=message):
        build(dataclasses.replace(method_config(name), **changes), "ab")


@pytest.mark.parametrize("name", PHASES)
def test_one_modality_is_refused(name):
    with pytest.raises(UserError, match="imagines modalities from others and needs two or more; use"):
        build(PHASES[name], "a")


@pytest.mark.parametrize("name", ["if_mmin", "if_mmin+student=false"])
def test_features_of_several_sizes_have_no_common_network(name):
    batch = rows_of({"a": [0, 0], "b": [0]}, "ab")
    with pytest.raises(UserError, match="features of one size; found a 2, b 1; set --config.encoders"):
        build(PHASES[name], "ab").init(jax.random.key(0), batch)


def test_token_ids_are_no_values_to_reconstruct():
    batch = make_batch({m: np.zeros((2, 4), np.int32) for m in "ab"}, [0, 1])
    method = build(method_config("cra"), "ab", EncoderConfig("bag", width=2), num_tokens=5)
    with pytest.raises(UserError, match="^cra reconstructs the values of its inputs, and those of a are"):
        method.init(jax.random.key(0), batch)
