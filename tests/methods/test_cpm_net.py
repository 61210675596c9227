import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import OptimizerConfig, TextConfig, replace
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError
from jaxmm.methods import cpm_net
from jaxmm.methods.cpm_net import CPMNetConfig, NOBODY
from jaxmm.state.codes import UNSEEN
from jaxmm.train import predictions, schedule, setup as setup_lib

ONE = jax.devices()[:1]
SHAPES = {"a": (2, 3), "b": (5,), "c": (4,), "d": (1,), "e": (3,)}
PAIRS = np.array([[0.5, 0], [0.5, 0], [0, 0.5], [0, 0.5]]), np.array([[1.0, 0], [2, 0], [0, 1], [0, 3]])


def scores_of(codes, labels, classes):
    """Of codes that are all there are."""
    sums = np.stack([codes[labels == y].sum(0) for y in range(classes)])
    return cpm_net.similarities(jnp.asarray(codes), labels, sums, np.bincount(labels, minlength=classes))


@pytest.mark.parametrize("codes, margin, expected", [
    (PAIRS[0], "paper", 0.75), (PAIRS[0], "released", 0), (PAIRS[1], "paper", 0), (PAIRS[1], "released", 0),
    (PAIRS[1][[0, 2, 3, 1]], "paper", [2, 2.5, 2.5, 2]), (PAIRS[1][[0, 2, 3, 1]], "released", [2, 2.5, 2.5, 2])])
def test_classification_of_codes_by_hand(codes, margin, expected):
    """In the last two cases the pairs of a class are orthogonal, and those of two classes are not."""
    labels = np.array([0, 0, 1, 1])
    loss = cpm_net.classification_loss(scores_of(codes, labels, 2), labels, margin)
    np.testing.assert_allclose(loss, np.broadcast_to(expected, 4), rtol=1e-6)


def test_classes_of_one_example_or_none():
    """Alone in its class an example has no other to be alike; a class without any is never the best."""
    codes, labels = np.array([[-1.0, 0], [2, 0], [3, 0]]), np.array([2, 0, 0])
    scores = scores_of(codes, labels, 3)
    np.testing.assert_allclose(scores, [[-2.5, NOBODY, 0], [6, NOBODY, -2], [6, NOBODY, -3]])
    np.testing.assert_allclose(cpm_net.classification_loss(scores, labels), [0, 0, 0])


def test_means_of_classes_are_constants():
    codes, labels = jnp.asarray([[1.0, 0], [0, 1], [2, 1]]), np.array([0, 0, 1])
    sums = jnp.asarray([[1.0, 1], [2, 1]])

    def loss(codes):
        scores = cpm_net.similarities(codes, labels, sums, np.array([2, 1]))
        return cpm_net.classification_loss(scores, labels).sum()

    # Rows 0 and 1: mean of class 1 less the other one's code; row 2: mean of class 0 less nothing.
    np.testing.assert_allclose(jax.grad(loss)(codes), [[2, 0], [1, 1], [0.5, 0.5]])


def linear_problem(rng, rows, size, shapes, noise=0.0):
    decoders = {m: [{"kernel": rng.normal(size=(size, d)).astype(np.float32),
                     "bias": rng.normal(size=d).astype(np.float32)}] for m, d in shapes.items()}
    codes = rng.normal(size=(rows, size)).astype(np.float32)
    inputs = {m: codes @ layers[0]["kernel"] + layers[0]["bias"] + noise * rng.normal(size=(rows, shapes[m]))
              for m, layers in decoders.items()}
    return decoders, codes, {m: x.astype(np.float32) for m, x in inputs.items()}


def solve(decoders, inputs, present, eps):
    return cpm_net.solve_linear(decoders, cpm_net.factor(decoders, eps), inputs, present)


def test_codes_of_exact_data_are_recovered():
    decoders, codes, inputs = linear_problem(np.random.default_rng(0), 6, 4, {"a": 3, "b": 2, "c": 2})
    everywhere = dict.fromkeys(inputs, np.ones(6, bool))
    np.testing.assert_allclose(solve(decoders, inputs, everywhere, 1e-7), codes, atol=1e-3)


def test_codes_are_solved_from_what_is_there():
    """Each pattern of three modalities, against least squares of each row; NaN under the mask is not read."""
    rng = np.random.default_rng(1)
    decoders, _, inputs = linear_problem(rng, 8, 4, {"a": 3, "b": 2, "c": 2}, noise=1.0)
    masks = np.array([[i >> k & 1 for k in range(3)] for i in range(8)], bool)
    present = dict(zip(inputs, masks.T))
    hidden = {m: np.where(present[m][:, None], x, np.nan) for m, x in inputs.items()}
    found = solve(decoders, hidden, present, 0.5)
    steps = cpm_net.solve_by_steps(decoders, hidden, present, 0.5, jnp.ones(4), 8000)
    for i, row in enumerate(masks):
        names = [m for m, there in zip(inputs, row) if there]
        kernel = np.concatenate([decoders[m][0]["kernel"] for m in names], 1) if names else np.zeros((4, 0))
        target = np.concatenate([inputs[m][i] - decoders[m][0]["bias"] for m in names]) if names else np.zeros(0)
        stacked = np.concatenate([kernel.T, np.sqrt(0.5) * np.eye(4)])
        expected = np.linalg.lstsq(stacked, np.concatenate([target, np.zeros(4)]))[0]
        np.testing.assert_allclose(found[i], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(steps[i], expected, rtol=1e-3, atol=1e-3)


def test_one_modality_has_the_code_of_least_norm_and_rounding_makes_no_nan():
    rng = np.random.default_rng(2)
    decoders, _, inputs = linear_problem(rng, 5, 6, {"a": 3})
    there = {"a": np.ones(5, bool)}
    target = inputs["a"] - decoders["a"][0]["bias"]
    pseudo = target @ np.linalg.pinv(decoders["a"][0]["kernel"].astype(np.float64))
    np.testing.assert_allclose(solve(decoders, inputs, there, 1e-5), pseudo, atol=1e-3)
    large = {"a": [{"kernel": 1e3 * decoders["a"][0]["kernel"], "bias": decoders["a"][0]["bias"]}]}
    assert np.isfinite(solve(large, inputs, there, 1e-9)).all()


def prepared(config, dataset):
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)
    return setup, setup_lib.init_state(setup), setup.programs.feed(dataset.splits["train"], "device")


def normalised(setup, batch):
    """The flattened inputs [B, d] by modality, in float64, 0 where they are missing."""
    return {m: np.where(batch["present"][m].reshape(-1, *[1] * (x.ndim - 1)), (x - mean) / std, 0).reshape(
        len(x), -1) for m, x in batch["inputs"].items() for mean, std in [setup.spec.norms[m]]}


@pytest.mark.parametrize("names, hidden", [("ab", 0), ("abcde", 0), ("abc", 4)])
def test_two_steps_against_numpy(names, hidden, make_dataset, make_config):
    """Decoders, then the codes with the new decoders; the batches share some rows, and no other moves."""
    dataset = make_dataset({m: SHAPES[m] for m in names}, missing=True)
    config = make_config(CPMNetConfig(size=3, hidden=hidden, weight=0.7, retune=False), modalities=names,
                         optimizer=OptimizerConfig(learning_rate=0.05, momentum=0, weight_decay=0,
                                                   schedule="constant"))
    setup, state, feed = prepared(config, dataset)
    inputs, train = normalised(setup, dataset.splits["train"]), dataset.splits["train"]
    moments, counts, seen = np.zeros((2, 32, 3)), np.zeros(32, int), np.zeros(32, bool)
    for index in (np.arange(8), np.arange(4, 12)):
        before = jax.device_get(state)
        state, metrics = setup.programs.steps(state, feed.at(index[None].astype(np.int32)))
        codes, label = before.extra["codes"].codes.astype(np.float64), train["label"]
        seen[index] = True
        means = np.stack([codes[seen & (label == y)].sum(0) for y in range(3)])
        number = np.array([(seen & (label == y)).sum() for y in range(3)])

        def errors(decoders, rows):
            def decode(layers, c):
                for i, layer in enumerate(layers):
                    c = (np.maximum(c, 0) if i else c) @ layer["kernel"] + layer["bias"]
                return c
            return sum(np.where(train["present"][m][index], np.square(
                decode(decoders[m], rows) - inputs[m][index]).sum(1), 0) for m in names)

        def classification(rows):
            loss = []
            for c, i in zip(rows, index):
                own = (means[label[i]] - codes[i]) / max(number[label[i]] - 1, 1)
                score = [c @ (own if y == label[i] else means[y] / number[y]) for y in range(3)]
                loss.append(max(0, max((y != label[i]) + s - score[label[i]] for y, s in enumerate(score))))
            return np.array(loss)

        decoders = jax.tree.map(lambda x: x.astype(np.float64), before.params["head"])
        terms = errors(decoders, codes[index]).mean(), 0.7 * classification(codes[index]).mean()
        assert metrics["loss/reconstruction"][0] == pytest.approx(terms[0], rel=1e-5)
        assert metrics["loss/classification"][0] == pytest.approx(terms[1], rel=1e-5)
        new = jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(state.params["head"]))
        for (path, old), x in zip(jax.tree.leaves_with_path(decoders), jax.tree.leaves(new)):
            slope = np.zeros_like(old)
            for place in np.ndindex(old.shape):
                ends = []
                for h in (1e-5, -1e-5):
                    old[place] += h
                    ends.append(errors(decoders, codes[index]).mean())
                    old[place] -= h
                slope[place] = (ends[0] - ends[1]) / 2e-5
            np.testing.assert_allclose(x, old - 0.05 * slope, atol=2e-5, err_msg=str(path))
        grads = np.zeros((8, 3))
        for k in range(3):
            ends = [errors(new, codes[index] + h * np.eye(3)[k])
                    + 0.7 * classification(codes[index] + h * np.eye(3)[k]) for h in (1e-5, -1e-5)]
            grads[:, k] = (ends[0] - ends[1]) / 2e-5
        counts[index] += 1
        moments[:, index] *= np.array([0.9, 0.999])[:, None, None]
        moments[:, index] += np.stack([0.1 * grads, 0.001 * grads**2])
        m, v = [x[index] / (1 - b ** counts[index])[:, None] for x, b in zip(moments, (0.9, 0.999))]
        codes[index] -= 0.01 * m / (np.sqrt(v) + 1e-8)
        table = jax.device_get(state.extra["codes"])
        np.testing.assert_allclose(table.codes, codes, atol=2e-5)
        np.testing.assert_array_equal(table.labels, np.where(seen, label, UNSEEN))
        rest = np.setdiff1d(np.arange(32), index)
        for old, x in zip(jax.tree.leaves(before.extra), jax.tree.leaves(jax.device_get(state.extra))):
            np.testing.assert_array_equal(x[rest], old[rest])


def test_what_is_missing_is_not_read(make_dataset, make_config):
    dataset, found = make_dataset(missing=True), []
    setup, _, _ = prepared(make_config(CPMNetConfig(size=3, retune=False)), dataset)
    for filling in (0.0, np.nan, 1e30):
        splits = {s: batch | {"inputs": {m: np.where(batch["present"][m][:, None], x, np.float32(filling))
                                         for m, x in batch["inputs"].items()}}
                  for s, batch in dataset.splits.items()}
        feed = setup.programs.feed(splits["train"], "device")
        state, metrics = setup.programs.steps(setup_lib.init_state(setup), feed.at(np.arange(16, dtype=np.int32)[None]))
        found.append(jax.device_get((state.params, state.extra, metrics)) + (
            predictions.predict_split(setup, state, splits["test"]),
            predictions.split_features(setup, state, splits["test"])))
    jax.tree.map(np.testing.assert_array_equal, *found[:2])
    jax.tree.map(np.testing.assert_array_equal, *found[::2])
    missing = ~dataset.splits["test"]["present"]["sound"]
    assert missing.any() and not found[0][-1]["sound"][missing].any()


def test_the_second_run_moves_the_decoders_alone_on_the_codes_of_the_first(make_dataset, make_config, tmp_path):
    dataset = make_dataset(missing=True)
    config = make_config(CPMNetConfig(size=3))
    both = schedule.train(config, tmp_path / "both", dataset=dataset, devices=ONE, progress=False)
    first = schedule.train(replace(config, {"method.retune": False}), tmp_path / "first", dataset=dataset,
                           devices=ONE, progress=False)
    assert [p.name for p in (tmp_path / "both/teachers").iterdir()] == ["cpm_net+size=3+retune=false"]
    jax.tree.map(np.testing.assert_array_equal, both.state.extra, first.state.extra)
    assert all((x != y).all() for x, y in zip(jax.tree.leaves(both.state.params["head"]),
                                              jax.tree.leaves(first.state.params["head"])))
    table = first.state.extra["codes"]
    np.testing.assert_array_equal(table.labels, dataset.splits["train"]["label"])
    np.testing.assert_array_equal(table.opt_state.count, 2)
    # Predictions are inner products with the means of the classes.
    codes = predictions.split_features(both.setup, both.state, dataset.splits["test"])
    logits = predictions.predict_split(both.setup, both.state, dataset.splits["test"])
    means = np.stack([table.codes[table.labels == y].mean(0) for y in range(3)])
    rows = dataset.splits["test"]["present"]["sound"]
    alone = rows & ~dataset.splits["test"]["present"]["image"]
    np.testing.assert_allclose(logits["sound"][rows], (codes["sound"] @ means.T)[rows], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logits["fused"][alone], logits["sound"][alone], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden", [0, 4])
def test_what_all_batches_need_is_computed_once(hidden, make_dataset, make_config):
    """Predictions and features are the same without; with it there is nothing left to decompose."""
    dataset = make_dataset(missing=True)
    config = CPMNetConfig(size=3, hidden=hidden, test_steps=3, retune=False)
    setup, state, feed = prepared(make_config(config), dataset)
    state, _ = setup.programs.steps(state, feed.at(np.arange(16, dtype=np.int32)[None]))
    method, batch = setup.make_method(None, {}), dataset.splits["test"]
    ready = method.ready(state)
    for name, read in (("predict", predictions.predict_split), ("features", predictions.split_features)):
        function, found = getattr(method, name), read(setup, state, batch)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), found,
                     jax.device_get(jax.jit(function)(state, batch)))
        assert "eigh" in str(jax.make_jaxpr(function)(state, batch)) or hidden
        assert not any(op in str(jax.make_jaxpr(function)(ready, batch)) for op in ("eigh", "scatter"))


def test_before_the_first_step_no_class_has_an_example(make_dataset, make_config):
    dataset = make_dataset()
    setup, state, _ = prepared(make_config(CPMNetConfig(hidden=2, test_steps=3)), dataset)
    logits = predictions.predict_split(setup, state, dataset.splits["test"])
    assert all((z == NOBODY).all() for z in logits.values())


def test_without_labels_the_reconstruction_approaches_that_of_pca(make_dataset, make_config):
    dataset = make_dataset(rows=(24, 8, 8))
    config = make_config(CPMNetConfig(size=2, weight=0.0, retune=False), batch_size=24,
                         optimizer=OptimizerConfig("adam", learning_rate=0.01, weight_decay=0, schedule="constant"))
    setup, state, feed = prepared(config, dataset)
    x = np.concatenate(list(normalised(setup, dataset.splits["train"]).values()), 1)
    least = (np.linalg.svd(x - x.mean(0), compute_uv=False)[2:] ** 2).sum() / 24
    for _ in range(3):
        state, metrics = setup.programs.steps(state, feed.at(np.tile(np.arange(24, dtype=np.int32), (500, 1))))
    assert least * (1 - 1e-5) < metrics["loss"][-1] < least * 1.001


def test_what_cannot_be_done_is_refused(make_dataset, make_config):
    texts = make_batch({"text": np.array([[1, 2], [3, 1]] * 8), "sound": np.ones((16, 2)) * np.arange(16)[:, None]},
                       np.arange(16) % 2)
    words = Dataset("words", dict.fromkeys(("train", "val", "test"), texts), ("x", "y"), {"text": 4})
    for config, data, message in [
            (CPMNetConfig(), words, "cpm_net works on the inputs themselves, and those of text are token ids"),
            (CPMNetConfig(), make_dataset({"sound": (3,)}), "cpm_net has .* needs two or more; use unimodal"),
            (CPMNetConfig(eps=0.0), make_dataset(), "method.eps=0.0"),
            (CPMNetConfig(code_rate=0.0), make_dataset(), "method.code_rate=0.0"),
            (CPMNetConfig(size=0), make_dataset(), "method.size=0"),
            (CPMNetConfig(weight=-1.0), make_dataset(), "method.weight=-1.0"),
            (CPMNetConfig(margin="none"), make_dataset(), "method.margin='none'")]:
        config = make_config(config, modalities=())
        if "text" in data.modalities:
            config.data.preprocess["text"] = TextConfig(length=2)
        with pytest.raises(UserError, match=message) as error:
            setup_lib.build(config, dataset=data, devices=ONE)
        assert "\n" not in str(error.value)
