import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import EncoderConfig, OptimizerConfig
from jaxmm.errors import UserError
from jaxmm.losses.distillation import mean_squared_error
from jaxmm.methods import method_config
from jaxmm.methods.fusion import FusedConfig, UnimodalConfig
from jaxmm.methods.imagination import IFMMINConfig
from jaxmm.methods.tate import TATEConfig
from jaxmm.methods.taught import (FinetuneConfig, SelfDistillConfig, TaughtConfig, UMEConfig,
                                  UMTConfig, imitation, mean_probability, name_of)
from jaxmm.model import Model
from jaxmm.train import opened, predictions, schedule, setup as setup_lib, teaching
from jaxmm.train.restore import restore

ONE = jax.devices()[:1]
WHERE = "{teacher}/seed_{seed}"     # of the runs that teach


def run(config, workdir, dataset, **kwargs):
    return schedule.train(config, workdir, dataset=dataset, devices=ONE, progress=False, **kwargs)


@pytest.fixture(scope="module")
def dataset(make_dataset):
    return make_dataset(missing=True)


@pytest.fixture(scope="module")
def train_unimodal(dataset, make_config, tmp_path_factory):
    """Folder of run folders as WHERE names them, and a function: seed -> the two runs in it."""
    root = tmp_path_factory.mktemp("runs")

    def train(seed):
        return {m: run(make_config(UnimodalConfig(modality=m), seed=seed),
                       root / f"unimodal_{m}/seed_{seed}", dataset) for m in dataset.modalities}

    return root, train


@pytest.fixture(scope="module")
def unimodal(train_unimodal):
    """The folder, and the runs of the seed of the students: whose weights are taken over."""
    root, train = train_unimodal
    return root, train(0)


@pytest.fixture(scope="module")
def imitated(train_unimodal):
    """The folder, and the runs of the seed that those have which students imitate."""
    root, train = train_unimodal
    return root, train(teaching.other_seed(0))


def taught_state(config, dataset, root):
    """Setup and first state, with what the teachers in `root` know."""
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)
    new = opened.Opened(setup, root / "new", save=None, write=None, history=[], step=0,
                      state=setup.programs.fetch(setup_lib.init_state(setup)))
    (new,), _ = schedule.teach([new], [f"{root}/{WHERE}"],
                           {"dataset": dataset, "devices": ONE, "progress": False})
    return setup, setup.programs.place(new.state)


def step(setup, state, dataset):
    """The state after the first eight examples, and the metrics."""
    feed = setup.programs.feed(dataset.splits["train"], "device")
    return setup.programs.steps(state, feed.at(np.arange(8, dtype=np.int32)[None]))


def features_and_logits(setup, state, dataset):
    """Of the first eight training examples; without batch norm as in training."""
    split = jax.tree.map(lambda x: x[:8], dataset.splits["train"])
    return (predictions.split_features(setup, state, split),
            predictions.predict_split(setup, state, split), split)


def cross_entropy(logits, label):
    logits = np.asarray(logits, np.float64)
    return np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(label)), label]


@pytest.mark.parametrize("labels, distance, warmup", [
    (True, "mse", 0.0), (False, "normalised", 0.0), (True, "relative", 2.0)])
def test_umt_loss_by_hand(labels, distance, warmup, dataset, imitated, make_config):
    """CE + 50 sum_m MSE, the mean over batch and feature of the examples that have m.

    Or of features scaled to a mean square of 1, or over that of the teacher's; after one of two epochs of
    warm-up, which have four steps, with half the weight.
    """
    root, teachers = imitated
    options = UMTConfig(labels=labels, distance=distance, warmup_epochs=warmup)
    setup, state = taught_state(make_config(options), dataset, root)
    h, logits, batch = features_and_logits(setup, state, dataset)
    expected = cross_entropy(logits["fused"], batch["label"]).mean() if labels else 0.0
    for m, teacher in teachers.items():
        there = batch["present"][m]
        target, own = (x[m][there].astype(np.float64) for x in (
            features_and_logits(teacher.setup, teacher.state, dataset)[0], h))
        if distance == "normalised":
            target, own = (x / np.sqrt(np.square(x).mean(1, keepdims=True) + 1e-6) for x in (target, own))
        square = np.square(target).mean() if distance == "relative" else 1.0
        expected += 50 * (0.5 if warmup else 1.0) * np.square(own - target).mean() / square
    _, metrics = step(setup, state._replace(step=state.step + 4), dataset)
    np.testing.assert_allclose(metrics["loss"][0], expected, rtol=1e-5)


def test_distances_of_features_by_hand():
    """Neither "relative" nor "normalised" depends on the unit; rows that do not count say nothing."""
    model = Model({}, None, None, None, None, 1, 1)
    student, teacher = np.float32([[3, 4], [1, 0], [9, 9]]), np.float32([[6, 8], [0, 1], [0, 0]])
    counts = np.array([True, True, False])

    def of(distance, present, unit=1.0):
        return float(imitation(model, distance, mean_squared_error, unit * student, unit * teacher, present))

    assert of("mse", counts) == pytest.approx((12.5 + 1) / 2)
    for unit in (1.0, 1e3):
        assert of("relative", counts, unit) == pytest.approx((12.5 + 1) / (50 + 0.5))
        assert of("normalised", counts, unit) == pytest.approx((0 + 2) / 2, rel=1e-4)
    for distance in ("relative", "normalised"):
        nobody = np.zeros(3, bool)
        assert of(distance, nobody) == 0
        slope = jax.grad(lambda h, d=distance: imitation(model, d, mean_squared_error, h, teacher, counts))(
            jnp.zeros((3, 2)))
        assert np.isfinite(slope).all()


def test_a_loss_that_is_not_finite_is_said_with_what_cures_it(dataset, imitated, make_config, tmp_path):
    with pytest.raises(FloatingPointError, match="or with optimizer.clip_norm, or with method.distance=normalised and"):
        run(make_config(UMTConfig(weight=1e30, teachers=f"{imitated[0]}/{WHERE}")), tmp_path / "run", dataset)


@pytest.mark.parametrize("name", ["self_distill_label", "self_distill_feature"])
def test_self_distillation_by_hand(name, dataset, unimodal, make_config):
    root, _ = unimodal
    config = make_config(SelfDistillConfig(name, weight=3.0, temperature=2.0))
    setup, state = taught_state(config, dataset, root)
    teacher = run(make_config("concat", seed=1000), root / "concat/seed_1000", dataset)   # made above
    h, logits, batch = features_and_logits(setup, state, dataset)
    wise_h, wise, _ = features_and_logits(teacher.setup, teacher.state, dataset)
    if name == "self_distill_label":
        log_p, log_q = (np.asarray(jax.nn.log_softmax(z["fused"] / 2.0)) for z in (wise, logits))
        expected = 2.0**2 * (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()
    else:
        there = np.repeat(np.stack([batch["present"][m] for m in sorted(h)], 1), 6, axis=1)
        squares = np.concatenate([np.square(h[m] - wise_h[m]) for m in sorted(h)], 1)
        expected = np.mean([row[mask].mean() for row, mask in zip(squares, there)])
    expected = 3 * expected + cross_entropy(logits["fused"], batch["label"]).mean()
    _, metrics = step(setup, state, dataset)
    np.testing.assert_allclose(metrics["loss"][0], expected, rtol=1e-5)


def test_teachers_are_constants_of_the_step(dataset, imitated, make_config):
    """They do not change, have no optimizer state, and pass no gradient to anything else."""
    root, teachers = imitated
    setup, state = taught_state(make_config("umt"), dataset, root)
    before = jax.device_get(state.extra)
    for m, teacher in teachers.items():
        chex.assert_trees_all_equal(before["teacher"][0][m],
                                    jax.device_get(teacher.state.params[m]))
    assert set(state.opt_state) == set(state.params) == {"image", "sound", "head"}
    state, _ = step(setup, state, dataset)
    chex.assert_trees_all_equal(jax.device_get(state.extra), before)


@pytest.mark.parametrize("name, teacher", [("mmin", "concat"), ("if_mmin", "if_mmin+student=false")])
def test_imagination_starts_from_its_teacher(name, teacher, dataset, make_config, tmp_path):
    """From encoders and network of common features, which the step moves; what it imitates stays."""
    setup, state = taught_state(make_config(name), dataset, tmp_path)
    known = jax.device_get(restore(tmp_path / teacher / "seed_0", dataset=dataset, devices=ONE).state.params)
    before = jax.device_get((state.params, state.extra))
    params, (frozen, _) = before[0], before[1]["teacher"]
    for m in dataset.modalities:
        chex.assert_trees_all_equal(params[m], known[m])
        chex.assert_trees_all_equal(frozen[m], known[m])
    if name == "if_mmin":
        chex.assert_trees_all_equal(params["head"]["invariant"], known["head"]["invariant"])
        chex.assert_trees_all_equal(frozen["head"]["invariant"], known["head"]["invariant"])
    for _ in range(3):
        state, _ = step(setup, state, dataset)
    chex.assert_trees_all_equal(jax.device_get(state.extra), before[1])
    for group in state.params:
        with pytest.raises(AssertionError):
            chex.assert_trees_all_equal(jax.device_get(state.params[group]), params[group])


def test_a_finished_teacher_is_used_again(dataset, imitated, make_config, tmp_path):
    """By default in the run's own folder; in another one if told so, or if the config names it."""
    root, teachers = imitated
    saved = {path: path.stat().st_mtime_ns for m in teachers
             for path in (root / f"unimodal_{m}/seed_1000/checkpoints").iterdir()}
    shared = run(make_config("umt"), tmp_path / "shared", dataset, teachers=f"{root}/{WHERE}")
    named = run(make_config(UMTConfig(teachers=f"{root}/{{teacher}}/seed_1000")), tmp_path / "named", dataset)
    own = run(make_config("umt"), tmp_path / "own", dataset)
    for other in (named, own):
        chex.assert_trees_all_equal(jax.device_get(other.state.params),
                                    jax.device_get(shared.state.params))
    assert sorted(p.name for p in (tmp_path / "own" / "teachers").iterdir()) == [
        "unimodal_image", "unimodal_sound"]
    assert not (tmp_path / "shared" / "teachers").exists()
    assert saved == {path: path.stat().st_mtime_ns for path in saved}


def test_teachers_that_do_not_fit_are_refused(dataset, unimodal, make_config, make_dataset, tmp_path):
    root, _ = unimodal
    location = f"{root}/{{teacher}}/seed_0"
    with pytest.raises(UserError, match="unimodal_image/seed_0: this teacher has train.seed=0, as its "
                                        "student.*choose another --config.train.seed"):
        run(make_config(UMTConfig(teachers=location)), tmp_path / "alike", dataset)
    assert not (tmp_path / "alike").exists()
    wide = make_config(UMTConfig(teachers=location), encoder=EncoderConfig("mlp", width=7, depth=1))
    with pytest.raises(UserError, match="unimodal_image.*encoders.image.width is 6, here 7"):
        run(wide, tmp_path / "wide", dataset)
    with pytest.raises(UserError, match="nowhere/unimodal_image is not a run folder"):
        run(make_config(UMTConfig(teachers=f"{tmp_path}/nowhere/{{teacher}}")), tmp_path / "a",
            dataset)
    more = make_dataset(classes=4)
    unfinished = make_config(UMEConfig(teachers=location))
    with pytest.raises(UserError, match="other data|other modalities or classes"):
        run(unfinished, tmp_path / "b", more)


def swapped(dataset, split, **parts):
    """The data set with other parts in one of its splits."""
    return dataset._replace(splits=dataset.splits | {split: dataset.splits[split] | parts})


def test_teachers_must_have_learned_from_the_rows_of_their_student(
        dataset, imitated, make_config, make_dataset, tmp_path):
    """Other labels, another split of the same rows, test rows, other masks; not other test data."""
    config = make_config(UMTConfig(teachers=f"{imitated[0]}/{WHERE}"), epochs=1)
    train, val, test = (dataset.splits[split] for split in ("train", "val", "test"))
    both = jax.tree.map(lambda a, b: np.concatenate([a, b]), train, val)
    redrawn = jax.tree.map(lambda x: x[::-1][:len(train["label"])], both)
    leaked = jax.tree.map(lambda a, b: np.concatenate([a[len(b):], b]), train, test)
    others = {"labels": swapped(dataset, "train", label=train["label"][::-1]),
              "split": swapped(dataset, "train", **redrawn),
              "test": swapped(dataset, "train", **leaked),
              "masks": swapped(dataset, "train", present={
                  m: np.ones_like(p) for m, p in train["present"].items()})}
    for name, other in others.items():
        with pytest.raises(UserError, match="unimodal_image/seed_1000: this teacher was trained on other"):
            run(config, tmp_path / name, other)
        assert not (tmp_path / name).exists()
    run(config, tmp_path / "fits", swapped(dataset, "test", label=test["label"][::-1]))


@pytest.mark.parametrize("student, teacher, seed", [
    ("mmin", FusedConfig("concat", fusion="concat"), 0), ("if_mmin", IFMMINConfig(student=False), 0),
    ("tate", TATEConfig(distill=False), 1000)])
def test_teachers_of_those_who_imagine_may_have_complete_rows(
        student, teacher, seed, dataset, make_config, tmp_path, caplog):
    """Those of the run, which is said; neither other rows nor other labels, nor dropped from by another rate."""
    train = dataset.splits["train"]
    complete = {m: np.ones_like(p) for m, p in train["present"].items()}
    name = name_of(teacher)
    whole = run(make_config(teacher, seed=seed, epochs=1), tmp_path / name, swapped(dataset, "train", present=complete))
    config = make_config(student, epochs=1)
    config.method.teachers = f"{tmp_path}/{{teacher}}"
    found = run(config, tmp_path / "run", dataset)
    assert f"{name}: this teacher has learned from modalities that are missing here" in caplog.text
    chex.assert_trees_all_equal(jax.device_get(found.state.extra["teacher"][0]["sound"]),
                                jax.device_get(whole.state.params["sound"]))
    for part, value in {"label": train["label"][::-1], "id": train["id"][::-1],
                        "inputs": {m: x[::-1] for m, x in train["inputs"].items()}}.items():
        other = setup_lib.build(config, dataset=swapped(dataset, "train", **{part: value}), devices=ONE)
        with pytest.raises(UserError, match="this teacher was trained on other data"):
            teaching.check_teachers(other)
    config_file = tmp_path / name / "config.json"
    text = config_file.read_text()
    assert text.count('"missing_rate": 0.0') == 1
    config_file.write_text(text.replace('"missing_rate": 0.0', '"missing_rate": 0.3'))
    with pytest.raises(UserError, match="this teacher was trained on other data"):
        teaching.check_teachers(setup_lib.build(config, dataset=dataset, devices=ONE))


@pytest.mark.parametrize("method", ["umt", "finetune", "g2d", "reconboost", "g_blending", "self_distill_label"])
def test_teachers_that_know_later_tasks_are_refused(method, dataset, make_config, tmp_path):
    config = make_config(method)
    config.stream.kind, config.stream.num_tasks = "class", 3
    with pytest.raises(UserError, match=f"^{method}: its teachers would know all tasks"):
        run(config, tmp_path / "run", dataset)
    assert not (tmp_path / "run").exists()
    config.stream.joint = True
    teaching.check_teachers(setup_lib.build(config, dataset=dataset, devices=ONE))


def test_finetuning_starts_from_the_encoders_and_moves_them_less(dataset, unimodal, make_config):
    root, teachers = unimodal
    moved = {}
    for scale in (1.0, 0.25):
        optimizer = OptimizerConfig(learning_rate=0.1, schedule="constant", weight_decay=0.0)
        config = make_config(FinetuneConfig(encoder_scale=scale, teachers=f"{root}/{WHERE}"),
                             optimizer=optimizer)
        setup, state = taught_state(config, dataset, root)
        before = jax.device_get(state.params)
        chex.assert_trees_all_equal(before["image"],
                                    jax.device_get(teachers["image"].state.params["image"]))
        state, _ = step(setup, state, dataset)
        moved[scale] = jax.tree.map(lambda a, b: np.asarray(a) - b, state.params, before)
    for m in teachers:
        quarter = jax.tree.map(lambda d: 0.25 * d, moved[1.0][m])
        chex.assert_trees_all_close(moved[0.25][m], quarter, atol=1e-7)
    chex.assert_trees_all_close(moved[0.25]["head"], moved[1.0]["head"])
    assert np.abs(moved[1.0]["head"]["bias"]).max() > 0


def test_frozen_encoders_stay(dataset, unimodal, make_config):
    root, teachers = unimodal
    config = make_config(TaughtConfig("frozen_linear", fusion="mlp", hidden=4))
    setup, state = taught_state(config, dataset, root)
    head = jax.device_get(state.params["head"])
    state, _ = step(setup, state, dataset)
    for m, teacher in teachers.items():
        chex.assert_trees_all_equal(state.params[m], teacher.state.params[m])
    assert head["hidden"]["kernel"].shape == (12, 4)
    assert not np.allclose(state.params["head"]["out"]["bias"], head["out"]["bias"])


@pytest.mark.parametrize("options", [FinetuneConfig(encoder_scale=0), TaughtConfig("frozen_linear")])
def test_batch_statistics_of_frozen_encoders_stay(options, make_dataset, make_config):
    """So features do not move: parameters, statistics and optimizer state of the encoders are the same."""
    dataset = make_dataset({"sound": (4, 4), "image": (4, 4)})
    config = make_config(options, encoder=EncoderConfig("cnn", width=2, depth=1, features=4))
    setup = setup_lib.build(config, dataset=dataset, devices=ONE)
    state = setup_lib.init_state(setup)
    before = jax.device_get(state)
    new, _ = step(setup, state, dataset)
    assert jax.tree.leaves(before.batch_stats)
    chex.assert_trees_all_equal(jax.device_get(new.batch_stats), before.batch_stats)
    for m in dataset.modalities:
        chex.assert_trees_all_equal(jax.device_get((new.params[m], new.opt_state[m])),
                                    (before.params[m], before.opt_state[m]))
    assert np.abs(new.params["head"]["bias"] - before.params["head"]["bias"]).max() > 0


def test_umt_starts_as_far_from_its_teachers_in_every_modality(make_dataset, make_config):
    """Two modalities of one distribution, over seeds: the errors agree within their standard error.

    Every other method of a seed starts from the encoders of the student, in all modalities.
    """
    def features(method, seed, modality=None):
        options = UnimodalConfig(modality=modality) if modality else method
        setup = setup_lib.build(make_config(options, seed=seed), dataset=dataset, devices=ONE)
        return predictions.split_features(setup, setup_lib.init_state(setup), dataset.splits["train"])

    errors = []
    for seed in range(5):
        dataset = make_dataset({"image": (5,), "sound": (5,)}, seed=seed)
        student = features("umt", seed)
        errors.append([np.square(student[m] - features(None, teaching.other_seed(seed), m)[m]).mean()
                       for m in dataset.modalities])
        for m, own in student.items():
            np.testing.assert_array_equal(features(None, seed, m)[m], own)
    difference = np.diff(errors, axis=1)
    assert np.mean(errors) > 0.1 and np.min(errors) > 0.2 * np.mean(errors)
    assert abs(difference.mean()) < 2 * difference.std(ddof=1) / np.sqrt(5)


def test_a_head_on_distilled_encoders(dataset, unimodal, make_config):
    """Teachers of teachers: the encoders are those of umt without labels, which has its own."""
    root, _ = unimodal
    config = make_config("frozen_linear_on_distilled",
                         optimizer=OptimizerConfig(learning_rate=0.01, schedule="constant"))
    _, state = taught_state(config, dataset, root / "nested")
    distilled = config.method
    config.method = UMTConfig(labels=False)
    teacher = run(config, root / "nested/umt+labels=false/seed_0", dataset,
                  teachers=f"{root}/nested/{WHERE}")
    chex.assert_trees_all_equal(state.params["sound"], teacher.state.params["sound"])
    assert distilled.name == "frozen_linear_on_distilled"


def test_ume_averages_probabilities(dataset, unimodal, make_config, tmp_path):
    """Weights 1 and 3 over what an example has; nothing is trained, and the run is a whole run."""
    root, teachers = unimodal
    config = make_config(UMEConfig(weights="image:1,sound:3"))
    result = run(config, tmp_path / "ume", dataset, teachers=f"{root}/{WHERE}")
    assert [r["split"] for r in result.history] == ["val", "test"]
    split = dataset.splits["test"]
    logits = predictions.predict_split(result.setup, result.state, split)
    total, weight = 0.0, 0.0
    for (m, teacher), w in zip(sorted(teachers.items()), (1, 3)):
        z = predictions.predict_split(teacher.setup, teacher.state, split)[m]
        np.testing.assert_allclose(logits[m], z, rtol=1e-6)
        share = w * split["present"][m][:, None]
        total, weight = total + share * np.asarray(jax.nn.softmax(z)), weight + share
    np.testing.assert_allclose(np.exp(logits["fused"]), total / weight, rtol=1e-5)
    again = run(config, tmp_path / "ume", dataset)      # finished: nothing is needed
    assert again.history == result.history
    for text in ("image:1", "image:1,sound:-1", "image,sound", "image:1,smell:2"):
        with pytest.raises(UserError, match="method.weights=.*image:1,sound:1"):
            setup_lib.build(make_config(UMEConfig(weights=text)), dataset=dataset)


def test_mean_probability_of_large_logits():
    present = {"a": np.array([True]), "b": np.array([True])}
    logits = {"a": jnp.array([[1e4, -1e4]]), "b": jnp.array([[-1e4, 1e4]])}
    fused = mean_probability(logits, present, {"a": 1.0, "b": 1.0})
    np.testing.assert_allclose(np.exp(fused), [[0.5, 0.5]], rtol=1e-6)


def test_nothing_to_train_is_no_stream(make_dataset, make_config):
    config = make_config(method_config("ume"))
    config.stream.kind, config.stream.num_tasks = "class", 2
    with pytest.raises(UserError, match="ume trains nothing itself"):
        setup_lib.build(config, dataset=make_dataset(classes=4))
