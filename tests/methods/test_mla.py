import chex
import jax
import numpy as np
import pytest

from jaxmm.batch import make_batch
from jaxmm.config import EncoderConfig, OptimizerConfig, TrainConfig
from jaxmm.data.transform import make_transform
from jaxmm.encoders import make_encoder
from jaxmm.errors import UserError
from jaxmm.methods import make_method
from jaxmm.methods.mla import MLAConfig
from jaxmm.model import Model
from jaxmm.task import classification
from jaxmm.train.optimizers import make_optimizer
from jaxmm.train.plan import make_epoch

MODALITIES = ("sound", "image")
WIDTHS = {"sound": 3, "image": 5}
LR, MOMENTUM, DECAY = 0.1, 0.9, 0.01


def model(features=4, steps_per_epoch=4):
    encoder = {m: make_encoder(EncoderConfig(name="mlp", depth=1, width=features), 1)
               for m in MODALITIES}
    epoch = make_epoch([np.arange(steps_per_epoch)], TrainConfig(batch_size=1))
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=LR, momentum=MOMENTUM, weight_decay=DECAY,
                        schedule="constant"), 10, epoch)
    statistics = {m: (np.float32(0), np.float32(1)) for m in MODALITIES}
    return Model(encoder, classification("abc"), make_transform(statistics), optimizer, epoch, 6, 100)


def batches(count, rows=6, missing=False, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        inputs = {m: rng.normal(size=(rows, WIDTHS[m])).astype(np.float32) for m in MODALITIES}
        present = {m: rng.random(rows) < 0.6 for m in MODALITIES} if missing else {}
        yield make_batch(inputs, rng.integers(3, size=rows), present=present)


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def algorithm_1(params, all_batches, config, steps_per_epoch=4):
    """Algorithm 1 in NumPy for encoders of one ReLU layer, with momentum and weight decay."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    momentum = jax.tree.map(np.zeros_like, params)
    size = params["head"]["kernel"].shape[0]
    P, previous, t = np.eye(size), np.zeros(size), 0
    for i, batch in enumerate(all_batches):
        alpha = config.alpha
        if config.alpha_schedule == "released":
            alpha = 0.1 ** (1 + i % steps_per_epoch / steps_per_epoch)
        for m in MODALITIES:
            rows = batch["present"][m]
            x, y = batch["inputs"][m][rows].astype(np.float64), batch["label"][rows]
            dense, head = params[m]["Dense_0"], params["head"]
            pre = x @ dense["kernel"] + dense["bias"]
            h = np.maximum(pre, 0)
            dz = (softmax(h @ head["kernel"] + head["bias"]) - np.eye(3)[y]) / len(y)
            dpre = dz @ head["kernel"].T * (pre > 0)
            mean = h.mean(0)
            entering = mean if config.features == "current" else previous
            if t > 0 and config.projection == "rls":
                q = P @ entering / (alpha + entering @ P @ entering)
                P = P - np.outer(q, entering) @ P
            grads = {m: {"Dense_0": {"kernel": x.T @ dpre, "bias": dpre.sum(0)}},
                     "head": {"kernel": P @ (h.T @ dz), "bias": dz.sum(0)}}
            for group, grad in grads.items():
                momentum[group] = jax.tree.map(lambda v, g, p: MOMENTUM * v + g + DECAY * p,
                                               momentum[group], grad, params[group])
                params[group] = jax.tree.map(lambda p, v: p - LR * v, params[group],
                                             momentum[group])
            previous, t = mean, t + 1
    return params, P


@pytest.mark.parametrize("config", [
    MLAConfig(), MLAConfig(projection="none"), MLAConfig(features="previous", alpha=0.5),
    MLAConfig(alpha_schedule="released")],
    ids=["paper", "no projection", "previous", "released alpha"])
@pytest.mark.parametrize("missing", [False, True])
def test_steps_are_algorithm_1(config, missing):
    method = make_method(config, model())
    data = list(batches(6, missing=missing))
    state = jax.jit(method.init)(jax.random.key(0), data[0])
    expected, P = algorithm_1(state.params, data, config)
    step = jax.jit(method.step)
    for batch in data:
        state, _ = step(state, batch)
    chex.assert_trees_all_close(state.params, expected, atol=2e-5)
    np.testing.assert_allclose(state.extra["rls"].projection, P, atol=2e-5)


def test_update_leaves_other_modalities_bit_for_bit():
    method = make_method(MLAConfig(), model())
    batch = next(batches(1))
    step = jax.jit(method.step)
    state, _ = step(jax.jit(method.init)(jax.random.key(0), batch), batch)
    batch["present"]["image"][:] = False    # only sound is trained
    after, metrics = step(state, batch)
    assert np.isnan(metrics["accuracy/image"]) and np.isfinite(metrics["accuracy/sound"])
    log_p = np.log(softmax(np.asarray(method.predict(state, batch)["sound"], np.float64)))
    # The mean over the modalities that there are: no 0 for the image.
    np.testing.assert_allclose(metrics["loss"], -log_p[np.arange(6), batch["label"]].mean(), rtol=1e-5)
    for group in ("params", "opt_state", "batch_stats"):
        chex.assert_trees_all_equal(getattr(after, group)["image"], getattr(state, group)["image"])
        if group != "batch_stats":
            for x, y in zip(jax.tree.leaves(getattr(after, group)["sound"]),
                            jax.tree.leaves(getattr(state, group)["sound"])):
                assert not np.array_equal(x, y)


def test_a_modality_that_a_batch_lacks_does_not_enter_the_projection():
    method = make_method(MLAConfig(), model())
    data = list(batches(2))
    state, step = method.init(jax.random.key(0), data[0]), jax.jit(method.step)
    skipped = make_batch({m: data[1]["inputs"][m] for m in MODALITIES}, data[1]["label"],
                         present={"image": np.zeros(6, bool)})
    for batch in (data[0], skipped):
        state, metrics = step(state, batch)
    assert np.isfinite(metrics["loss"])
    # Two iterations of step 0, of which t = 0 does not enter P, then one of step 1.
    eigenvalues = np.linalg.eigvalsh(state.extra["rls"].projection)
    assert np.sum(eigenvalues < 1 - 1e-4) == 2


def test_unpaired_rows_train_each_modality_on_its_own():
    """Six rows of sound and four of image, stacked: as two data sets, each with its own labels."""
    first, second = batches(2)
    stacked = make_batch(
        {"sound": np.concatenate([first["inputs"]["sound"], np.full((4, 3), np.nan, np.float32)]),
         "image": np.concatenate([np.zeros((6, 5), np.float32), second["inputs"]["image"][:4]])},
        np.concatenate([first["label"], second["label"][:4]]),
        present={"sound": np.arange(10) < 6, "image": np.arange(10) >= 6})
    method = make_method(MLAConfig(), model())
    state = method.init(jax.random.key(1), first)
    got, _ = jax.jit(method.step)(state, stacked)
    chex.assert_trees_all_close(got.params, algorithm_1(state.params, [stacked], MLAConfig())[0],
                                atol=2e-5)


def test_prediction_fuses_by_entropy_or_mean():
    batch = next(batches(1))
    for dynamic in (True, False):
        method = make_method(MLAConfig(dynamic_fusion=dynamic), model())
        state = method.init(jax.random.key(0), batch)
        logits = method.predict(state, batch)
        z = np.stack([logits[m] for m in MODALITIES])
        p = np.stack([softmax(x) for x in z])
        entropy = -(p * np.log(p)).sum(-1)
        weights = np.exp(-entropy) / np.exp(-entropy).sum(0) if dynamic else np.full((2, 6), 0.5)
        np.testing.assert_allclose(logits["fused"], (weights[..., None] * z).sum(0), atol=1e-5)


def test_encoders_of_different_widths_are_refused():
    parts = model()
    parts.encoders["image"] = make_encoder(EncoderConfig(name="mlp", depth=1, width=5), 1)
    method = make_method(MLAConfig(), parts)
    with pytest.raises(UserError, match="sound 4.*image 5|image 5.*sound 4"):
        method.init(jax.random.key(0), next(batches(1)))


@pytest.mark.parametrize("option", [{"projection": "on"}, {"features": "next"}, {"alpha": 0.0},
                                    {"alpha_schedule": "linear"}, {"alpha": float("nan")}])
def test_options_that_do_not_exist_are_refused(option):
    with pytest.raises(UserError, match=f"method.{next(iter(option))}"):
        make_method(MLAConfig(**option), model())


def test_the_program_grows_with_the_modalities_and_not_with_their_square():
    """Operations of a step with 2, 4 and 6 modalities lie on a line."""
    def operations(count):
        names = [f"m{i}" for i in range(count)]
        encoders = {m: make_encoder(EncoderConfig(name="mlp", depth=1, width=4), 1) for m in names}
        parts = model()._replace(encoders=encoders, transform=make_transform(
            {m: (np.float32(0), np.float32(1)) for m in names}))
        method = make_method(MLAConfig(), parts)
        batch = make_batch({m: np.zeros((6, 2), np.float32) for m in names}, np.arange(6) % 3)
        state = jax.eval_shape(method.init, jax.random.key(0), batch)
        return len(jax.make_jaxpr(method.step)(state, batch).eqns)

    two, four, six = map(operations, (2, 4, 6))
    assert six - four == four - two > 0
