import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmm.config import OptimizerConfig, SAMMConfig, StreamConfig
from jaxmm.errors import UserError
from jaxmm.evaluate.fusion import confidence_weighted
from jaxmm.losses.relational import distance_loss
from jaxmm.methods import samm
from jaxmm.state import calibration, replay
from jaxmm.train import loop, setup as setup_lib

ONE = jax.devices()[:1]
HEADS = ("sound", "image", "fused")


def test_consistency_target_is_what_the_most_confident_head_stored():
    """Example 0 has class 1, surest in image; example 1 class 0, surest in fused, then in sound."""
    logits = {"sound": jnp.array([[0.0, 1.0], [2.0, 0.0]]),
              "image": jnp.array([[0.0, 3.0], [0.0, 5.0]]),
              "fused": jnp.array([[4.0, 0.0], [6.0, 0.0]])}
    stored = {h: jnp.array([[i, 10.0 + i], [20.0 + i, 30.0 + i]]) for i, h in enumerate(HEADS)}
    present = {m: jnp.array([True, True]) for m in ("sound", "image")}
    target = samm.consistency_target(logits, stored, jnp.array([1, 0]), present)
    np.testing.assert_array_equal(target, [[1, 11], [22, 32]])
    # Without image, its head and the fused one are out of the choice.
    present["image"] = jnp.array([False, False])
    target = samm.consistency_target(logits, stored, jnp.array([1, 0]), present)
    np.testing.assert_array_equal(target, [[0, 10], [20, 30]])


@pytest.fixture(scope="module")
def two_steps(make_dataset, make_config):
    """A config, and the state and metrics of its first two steps, with what went in."""
    dataset = make_dataset(missing=True)

    def run(config):
        setup = setup_lib.build(make_config(config, optimizer=OptimizerConfig(
            learning_rate=0.05, momentum=0.0, weight_decay=0.0, schedule="constant")),
            dataset=dataset, devices=ONE)
        feed = setup.programs.feed(dataset.splits["train"], "device")
        states, metrics = [setup_lib.init_state(setup)], []
        for i in range(2):
            before = jax.tree.map(jnp.copy, states[-1])
            after, values = setup.programs.steps(states[-1], feed,
                                                 np.arange(8 * i, 8 * i + 8, dtype=np.int32)[None])
            states[-1] = before
            states.append(after)
            metrics.append(values)
        return dataset, states, metrics

    return run


def forward(params, rows, dataset):
    """Features and logits in NumPy: one-layer encoders, FiLM by the first modality, three heads."""
    train, features = dataset.splits["train"], {}
    for m in ("sound", "image"):
        seen = train["inputs"][m][train["present"][m]]
        x = (train["inputs"][m][rows] - seen.mean(0)) / seen.std(0)
        h = np.maximum(x @ params[m]["Dense_0"]["kernel"] + params[m]["Dense_0"]["bias"], 0)
        features[m] = np.where(train["present"][m][rows][:, None], h, 0)
    head = params["head"]
    linear = lambda p, h: h @ p["kernel"] + p["bias"]
    gamma, beta = np.split(linear(head["fused"]["modulation"]["sound"], features["image"]), 2, -1)
    fused = linear(head["fused"]["out"], gamma * features["sound"] + beta)
    logits = {m: linear(head["unimodal"][m], h) for m, h in features.items()} | {"fused": fused}
    return features, logits


def cross_entropy(z, y, rows=slice(None)):
    return float(optax.softmax_cross_entropy_with_integer_labels(z, y)[rows].mean())


def supervised(params, rows, dataset, config):
    """sup(z, y) as the paper writes it, over the rows that have what a term needs."""
    features, z = forward(params, rows, dataset)
    train = dataset.splits["train"]
    y = train["label"][rows]
    sound, image = (train["present"][m][rows] for m in ("sound", "image"))
    both = jnp.asarray((sound & image).astype(np.float32))
    aligned = features if config.alignment == "features" else z
    total = cross_entropy(z["fused"], y)
    for m, k, present in (("sound", "image", sound), ("image", "sound", image)):
        total += config.lambda_ * cross_entropy(z[m], y, present)
        if config.alignment != "none":
            distance = distance_loss(jnp.asarray(aligned[m]), jnp.asarray(aligned[k]), both)
            total += config.lambda_ * config.beta * float(distance)
    return total, z


@pytest.mark.parametrize("config", [
    SAMMConfig(capacity=16, lambda_=0.5, beta=3.0, gamma=0.7),
    SAMMConfig(capacity=16, lambda_=0.5, alignment="none", consistency=False),
    SAMMConfig(capacity=16, lambda_=0.5, alignment="features")],
    ids=["all terms", "supervision", "features"])
def test_losses_are_those_of_the_paper(config, two_steps):
    dataset, states, metrics = two_steps(config)
    first, second = np.arange(8), np.arange(8, 16)
    expected, kept = supervised(states[0].params, first, dataset, config)
    np.testing.assert_allclose(metrics[0]["loss"][0], expected, rtol=1e-4)
    # The second step replays the eight examples of the first, all the memory holds.
    current, _ = supervised(states[1].params, second, dataset, config)
    past, z = supervised(states[1].params, first, dataset, config)
    expected = current + past
    if config.consistency:
        train = dataset.splits["train"]
        y, sound, image = (train["label"][first], *(train["present"][m][first]
                                                    for m in ("sound", "image")))
        usable = {"sound": sound, "image": image, "fused": sound & image}
        confidence = np.stack([np.where(usable[h], np.asarray(jax.nn.softmax(z[h]))[first, y], -1)
                               for h in HEADS])
        target = np.stack([kept[h] for h in HEADS])[confidence.argmax(0), first]
        square = {h: ((z[h] - target) ** 2).mean(-1) for h in HEADS}
        expected += config.gamma * (square["fused"].mean() + config.lambda_ * (
            square["sound"][sound].mean() + square["image"][image].mean()))
    np.testing.assert_allclose(metrics[1]["loss"][0], expected, rtol=1e-4)


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
    state, _ = setup.programs.steps(setup_lib.init_state(setup), feed,
                                    np.arange(24, dtype=np.int32).reshape(3, 8))
    done = setup.programs.end_task(state)
    chex.assert_trees_all_equal(state._replace(extra=()), done._replace(extra=()))
    logits = setup_lib.predict_split(setup, state, dataset.splits["train"])
    for head in HEADS:
        expected = calibration.fit_temperature(logits[head], dataset.splits["train"]["label"])
        np.testing.assert_allclose(done.extra["temperature"][head], expected, rtol=1e-3)
    val = setup_lib.predict_split(setup, done, dataset.splits["val"])
    expected = confidence_weighted({h: val[h] for h in HEADS}, done.extra["temperature"])
    np.testing.assert_allclose(val["dynamic"], expected, rtol=1e-4, atol=1e-5)


def test_without_lambda_the_unimodal_heads_do_not_learn(make_dataset, make_config):
    """With lambda = 0 the unimodal heads do not move at all; the fused one does."""
    dataset = make_dataset()
    config = make_config(SAMMConfig(capacity=16, lambda_=0.0), optimizer=OptimizerConfig(
        weight_decay=0.0, schedule="constant"))
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)
    feed = setup.programs.feed(dataset.splits["train"], "device")
    state = setup_lib.init_state(setup)
    before = jax.tree.map(np.asarray, state.params["head"])
    state, _ = setup.programs.steps(state, feed, np.arange(16, dtype=np.int32).reshape(2, 8))
    chex.assert_trees_all_equal(state.params["head"]["unimodal"], before["unimodal"])
    assert not np.array_equal(state.params["head"]["fused"]["out"]["kernel"],
                              before["fused"]["out"]["kernel"])


@pytest.mark.parametrize("changes, message", [
    (dict(beta=-1.0), "method.beta=-1.0"), (dict(lambda_=float("nan")), "method.lambda_=nan"),
    (dict(gamma=-0.1), "method.gamma"), (dict(alignment="pixels"), "method.alignment='pixels'"),
    (dict(relation="size"), "method.relation='size'; expected one of distance, angle"),
    (dict(fusion="glue"), "method.fusion='glue'.*film"),
    (dict(capacity=7), "method.capacity=7 is smaller than the replay batch of 8"),
    (dict(modalities="sound,smell"), "'smell' is no modality.*image, sound")])
def test_options_that_do_not_exist_are_refused(changes, message, make_dataset, make_config):
    with pytest.raises(UserError, match=message):
        setup_lib.build(make_config(SAMMConfig(**changes)), dataset=make_dataset(), devices=ONE)


def test_three_modalities_other_fusions_and_relations(make_dataset, make_config, tmp_path):
    shapes = {"sound": (3,), "image": (4,), "flow": (5,)}
    dataset = make_dataset(shapes, rows=(90, 30, 30))
    config = make_config(SAMMConfig(capacity=30, fusion="gated", relation="angle", lambda_=0.1),
                         modalities=tuple(shapes), epochs=12, batch_size=10)
    config.stream = StreamConfig(kind="class", num_tasks=3)
    result = loop.train(config, tmp_path / "run", dataset=dataset, devices=ONE, progress=False)
    last = result.history[-1]
    assert set(last["scores"]) == {*shapes, "fused", "dynamic"}
    assert np.mean(last["class_incremental"]["fused"]) > 0.6    # fine-tuning stays below 1/3 + noise
