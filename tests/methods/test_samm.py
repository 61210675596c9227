import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmm.config import OptimizerConfig
from jaxmm.errors import UserError
from jaxmm.heads.fusion import confidence_weighted
from jaxmm.losses.relational import angle_loss, distance_loss
from jaxmm.methods import samm
from jaxmm.methods.samm import SAMMConfig
from jaxmm.state import calibration, replay
from jaxmm.task import classification
from jaxmm.train import predictions, setup as setup_lib

ONE = jax.devices()[:1]
HEADS = ("sound", "image", "fused")
SHAPES = {"sound": (3,), "image": (5,), "flow": (4,)}


def test_consistency_target_is_what_the_most_confident_head_stored():
    """Example 0 has class 1, surest in image; example 1 class 0, surest in fused, then in sound."""
    logits = {"sound": jnp.array([[0.0, 1.0], [2.0, 0.0]]),
              "image": jnp.array([[0.0, 3.0], [0.0, 5.0]]),
              "fused": jnp.array([[4.0, 0.0], [6.0, 0.0]])}
    stored = {h: jnp.array([[i, 10.0 + i], [20.0 + i, 30.0 + i]]) for i, h in enumerate(HEADS)}
    present = {m: jnp.array([True, True]) for m in ("sound", "image")}
    target = samm.consistency_target(classification("ab"), logits, stored, jnp.array([1, 0]), present)
    np.testing.assert_array_equal(target, [[1, 11], [22, 32]])
    # Without image, its head and the fused one are out of the choice.
    present["image"] = jnp.array([False, False])
    target = samm.consistency_target(classification("ab"), logits, stored, jnp.array([1, 0]), present)
    np.testing.assert_array_equal(target, [[0, 10], [20, 30]])


@pytest.fixture(scope="module")
def two_steps(make_dataset, make_config):
    """run(config, modalities): the states and metrics of the first two steps, with what went in."""

    def run(config, modalities=("sound", "image"), apart=""):
        dataset = make_dataset({m: SHAPES[m] for m in modalities}, missing=True)
        present = dataset.splits["train"]["present"]
        if apart:       # a modality that rows have where they have no other one
            present[apart] = ~np.any([present[m] for m in modalities if m != apart], axis=0)
        setup = setup_lib.build(make_config(config, modalities=modalities, optimizer=OptimizerConfig(
            learning_rate=0.05, momentum=0.0, weight_decay=0.0, schedule="constant")),
            dataset=dataset, devices=ONE)
        feed = setup.programs.feed(dataset.splits["train"], "device")
        states, metrics = [setup_lib.init_state(setup)], []
        for i in range(2):
            before = jax.tree.map(jnp.copy, states[-1])
            after, values = setup.programs.steps(states[-1], feed.at(
                                                 np.arange(8 * i, 8 * i + 8, dtype=np.int32)[None]))
            states[-1] = before
            states.append(after)
            metrics.append(values)
        return dataset, states, metrics

    return run


def linear(params, h):
    return h @ params["kernel"] + params["bias"]


def fuse(fusion, params, features):
    """Logits of the fused head; the first modality modulates or gates the others."""
    first, *others = sorted(features)
    parts = []
    for m in others:
        if fusion == "film":
            gamma, beta = jnp.split(linear(params["modulation"][m], features[first]), 2, -1)
            parts.append(gamma * features[m] + beta)
        else:
            gate = 1 / (1 + jnp.exp(-linear(params["gate"], features[first])))
            parts.append(gate * linear(params["value"][m], features[m]))
    return linear(params["out"], jnp.concatenate(parts, -1))


def forward(params, rows, dataset, fusion="film"):
    """Features and logits, written anew: one-layer encoders, and a head for each and for all of them."""
    train, features = dataset.splits["train"], {}
    for m in dataset.modalities:
        seen = train["inputs"][m][train["present"][m]]
        x = (train["inputs"][m][rows] - seen.mean(0)) / seen.std(0)
        h = jnp.maximum(linear(params[m]["Dense_0"], x), 0)
        features[m] = jnp.where(train["present"][m][rows][:, None], h, 0)
    head = params["head"]
    logits = {m: linear(head["unimodal"][m], h) for m, h in features.items()}
    return features, logits | {"fused": fuse(fusion, head["fused"], features)}


def cross_entropy(z, y, rows=slice(None)):
    return optax.softmax_cross_entropy_with_integer_labels(z, y)[rows].mean()


def supervised(params, rows, dataset, config):
    """sup(z, y) as the paper writes it, over the rows that have what a term needs, and the logits."""
    classified, aligned, z = terms(params, rows, dataset, config)
    return float(classified + aligned), z


def terms(params, rows, dataset, config):
    """The cross-entropies and the alignments of sup(z, y), with their weights, and the logits."""
    features, z = forward(params, rows, dataset, config.fusion)
    train = dataset.splits["train"]
    y, present = train["label"][rows], {m: train["present"][m][rows] for m in features}
    aligned = features if config.alignment == "features" else z
    relation = {"distance": distance_loss, "angle": angle_loss}[config.relation]
    total, alignment = cross_entropy(z["fused"], y), 0.0
    for m in features:
        total += config.lambda_ * cross_entropy(z[m], y, present[m])
        if config.alignment != "none":
            distances = [
                relation(aligned[m], aligned[k], jnp.asarray(present[m] & present[k], jnp.float32))
                for k in features if k != m and (present[m] & present[k]).any()]
            alignment += config.lambda_ * config.beta * (sum(distances) / len(distances) if distances else 0)
    return total, alignment, z


@pytest.mark.parametrize("config, modalities, apart", [
    (SAMMConfig(capacity=16, lambda_=0.5, beta=3.0, gamma=0.7), ("sound", "image"), ""),
    (SAMMConfig(capacity=16, lambda_=0.5, alignment="none", consistency=False), ("sound", "image"), ""),
    (SAMMConfig(capacity=16, lambda_=0.5, alignment="features"), ("sound", "image"), ""),
    (SAMMConfig(capacity=16, lambda_=0.5, beta=3.0, consistency=False), tuple(SHAPES), "flow"),
    (SAMMConfig(capacity=16, lambda_=0.5, beta=3.0, gamma=0.7, fusion="gated", relation="angle"),
     ("sound", "image", "flow"), "")],
    ids=["all terms", "supervision", "features", "never together", "three modalities, gated, angles"])
def test_losses_are_those_of_the_paper(config, modalities, apart, two_steps):
    dataset, states, metrics = two_steps(config, modalities, apart)
    first, second = np.arange(8), np.arange(8, 16)
    expected, kept = supervised(states[0].params, first, dataset, config)
    np.testing.assert_allclose(metrics[0]["loss"][0], expected, rtol=1e-4)
    # The second step replays the eight examples of the first, all the memory holds.
    current, _ = supervised(states[1].params, second, dataset, config)
    past, z = supervised(states[1].params, first, dataset, config)
    expected = current + past
    assert set(z) == {*modalities, "fused"}
    if config.consistency:
        train = dataset.splits["train"]
        y, usable = train["label"][first], {m: train["present"][m][first] for m in modalities}
        usable["fused"] = np.all(list(usable.values()), axis=0)
        confidence = np.stack([np.where(usable[h], np.asarray(jax.nn.softmax(z[h]))[first, y], -1)
                               for h in usable])
        target = np.stack([kept[h] for h in usable])[confidence.argmax(0), first]
        square = {h: ((z[h] - target) ** 2).mean(-1) for h in usable}
        expected += config.gamma * (square["fused"].mean() + config.lambda_ * sum(
            square[m][usable[m]].mean() for m in modalities))
    np.testing.assert_allclose(metrics[1]["loss"][0], expected, rtol=1e-4)


def test_gradient_ratios_are_those_of_the_two_parts_at_each_encoder(two_steps):
    config = SAMMConfig(capacity=16, lambda_=0.5, beta=3.0, gradient_ratios=True)
    dataset, states, metrics = two_steps(config)
    _, plain, without = two_steps(SAMMConfig(capacity=16, lambda_=0.5, beta=3.0))
    chex.assert_trees_all_close(states[-1].params, plain[-1].params, rtol=1e-6)       # it only looks
    assert not any("gradient_ratio" in name for name in without[0])

    def norms(params, part, batches):
        grads = jax.grad(lambda params: sum(terms(params, rows, dataset, config)[part] for rows in batches))(params)
        return {m: float(jnp.sqrt(sum(jnp.sum(x ** 2) for x in jax.tree.leaves(grads[m])))) for m in dataset.modalities}

    # The second step replays the examples of the first; its consistency is in neither part.
    for state, found, batches in ((states[0], metrics[0], [np.arange(8)]),
                                  (states[1], metrics[1], [np.arange(8, 16), np.arange(8)])):
        classified, aligned = (norms(state.params, part, batches) for part in (0, 1))
        for m in dataset.modalities:
            np.testing.assert_allclose(found[f"gradient_ratio/{m}"][0], aligned[m] / classified[m], rtol=1e-3)


def test_memory_keeps_raw_inputs_and_the_logits_of_insertion(two_steps):
    dataset, states, _ = two_steps(SAMMConfig(capacity=16))
    memory = states[1].extra["memory"]
    train = dataset.splits["train"]
    assert int(replay.size(memory)) == 8
    for m in ("sound", "image"):
        np.testing.assert_array_equal(memory.storage["inputs"][m][:8], train["inputs"][m][:8])
    np.testing.assert_array_equal(memory.storage["id"][:8], np.arange(8))
    _, logits = forward(states[0].params, np.arange(8), dataset)
    chex.assert_trees_all_close(jax.tree.map(lambda x: x[:8], memory.storage["logits"]), logits,
                                atol=1e-4)


def test_end_of_a_task_calibrates_on_the_filled_memory_alone(make_dataset, make_config):
    """Temperatures of the dynamic head, by hand from the memory; nothing else changes."""
    dataset = make_dataset(rows=(24, 9, 9))
    config = make_config(SAMMConfig(capacity=40), epochs=1, batch_size=8)
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)
    feed = setup.programs.feed(dataset.splits["train"], "device")
    state, _ = setup.programs.steps(setup_lib.init_state(setup), feed.at(
                                    np.arange(24, dtype=np.int32).reshape(3, 8)))
    done = setup.programs.end_task(state)
    chex.assert_trees_all_equal(state._replace(extra=()), done._replace(extra=()))
    logits = predictions.predict_split(setup, state, dataset.splits["train"])
    for head in HEADS:
        expected = calibration.fit_temperature(logits[head], dataset.splits["train"]["label"])
        np.testing.assert_allclose(done.extra["temperature"][head], expected, rtol=1e-3)
    val = predictions.predict_split(setup, done, dataset.splits["val"])
    expected = confidence_weighted({h: val[h] for h in HEADS}, done.extra["temperature"])
    np.testing.assert_allclose(val["dynamic"], expected, rtol=1e-4, atol=1e-5)
    weights = predictions.make_weights(setup, done)(val, dataset.splits["val"]["present"])
    fused = sum(weights[h][:, None] * val[h] / done.extra["temperature"][h] for h in HEADS)
    np.testing.assert_allclose(val["dynamic"], fused, rtol=1e-4, atol=1e-5)


def test_without_lambda_the_unimodal_heads_do_not_learn(make_dataset, make_config):
    """With lambda = 0 the unimodal heads do not move at all; the fused one does."""
    dataset = make_dataset()
    config = make_config(SAMMConfig(capacity=16, lambda_=0.0), optimizer=OptimizerConfig(
        weight_decay=0.0, schedule="constant"))
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)
    feed = setup.programs.feed(dataset.splits["train"], "device")
    state = setup_lib.init_state(setup)
    before = jax.tree.map(np.asarray, state.params["head"])
    state, _ = setup.programs.steps(state, feed.at(np.arange(16, dtype=np.int32).reshape(2, 8)))
    chex.assert_trees_all_equal(state.params["head"]["unimodal"], before["unimodal"])
    assert not np.array_equal(state.params["head"]["fused"]["out"]["kernel"],
                              before["fused"]["out"]["kernel"])


@pytest.mark.parametrize("changes, message", [
    (dict(beta=-1.0), "method.beta=-1.0"), (dict(lambda_=float("nan")), "method.lambda_=nan"),
    (dict(gamma=-0.1), "method.gamma"), (dict(alignment="pixels"), "method.alignment='pixels'"),
    (dict(relation="size"), "method.relation='size'; expected one of distance, angle"),
    (dict(fusion="glue"), "method.fusion='glue'.*film"),
    (dict(capacity=7), "method.capacity=7 is smaller than the replay batch of 8"),
    (dict(modalities="sound,smell"), "'smell' is not a modality.*image, sound")])
def test_options_that_do_not_exist_are_refused(changes, message, make_dataset, make_config):
    with pytest.raises(UserError, match=message):
        setup_lib.build(make_config(SAMMConfig(**changes)), dataset=make_dataset(), devices=ONE)
