"""CCA, DCCA and DCCAE: projections, losses and what stays frozen, in NumPy; what is missing; slips of users."""
import dataclasses
import itertools

import chex
import jax
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import EncoderConfig, OptimizerConfig, TextConfig
from jaxmm.data.dataset import Dataset
from jaxmm.errors import UserError
from jaxmm.methods.correlation import CCAConfig, DCCAConfig, DCCAEConfig
from jaxmm.train import predictions, schedule, setup as setup_lib, teaching

ONE = jax.devices()[:1]
SHAPES = {"sound": (3,), "image": (2, 2), "flow": (4,), "depth": (5,), "touch": (3,)}
OPTIMIZER = OptimizerConfig(learning_rate=0.05, schedule="constant")


def dataset_of(make_dataset, count, **options):
    return make_dataset(dict(list(SHAPES.items())[:count]), missing=True, **options)


def build(method, dataset, make_config, **options):
    """The setup, its first state, and step(state, rows) on rows of a training split."""
    config = make_config(method, optimizer=OPTIMIZER, modalities=dataset.modalities, **{
        "encoder": EncoderConfig("mlp", width=6, depth=2)} | options)
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)

    def step(state, rows, split=dataset.splits["train"]):
        feed = setup.programs.feed(split, "device")
        state, metrics = setup.programs.steps(state, feed.at(np.asarray(rows, np.int32)[None]))
        return state, {name: float(x[0]) for name, x in metrics.items()}

    return setup, setup_lib.init_state(setup), step


def canonical(x, y, r):
    """Correlations and directions of x [N, d] and y [N, e] by symmetric roots of their covariances."""
    x, y = x - x.mean(0), y - y.mean(0)
    roots = []
    for v in (x, y):
        variances, axes = np.linalg.eigh(v.T @ v / (len(v) - 1) + r * np.eye(v.shape[1]))
        roots.append(axes / np.sqrt(variances) @ axes.T)
    u, rho, vt = np.linalg.svd(roots[0] @ (x.T @ y / (len(x) - 1)) @ roots[1], full_matrices=False)
    return rho, roots[0] @ u, roots[1] @ vt.T


def rows_of(values, present, m, n, impute):
    """Values of two modalities as their covariances take them, in float64."""
    x, y = (np.asarray(values[name], np.float64).reshape(len(values[name]), -1) for name in (m, n))
    if impute == "pairs":
        both = present[m] & present[n]
        return x[both], y[both]
    return tuple(np.where(present[name][:, None], v, v[present[name]].mean(0)) for name, v in ((m, x), (n, y)))


@pytest.mark.parametrize("count, impute", [(2, "mean"), (3, "pairs"), (5, "mean")])
def test_cca_projects_on_the_directions_of_each_pair(count, impute, make_dataset, make_config):
    """After one pass in batches, of inputs normalised by training statistics; up to signs."""
    dataset = dataset_of(make_dataset, count)
    setup, state, step = build(CCAConfig(k=2, r=0.1, impute=impute, labels=False), dataset, make_config)
    for rows in np.arange(32).reshape(4, 8):
        state, metrics = step(state, rows)
    assert metrics["loss"] == 0 and not any(x.any() for x in predictions.split_features(
        setup, state, dataset.splits["test"]).values())
    state = setup.programs.end_task(state)
    train, test = dataset.splits["train"], dataset.splits["test"]

    def normalised(split):
        return {m: (x - setup.spec.norms[m][0]) / setup.spec.norms[m][1] for m, x in split["inputs"].items()}

    x, expected = normalised(train), {m: [] for m in dataset.modalities}
    for m, n in itertools.combinations(dataset.modalities, 2):
        pair = rows_of(x, train["present"], m, n, impute)
        _, *axes = canonical(*pair, 0.1)
        for name, values, axis in zip((m, n), pair, axes):
            new = normalised(test)[name].reshape(16, -1) - values.mean(0)
            expected[name].append(np.where(test["present"][name][:, None], new @ axis[:, :2], 0))
    for m, h in predictions.split_features(setup, state, test).items():
        assert h.shape == (16, 2 * (count - 1))
        np.testing.assert_allclose(np.abs(h), np.abs(np.concatenate(expected[m], 1)), atol=1e-3)


@pytest.mark.parametrize("count, impute, weight", [(2, "pairs", 0.0), (3, "mean", 0.5), (5, "mean", 0.0)])
def test_dcca_loss_by_hand(count, impute, weight, make_dataset, make_config):
    """Minus the correlations of each pair in the batch, and the error of the reconstruction."""
    dataset = dataset_of(make_dataset, count)
    method = DCCAEConfig(k=2, r=0.1, impute=impute, weight=weight, labels=False)
    setup, state, step = build(method, dataset, make_config)
    batch = jax.tree.map(lambda x: x[:16], dataset.splits["train"])
    g, before = predictions.split_features(setup, state, batch), jax.device_get(state.params)
    correlation = -sum(canonical(*rows_of(g, batch["present"], m, n, impute), 0.1)[0].sum()
                       for m, n in itertools.combinations(dataset.modalities, 2))
    error = 0
    for m, layers in before.get("decoder", {}).items():
        x = g[m].astype(np.float64)
        assert [layers[f"layer_{i}"]["kernel"].shape for i in range(3)] == [(2, 6), (6, 6), (
            6, np.prod(SHAPES[m]))]
        for i in range(3):
            x = np.maximum(x, 0) if i else x
            x = x @ layers[f"layer_{i}"]["kernel"] + layers[f"layer_{i}"]["bias"]
        mean, std = setup.spec.norms[m]
        target = ((batch["inputs"][m] - mean) / std).reshape(16, -1)
        error += np.square(x - target).mean(1)[batch["present"][m]].mean()
    state, metrics = step(state, np.arange(16))
    terms = {"correlation": correlation} | ({"reconstruction": weight * error} if weight else {})
    assert {name.removeprefix("loss/"): x for name, x in metrics.items() if name.startswith("loss/")
            } == pytest.approx(terms, rel=1e-4)
    assert metrics["loss"] == pytest.approx(sum(terms.values()), rel=1e-4)
    chex.assert_trees_all_equal(jax.device_get(state.params["head"]), before["head"])
    assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(state.params["projection"]),
                                              jax.tree.leaves(before["projection"])) if a.ndim > 1)


def test_dccae_without_weight_is_dcca_to_the_bit(make_dataset, make_config):
    dataset = dataset_of(make_dataset, 2)
    found = []
    for method in (DCCAConfig(k=2, labels=False), DCCAEConfig(k=2, labels=False, weight=0.0),
                   DCCAEConfig(k=2, labels=False, weight=0.5)):
        _, state, step = build(method, dataset, make_config)
        for rows in np.arange(32).reshape(2, 16):
            state, metrics = step(state, rows)
        found.append((jax.device_get((state.params, state.opt_state)), metrics))
    chex.assert_trees_all_equal(found[0], found[1])
    with_decoder, _ = found[2][0]
    assert np.any(with_decoder["sound"]["Dense_0"]["kernel"] != found[0][0][0]["sound"]["Dense_0"]["kernel"])


@pytest.mark.parametrize("method", [CCAConfig(k=2), DCCAEConfig(k=2)])
def test_a_run_trains_the_head_alone_on_what_its_teacher_found(method, make_dataset, make_config, tmp_path):
    """From one command; the loss is the cross-entropy of a linear layer on all projections."""
    dataset = make_dataset({"sound": (4, 4), "image": (4, 4)}, missing=True)
    encoder = EncoderConfig("cnn", width=2, depth=1, features=4)
    config = make_config(method, encoder=encoder, optimizer=OPTIMIZER)
    config.train.epochs = 1
    run = schedule.train(config, tmp_path, dataset=dataset, devices=ONE, progress=False)
    unlabelled = dataclasses.replace(method, labels=False)
    teacher = schedule.train(make_config(unlabelled, encoder=encoder, optimizer=OPTIMIZER, epochs=1),
                             tmp_path / "teachers" / f"{method.name}+labels=false", dataset=dataset, devices=ONE,
                             progress=False)
    params, known = (jax.device_get(r.state.params) for r in (run, teacher))
    assert set(params) == {"sound", "image", "projection", "head"}
    for group in set(params) - {"head"}:
        chex.assert_trees_all_equal(params[group], known[group])
    assert any(x.any() for x in jax.tree.leaves(params["projection"]["sound"]))
    chex.assert_trees_all_equal(run.state.batch_stats, teacher.state.batch_stats)
    batch = jax.tree.map(lambda x: x[:8], dataset.splits["train"])
    h = predictions.split_features(run.setup, run.state, batch)
    z = {m: h[m] @ params["head"]["kernel"][m] + params["head"]["bias"] / 2 for m in h}
    found = predictions.predict_split(run.setup, run.state, batch)
    for head, expected in (z | {"fused": sum(z.values())}).items():
        np.testing.assert_allclose(found[head], expected, atol=1e-5)
    log_p = sum(z.values()) - np.log(np.exp(sum(z.values())).sum(1, keepdims=True))
    feed = run.setup.programs.feed(dataset.splits["train"], "device")
    before = jax.device_get((run.state.opt_state, run.state.batch_stats))
    state, metrics = run.setup.programs.steps(run.state, feed.at(np.arange(8, dtype=np.int32)[None]))
    np.testing.assert_allclose(metrics["loss"][0], -log_p[np.arange(8), batch["label"]].mean(), rtol=1e-4)
    for group in set(params) - {"head"}:
        chex.assert_trees_all_equal(jax.device_get(state.params[group]), params[group])
        chex.assert_trees_all_equal(jax.device_get(state.opt_state[group]), before[0][group])
    chex.assert_trees_all_equal(jax.device_get(state.batch_stats), before[1])
    assert np.any(state.params["head"]["bias"] != params["head"]["bias"])


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("method", [CCAConfig(k=2), DCCAEConfig(k=2, weight=0.5)])
def test_what_is_missing_is_never_read(method, labels, make_dataset, make_config):
    """Neither as input nor as target: the same state, metrics and predictions to the bit."""
    dataset = dataset_of(make_dataset, 3)
    setup, start, step = build(dataclasses.replace(method, labels=labels), dataset, make_config)
    start, found = setup.programs.fetch(start), []
    for hidden in (None, np.nan, 1e30):
        train, test = ({**split, "inputs": {m: x if hidden is None else np.where(
            split["present"][m].reshape(-1, *[1] * (x.ndim - 1)), x, np.float32(hidden))
            for m, x in split["inputs"].items()}} for split in map(dataset.splits.get, ("train", "test")))
        state, metrics = setup.programs.place(jax.tree.map(lambda x: x.copy(), start)), []
        for rows in np.arange(32).reshape(2, 16):
            state, measured = step(state, rows, train)
            metrics.append(measured)
        state = setup.programs.end_task(state)
        found.append((state.params, state.extra, metrics, predictions.predict_split(setup, state, test)))
    chex.assert_trees_all_equal(*jax.device_get(found))


def test_a_teacher_without_labels_is_not_judged_by_scores(make_dataset, make_config):
    """Neither the epoch that is kept, nor how long it takes, nor its learning rate."""
    dataset = make_dataset()
    optimizer = OptimizerConfig(schedule="plateau")
    config = make_config("cca", optimizer=optimizer, keep="best", patience=1, seed=5)
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)
    (name, method), = setup.programs.teachers.items()
    assert name == "cca+k=2+labels=false"       # so that comparisons of k keep them apart
    taught = teaching.teacher_config(setup, method)
    assert (taught.train.keep, taught.train.patience, taught.optimizer.schedule) == ("last", 0, "constant")
    assert (taught.train.seed, taught.method) == (5, CCAConfig(k=2, labels=False))
    own = setup_lib.build(make_config("ume", keep="best", patience=1), dataset=dataset, devices=ONE)
    with_labels = teaching.teacher_config(own, own.programs.teachers["unimodal_sound"])
    assert (with_labels.train.keep, with_labels.train.patience) == ("best", 1)


def test_few_rows_are_said_by_the_run_they_matter_to(make_dataset, make_config, caplog):
    """In cca those of the data, for inputs of 3 and 5 numbers, in dcca those of a batch, for k."""
    dataset = make_dataset(rows=(100, 16, 16))
    has = np.arange(100) < 30
    dataset.splits["train"]["present"] = {"sound": has | (np.arange(100) > 50), "image": ~has | (np.arange(100) < 10)}

    def said(method, **options):
        caplog.clear()
        setup_lib.build(make_config(method, **options), dataset=dataset, devices=ONE)
        return caplog.text

    assert ("cca: tiny has 59 rows with both image and sound, of up to 5 numbers each; below 20 rows for each "
            "number, correlations of noise look large with method.r=0.5") in said(CCAConfig(k=2, r=0.5, labels=False))
    assert "dcca: a batch has about 29 rows with both image and sound; below 20 x method.k = 40" in said(
        DCCAConfig(k=2, labels=False), batch_size=50)
    assert not said(CCAConfig(k=2, r=1.0, labels=False)) + said(DCCAConfig(k=2, labels=False), batch_size=80)
    assert not said(CCAConfig(k=3)) + said(DCCAConfig(k=2))


def with_text():
    """Token ids beside numbers."""
    rng = np.random.default_rng(0)
    splits = {s: make_batch({"text": rng.integers(7, size=(16, 4), dtype=np.int32),
                             "sound": rng.normal(size=(16, 3)).astype(np.float32)}, np.arange(16) % 2)
              for s in ("train", "val", "test")}
    return Dataset("notes", splits, ("a", "b"), num_tokens={"text": 7})


@pytest.mark.parametrize("method, options, message", [
    (CCAConfig(k=0), {}, "method.k=0; expected a number of at least 1"),
    (CCAConfig(k=4), {}, "method.k=4: inputs of sound have 3 numbers.*set --config.method.k=3 or less"),
    (CCAConfig(k=2, r=0.0), {}, "method.r=0.0; expected a number above 0"),
    (DCCAConfig(r=-1.0), {}, "method.r=-1.0"),
    (DCCAConfig(impute="median"), {}, "method.impute='median'.*xpected one of mean, pairs"),
    (DCCAEConfig(k=2, weight=-1.0), {}, "method.weight=-1.0; expected a number of at least 0"),
    (DCCAConfig(k=9), {}, "train.batch_size=8: dcca correlates the rows of a batch; expected at least method.k=9"),
    (DCCAConfig(k=40), {"batch_size": 30}, "method.k=40: tiny has 32 training rows with image")])
@pytest.mark.parametrize("labels", [True, False])
def test_options_out_of_range(method, options, message, labels, make_dataset, make_config):
    method = dataclasses.replace(method, labels=labels)
    with pytest.raises(UserError, match=message) as error:
        setup_lib.build(make_config(method, **options), dataset=make_dataset(), devices=ONE)
    assert "\n" not in str(error.value)


def test_one_modality_has_nothing_to_correlate_with(make_dataset, make_config):
    with pytest.raises(UserError, match="cca correlates modalities and needs two or more; use unimodal"):
        setup_lib.build(make_config("cca", modalities=("sound",)), dataset=make_dataset({"sound": (3,)}), devices=ONE)


def test_token_ids_are_neither_projected_nor_reconstructed(make_config):
    """But an encoder may read them."""
    def build_with_text(method):
        config = make_config(method, modalities=("sound",))
        config.data.preprocess["text"] = TextConfig(length=4)
        setup_lib.build(config, dataset=with_text(), devices=ONE)

    for method in (CCAConfig(k=2), DCCAEConfig(k=2, labels=False)):
        with pytest.raises(UserError, match="text is a text, and its token ids are no quantities"):
            build_with_text(method)
    build_with_text(DCCAConfig(k=2, labels=False))
