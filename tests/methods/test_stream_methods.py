"""Steps of continual methods, on features that are the inputs themselves, against NumPy."""
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm import heads
from jaxmm.config import EncoderConfig, OptimizerConfig, TrainConfig
from jaxmm.encoders import make_encoder
from jaxmm.errors import UserError
from jaxmm.methods import agem, cls_er, continual, ewc, make_method
from jaxmm.methods.agem import AGEMConfig
from jaxmm.methods.analytic import AnalyticConfig
from jaxmm.methods.av_cil import AVCILConfig, group_divergence
from jaxmm.methods.cls_er import CLSERConfig
from jaxmm.methods.common import Progress
from jaxmm.methods.continual import ERConfig, SGDConfig
from jaxmm.methods.er_ace import ERACEConfig
from jaxmm.methods.er_aml import ERAMLConfig
from jaxmm.methods.ewc import EWCConfig
from jaxmm.methods.lwf import LwFConfig
from jaxmm.model import Model
from jaxmm.state import seen
from jaxmm.task import classification
from jaxmm.train.optimizers import make_optimizer
from jaxmm.train.plan import make_epoch

ROWS = 4
SHAPES = {"sound": 3, "image": 3}
FIRST, SECOND = [1, 0, 1, 0], [2, 1, 3, 2]      # labels of two batches, and of two tasks
LAMBDA = 0.5


def make_batch(label, first=0, seed=0):
    rng = np.random.default_rng([seed, first])
    present = rng.random((2, ROWS)) < 0.7
    present[0] |= ~present[1]
    present[:, 0] = True        # of two classes at least one row has both
    present[:, 1] = True
    return {"inputs": {m: rng.normal(size=(ROWS, n)).astype(np.float32) for m, n in SHAPES.items()},
            "label": np.array(label, np.int32), "id": np.arange(first, first + ROWS, dtype=np.int32),
            "present": dict(zip(SHAPES, present))}


def build(config, rate=0.1):
    """(method, its first state, its compiled step) with `fusion`, whose heads are linear, and plain SGD."""
    config.fusion = "concat"
    encoders = {m: make_encoder(EncoderConfig(name="identity"), 1) for m in SHAPES}
    epoch = make_epoch([np.arange(4 * ROWS)], TrainConfig(batch_size=ROWS))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=rate, momentum=0.0, weight_decay=0.0,
                                               schedule="constant"), 1, epoch)
    method = make_method(config, Model(encoders, classification("abcd"), lambda key, batch: batch, optimizer,
                                       epoch, ROWS, 4 * ROWS))
    step = method.step if callable(method.step) else next(iter(method.step.values()))
    return method, method.init(jax.random.key(3), make_batch(FIRST)), jax.jit(step)


def log_softmax(z, allowed=None):
    z = np.where(True if allowed is None else allowed, np.asarray(z, np.float64), -np.inf)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def cross_entropy(z, label, allowed=None):
    return -log_softmax(z, allowed)[np.arange(len(label)), label]


def over_heads(batch, loss, lambda_=LAMBDA):
    """Mean over the rows for the fused head, and lambda times that over those of each modality for its own."""
    return loss("fused").mean() + lambda_ * sum(loss(m)[p].mean() for m, p in batch["present"].items())


@pytest.mark.parametrize("unseen", [False, True])
def test_er_ace_new_examples_compete_with_the_classes_of_their_batch(unseen):
    method, state, step = build(ERACEConfig(capacity=8, lambda_=LAMBDA, unseen=unseen))
    first, second = make_batch(FIRST), make_batch([1, 2, 2, 1], ROWS)
    here = np.isin(np.arange(4), [0, 1] + [2, 3] * unseen)
    z = method.predict(state, first)
    state, metrics = step(state, first)
    expected = over_heads(first, lambda h: cross_entropy(z[h], first["label"], here))
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    now, then = method.predict(state, second), method.predict(state, first)
    _, metrics = step(state, second)
    here, ever = (np.isin(np.arange(4), classes + [3] * unseen) for classes in ([1, 2], [0, 1, 2]))
    expected = (over_heads(second, lambda h: cross_entropy(now[h], second["label"], here))
                + over_heads(first, lambda h: cross_entropy(then[h], first["label"], ever)))
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_cls_er_imitates_the_average_that_knows_the_label_better():
    config = CLSERConfig(capacity=8, lambda_=LAMBDA, weight=2.0, r_plastic=1.0, r_stable=0.0)
    method, start, step = build(config)
    first, second = make_batch(FIRST), make_batch(SECOND, ROWS)
    state, metrics = step(start, first)
    moved = {name: state.extra[name][0]["head"]["unimodal"]["sound"]["kernel"] for name in cls_er.AVERAGES}
    kernel = start.params["head"]["unimodal"]["sound"]["kernel"]
    np.testing.assert_array_equal(moved["stable"], kernel)
    np.testing.assert_allclose(moved["plastic"], (kernel + state.params["head"]["unimodal"]["sound"]["kernel"]) / 2,
                               rtol=1e-6)

    def outputs(params):
        extra = state.extra | {"stable": (params, state.batch_stats)}
        return [method.predict(state._replace(extra=extra), batch) for batch in (first, second)]

    (then, now), (slow, _), (fast, _) = map(outputs, (state.params, *(
        state.extra[name][0] for name in ("stable", "plastic"))))
    chex.assert_trees_all_equal(method.predict(state, first), slow)
    _, metrics = step(state, second)
    label = first["label"]

    def drift(head):
        better = cross_entropy(slow[head], label) < cross_entropy(fast[head], label)
        return ((then[head] - np.where(better[:, None], slow[head], fast[head])) ** 2).mean(-1)

    both = jax.tree.map(lambda x, y: np.concatenate([x, y]), second, first)
    expected = over_heads(both, lambda h: cross_entropy(np.concatenate([now[h], then[h]]), both["label"]))
    np.testing.assert_allclose(metrics["loss"], expected + 2.0 * over_heads(first, drift), rtol=1e-5)


def test_an_average_is_the_running_mean_at_first():
    """0, then 1 and 1 with alpha 0.99: 0.5 and 2/3."""
    average = {"w": jnp.zeros(1)}
    for step, expected in ((1, 0.5), (2, 2 / 3)):
        a = min(1 - 1 / (step + 1), 0.99)
        average = cls_er.move(average, {"w": jnp.ones(1)}, a, True)
        np.testing.assert_allclose(average["w"], expected, rtol=1e-6)
    assert cls_er.move(average, {"w": jnp.ones(1)}, 0.5, False)["w"] == average["w"]


def test_er_aml_compares_with_one_example_of_its_class_and_one_of_another():
    """Second step: what may be drawn is known, and the loss is that of one of the possible draws."""
    method, state, step = build(ERAMLConfig(capacity=8, tau=0.5))
    first, second = make_batch([0, 1, 1, 2]), make_batch([1, 1, 3, 0], ROWS)
    for batch in (first, second):
        batch["present"] = {m: np.ones(ROWS, bool) for m in SHAPES}
    z = method.predict(state, first)
    state, metrics = step(state, first)
    np.testing.assert_allclose(metrics["loss"], cross_entropy(z["fused"], first["label"]).mean(), rtol=1e-5)
    then = cross_entropy(method.predict(state, first)["fused"], first["label"]).mean()
    head = state.params["head"]
    state, metrics = step(state, second)
    pool = jax.tree.map(lambda x, y: np.concatenate([x, y]), first, second)
    f = np.concatenate([pool["inputs"]["image"], pool["inputs"]["sound"]], axis=1).astype(np.float64)
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    here = np.isin(pool["label"], second["label"])
    assert not here[3]      # class 2 is not in the batch
    possible = []
    rows = [4, 5, 7]        # the only example of class 3 has no positive, and does not count
    draws = [np.flatnonzero((pool["label"] == pool["label"][i]) & (np.arange(8) != i)) for i in rows]
    draws += [np.flatnonzero(here & (pool["label"] != pool["label"][i])) for i in rows]
    for drawn in itertools.product(*draws):
        log_p = log_softmax(f[rows] @ f[list(drawn)].T / 0.5)
        positive = pool["label"][rows][:, None] == pool["label"][list(drawn)]
        possible.append(np.mean(-(log_p * positive).sum(1) / positive.sum(1)))
    assert np.isclose(metrics["loss"] - then, possible, atol=1e-5).any()
    # Of the head only the replayed examples have a gradient.
    gradient = jax.grad(lambda head: jnp.mean(-jax.nn.log_softmax(heads.concat(4).apply(head, first["inputs"])[
        "fused"])[jnp.arange(ROWS), first["label"]]))(head)
    chex.assert_trees_all_close(state.params["head"], jax.tree.map(lambda x, g: x - 0.1 * g, head, gradient), atol=1e-6)


def contrast_by_hand(batch, tau, divide=None):
    """(I, K) of the rows that have both modalities; the anchors are of the first."""
    both = np.all(list(batch["present"].values()), axis=0)
    g = [x[both].astype(np.float64) / np.linalg.norm(x[both].astype(np.float64), axis=1, keepdims=True)
         for x in (batch["inputs"][m] for m in SHAPES)]
    log_p = log_softmax(g[0] @ g[1].T / tau)
    alike = batch["label"][both][:, None] == batch["label"][both]
    return -np.diag(log_p).mean(), np.mean(-(log_p * alike).sum(1) / (divide or alike.sum(1)))


@pytest.mark.parametrize("positives", [True, False])
def test_av_cil_keeps_old_and_new_classes_apart(positives):
    method, state, step = build(AVCILConfig(capacity=8, lambda_=LAMBDA, tau=0.7, lam_i=0.3, positives=positives))
    first, second = make_batch(FIRST), make_batch(SECOND, ROWS)
    z = method.predict(state, first)
    state, metrics = step(state, first)
    expected = over_heads(first, lambda h: cross_entropy(z[h], first["label"], [1, 1, 0, 0]))
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    before = method.end_task(state)
    state = before._replace(params=jax.tree.map(lambda x: 1.5 * x, before.params))      # forgets
    _, metrics = step(state, second)
    both = jax.tree.map(lambda x, y: np.concatenate([x, y]), second, first)
    z, stored = (method.predict(s, both) for s in (state, before))
    old = np.array([True, True, False, False])
    side = np.where(old[both["label"]][:, None], old, ~old)
    expected = over_heads(both, lambda h: cross_entropy(z[h], both["label"], side))

    def drift(head):
        log_new, log_old = (log_softmax(x[head][:, :2] / 2.0) for x in (z, stored))
        return 4.0 * (np.exp(log_old) * (log_old - log_new)).sum(1)

    present = np.all(list(both["present"].values()), axis=0)
    examples, classes = contrast_by_hand(both, 0.7, None if positives else present.sum())
    assert over_heads(both, drift) > 1e-5
    expected += over_heads(both, drift) + 0.3 * examples + classes
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


def test_groups_of_old_classes_are_distilled_by_themselves():
    """Classes 0 and 1, then 2 and 3, then 4: the KL of each earlier pair, h* = 0 and z = (1, 0): 0.1237 at T 2."""
    known = seen.init(5)
    for task in ([0, 1], [3, 2]):
        known = seen.next_task(seen.update(known, jnp.array(task)))
    known = seen.update(known, jnp.array([4]))
    z, old = jnp.array([[1.0, 0, 7, 6, 9]]), jnp.zeros((1, 5))
    drift = 4 * (np.log(0.5) + np.log1p(np.exp(0.5)) - 0.25)      # (7, 6) differ by 1, too
    np.testing.assert_allclose(drift, 0.1237, atol=1e-4)
    np.testing.assert_allclose(group_divergence(z, old, known, 2.0), 0.1237 + drift, atol=1e-4)
    gradient = jax.grad(lambda z: group_divergence(z, old, known, 2.0).sum())(z)
    np.testing.assert_allclose(gradient[0, :2], -gradient[0, 1::-1], rtol=1e-5)
    assert gradient[0, 4] == 0 and np.isfinite(gradient).all()


def test_ewc_holds_what_the_last_tasks_need():
    """The Fisher information of two visits against that of single rows, and the loss after it."""
    config = EWCConfig(lam=7.0, gamma=0.5, lam_of="head=2,image=0")
    method, state, step = build(config)
    batch, other = make_batch(FIRST), make_batch(SECOND, ROWS)
    padded = batch | {"present": {m: p & (np.arange(ROWS) < 3) for m, p in batch["present"].items()}}
    anchor, rows = state.params["head"], []
    for b, count in ((padded, 3), (other, 4)):
        x = {m: np.where(b["present"][m][:, None], v, 0).astype(np.float64) for m, v in b["inputs"].items()}
        error = np.exp(log_softmax(method.predict(state, b)["fused"])) - np.eye(4)[b["label"]]
        rows += [{m: np.outer(v[i], error[i]) ** 2 for m, v in x.items()} | {"bias": error[i] ** 2}
                 for i in range(count)]
    visit = jax.jit(method.visit)
    state = method.end_task(visit(visit(state, padded), other))
    fisher = {k: np.mean([row[k] for row in rows], axis=0) for k in rows[0]}
    found = state.extra["fisher"]["head"]
    for m in SHAPES:
        np.testing.assert_allclose(found["kernel"][m], fisher[m], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found["bias"], fisher["bias"], rtol=1e-4)
    state, metrics = step(state, batch)
    assert metrics["loss/penalty"] == 0
    z, head = method.predict(state, other)["fused"], state.params["head"]
    _, metrics = step(state, other)
    moved = [(head["kernel"][m] - anchor["kernel"][m], fisher[m]) for m in SHAPES]
    held = sum(np.sum(f * d.astype(float) ** 2) for d, f in (*moved, (head["bias"] - anchor["bias"], fisher["bias"])))
    np.testing.assert_allclose(metrics["loss"], cross_entropy(z, other["label"]).mean() + 2.0 * held, rtol=1e-4)
    again = method.end_task(state)      # without a visit: what is left of it
    chex.assert_trees_all_close(again.extra["fisher"], jax.tree.map(lambda f: 0.5 * f, state.extra["fisher"]))
    chex.assert_trees_all_equal(again.extra["anchor"], state.params)


@pytest.mark.parametrize("fisher, expected", [("label", 0.25), ("weighted", 0.125)])
def test_fisher_information_of_even_odds(fisher, expected):
    """Logits (0, 0) and x = 1."""
    model = Model({"x": make_encoder(EncoderConfig(name="identity"), 1)}, classification("ab"),
                  lambda key, batch: batch, make_optimizer(OptimizerConfig(), 1, None), None, 1, 1)
    method = make_method(EWCConfig(fisher=fisher), model)
    batch = {"inputs": {"x": np.ones((1, 1), np.float32)}, "label": np.zeros(1, np.int32),
             "id": np.zeros(1, np.int32), "present": {"x": np.ones(1, bool)}}
    state = method.init(jax.random.key(0), batch)
    state = method.visit(state._replace(params=jax.tree.map(jnp.zeros_like, state.params)), batch)
    chex.assert_trees_all_close(method.end_task(state).extra["fisher"]["head"], {
        "kernel": {"x": np.full((1, 2), expected)}, "bias": np.full(2, expected)})


def test_the_penalty_of_ewc():
    """F = (1, 4), differences (1, 0.5), weight 0.1."""
    def penalty(x):
        return ewc.penalty({"a": x}, {"a": jnp.zeros(2)}, {"a": jnp.array([1.0, 4.0])}, {"a": 0.1})

    x = jnp.array([1.0, 0.5])
    np.testing.assert_allclose(penalty(x), 0.2, rtol=1e-6)
    np.testing.assert_allclose(jax.grad(penalty)(x), [0.2, 0.4], rtol=1e-6)


@pytest.mark.parametrize("balanced", [False, True])
def test_analytic_is_ridge_regression_on_all_tasks_together(balanced):
    """Whatever the order and batches of the visits; encoders and head rest after the first task."""
    method, state, step = build(AnalyticConfig(expansion=5, gamma=0.3, balanced=balanced))
    batches = [make_batch(FIRST), make_batch(SECOND, ROWS)]
    z = method.predict(state, batches[0])
    state, metrics = step(state, batches[0])
    np.testing.assert_allclose(metrics["loss"], cross_entropy(z["fused"], FIRST).mean(), rtol=1e-5)
    visit = jax.jit(method.visit)
    state = method.end_task(visit(state, batches[0]))
    assert [method.phase(Progress(task, 0, 0)) for task in (0, 1)] == ["learn", "rest"]
    again, metrics = method.step["rest"](state, batches[1])
    chex.assert_trees_all_equal(again.params, state.params)
    state = method.end_task(visit(again, batches[1]))
    longer, _ = step(state, batches[0])     # encoders that learn again have other features
    only = method.end_task(visit(longer, batches[1])).extra["sums"]["fused"]
    assert only.counts.sum() == ROWS and state.extra["sums"]["fused"].counts.sum() == 2 * ROWS
    x = {m: np.concatenate([np.where(b["present"][m][:, None], b["inputs"][m], 0) for b in batches]).astype(float)
         for m in SHAPES}
    present = {m: np.concatenate([b["present"][m] for b in batches]) for m in SHAPES}
    random, label = jax.tree.map(np.float64, state.extra["random"]), np.array(FIRST + SECOND)
    phi = {m: np.maximum(x[m] @ random[m], 0) for m in SHAPES}
    phi["fused"] = np.maximum(sum(x[m] @ random[m] for m in SHAPES), 0)
    for head, p in phi.items():
        counts = present.get(head, np.ones(8, bool))
        n = np.bincount(label[counts], minlength=4)
        inverse = np.where(n > 0, 1 / np.maximum(n, 1), 0)
        w = (counts * ((n > 0).sum() * inverse / inverse.sum())[label] if balanced else counts)[:, None]
        expected = np.linalg.solve(p.T @ (w * p) + 0.3 * np.eye(5), p.T @ (w * np.eye(4)[label]))
        np.testing.assert_allclose(state.extra["weights"][head], expected, rtol=1e-3, atol=1e-4)
        found = method.predict(state, batches[1])[head]
        np.testing.assert_allclose(found, p[ROWS:] @ expected, rtol=1e-3, atol=1e-4)


def test_agem_takes_away_what_opposes_the_memory():
    r = {"w": jnp.array([1.0, 1.0])}
    for g, expected in (([1.0, -2.0], [1.5, -1.5]), ([2.0, -1.0], [2.0, -1.0])):
        np.testing.assert_allclose(agem.project({"w": jnp.array(g)}, r)["w"], expected)
    np.testing.assert_array_equal(agem.project({"w": jnp.array([1.0])}, {"w": jnp.zeros(1)})["w"], [1])
    method, state, step = build(AGEMConfig(capacity=8))
    first, second = make_batch(FIRST), make_batch(SECOND, ROWS)
    state, _ = step(state, first)
    after, metrics = step(state, second)

    def gradient(batch):
        x = {m: jnp.where(batch["present"][m][:, None], v, 0) for m, v in batch["inputs"].items()}
        return jax.grad(lambda head: jnp.mean(-jax.nn.log_softmax(heads.concat(4).apply(head, x)["fused"])[
            jnp.arange(ROWS), batch["label"]]))(state.params["head"])

    g, r = (np.concatenate([x.ravel() for x in jax.tree.leaves(gradient(b))]) for b in (second, first))
    assert g @ r < 0
    moved = [x - y for x, y in zip(*map(jax.tree.leaves, (state.params["head"], after.params["head"])))]
    np.testing.assert_allclose(np.concatenate([x.ravel() for x in moved]), 0.1 * (g - g @ r / (r @ r) * r), atol=1e-6)


def test_weights_of_new_classes_are_aligned():
    """Norms 1 and 1 of the old, 2 and 4 of the new classes: columns times 1/3, in every head."""
    norms = np.array([1.0, 1, 2, 4], np.float32)
    kernel = {"a": np.array([[0.6], [0.0]], np.float32) * norms, "b": np.array([[0.8]], np.float32) * norms}
    known = seen.update(seen.next_task(seen.update(seen.init(4), jnp.array([0, 1]))), jnp.array([2, 3]))
    aligned = continual.align_columns(seen.old(known), known.first == known.task, kernel)
    chex.assert_trees_all_close(aligned, jax.tree.map(lambda x: x * np.array([1, 1, 1 / 3, 1 / 3]), kernel), rtol=1e-6)
    first = seen.update(seen.init(4), jnp.array([2, 3]))
    chex.assert_trees_all_equal(continual.align_columns(seen.old(first), first.first == 0, kernel), kernel)


@pytest.mark.parametrize("config", [ERConfig(capacity=8, align=True, lambda_=LAMBDA), LwFConfig(align=True)], ids=["er", "lwf"])
def test_the_end_of_a_task_aligns_every_head(config):
    method, state, step = build(config)
    state = method.end_task(step(state, make_batch(FIRST))[0])
    before, _ = step(state, make_batch(SECOND, ROWS))
    state = method.end_task(before)
    np.testing.assert_array_equal(state.extra["seen"].first, [0, 0, 1, 1])

    def kernels(head):
        """[s, C] of each head, with its bias."""
        parts = [head["fused"], *head["unimodal"].values()] if "fused" in head else [head]
        return [(np.concatenate(jax.tree.leaves(p["kernel"])), p["bias"]) for p in parts]

    pairs = list(zip(kernels(before.params["head"]), kernels(state.params["head"])))
    assert len(pairs) == (3 if config.lambda_ else 1)
    for (old, bias), (new, same) in pairs:
        norms, aligned = (np.linalg.norm(x, axis=0) for x in (old, new))
        np.testing.assert_array_equal(new[:, :2], old[:, :2])
        np.testing.assert_allclose(aligned[2:], norms[2:] * norms[:2].mean() / norms[2:].mean(), rtol=1e-5)
        np.testing.assert_array_equal(bias, same)
    if "old" in state.extra:        # what is distilled from then on
        chex.assert_trees_all_equal(state.extra["old"][0], state.params)


@pytest.mark.parametrize("fusion", sorted(set(heads.FUSIONS) - {"cosine"}))     # the size of whose weights is nothing
def test_heads_say_where_their_last_layers_are(fusion):
    """A column of their kernels, and its bias, is all that an output depends on there."""
    assert heads.cosine(4).last({}) == []
    head = heads.with_unimodal_heads(heads.FUSIONS[fusion](4), 4)
    params = head.init(jax.random.key(0), SHAPES)
    features = {m: jnp.ones((2, n)) for m, n in SHAPES.items()}
    for path in head.last(params):
        params = continual.changed(params, path, lambda layer: jax.tree.map(lambda x: x.at[..., 2].set(0.0), layer))
    outputs = head.apply(params, features)
    assert all((z[:, 2] == 0).all() and (z[:, [0, 1, 3]] != 0).all() for z in outputs.values())


def test_the_head_nme_is_the_nearest_mean_of_the_memory():
    method, state, step = build(ERConfig(capacity=8, nme=True))
    batch = make_batch(FIRST)
    np.testing.assert_array_equal(method.predict(state, batch)["nme"], -4.0)
    state = method.end_task(step(state, batch)[0])
    x = np.concatenate([np.where(batch["present"][m][:, None], batch["inputs"][m], 0) for m in sorted(SHAPES)], 1)
    f = x / np.linalg.norm(x, axis=1, keepdims=True)
    means = np.stack([f[batch["label"] == c].mean(0) for c in (0, 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    expected = -((f[:, None] - means) ** 2).sum(-1)
    found = method.predict(state, batch)["nme"]
    np.testing.assert_allclose(found, np.concatenate([expected, np.full((ROWS, 2), -4.0)], 1), atol=1e-5)


@pytest.mark.parametrize("config", [SGDConfig(lambda_=LAMBDA), ERConfig(capacity=8, lambda_=LAMBDA)], ids=["sgd", "er"])
def test_heads_of_modalities_have_the_same_loss_times_lambda(config):
    method, state, step = build(config)
    batch = make_batch(FIRST)
    z = method.predict(state, batch)
    _, metrics = step(state, batch)
    expected = over_heads(batch, lambda h: cross_entropy(z[h], batch["label"]))
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("config, message", [
    (CLSERConfig(r_stable=1.5), r"method.r_stable=1.5; expected a share in \[0, 1\]"),
    (CLSERConfig(alpha=1.0), "method.alpha=1.0"), (ERAMLConfig(tau=0.0), "method.tau=0.0"),
    (EWCConfig(lam=-1.0), "method.lam=-1.0"), (EWCConfig(gamma=2.0), "method.gamma=2.0"),
    (EWCConfig(fisher="all"), "method.fisher='all'"), (EWCConfig(lam_of="image=x"), "'x' of image is not a number"),
    (EWCConfig(lam_of="imag=1"), "there is no parameter group 'imag'; did you mean image"),
    (AnalyticConfig(gamma=0.0), "method.gamma=0.0"), (AnalyticConfig(expansion=0), "method.expansion=0"),
    (AVCILConfig(lam_c=-1.0), "method.lam_c=-1.0"), (AVCILConfig(temperature=0.0), "method.temperature=0.0")])
def test_options_out_of_range(config, message):
    with pytest.raises(UserError, match=message):
        build(config)
