"""Which methods work for what is predicted, and what their losses are then."""
import jax
import numpy as np
import pytest

from jaxmm.config import EncoderConfig, OptimizerConfig, TrainConfig
from jaxmm.encoders import make_encoder
from jaxmm.errors import UserError
from jaxmm.methods import METHODS, make_method, method_config
from jaxmm.model import Model
from jaxmm.task import multilabel, regression
from jaxmm.train.optimizers import make_optimizer
from jaxmm.train.plan import make_epoch

RNG = np.random.default_rng(0)
SHAPES = {"sound": 3, "image": 5}
ROWS = 6
# Those that need probabilities of classes, with the options (if any) that let them do without.
NEED_CLASSES = {"qmf": None, "self_distill_label": None, "ume": None, "lwf": None, "smv": None, "cpm_net": None,
                "tate": {"weigh": False}, "tcmax": None, "lfm": {"align": "contrastive"}, "cml": None,
                "amco": None, "mbsd": None, "g2d": None, "pmr": None, "reconboost": None, "relearn": None,
                "er_ace": None, "er_aml": None, "av_cil": None, "analytic": None,
                "mla_tcmax": None, "mla": {"dynamic_fusion": False}, "samm": {"dynamic": False, "beta": 0.0}}
ONE_PASS = {"ae", "cra", "mmin", "if_mmin", "tate"}     # whose steps compute the fused head alone
TASKS = {"regression": (regression("ab"), RNG.normal(size=(ROWS, 2)).astype(np.float32)),
         "multilabel": (multilabel("ab"), RNG.random((ROWS, 2)) < 0.5)}


def make_batch(label):
    return {"inputs": {m: RNG.normal(size=(ROWS, n)).astype(np.float32) for m, n in SHAPES.items()},
            "label": label, "id": np.arange(ROWS, dtype=np.int32),
            "present": {"sound": np.arange(ROWS) != 2, "image": np.arange(ROWS) < 4}}


def build(name, task, **options):
    """The method on small encoders, with a learning rate of 0."""
    encoders = {m: make_encoder(EncoderConfig(name="mlp", depth=1, width=4), 1) for m in SHAPES}
    epoch = make_epoch([np.arange(4 * ROWS)], TrainConfig(batch_size=ROWS))
    optimizer = make_optimizer(OptimizerConfig(learning_rate=0.0, schedule="constant"), 1, epoch)
    config = method_config(name)
    for option, value in ({"modality": "sound"} if name == "unimodal" else {} | options).items():
        setattr(config, option, value)
    if hasattr(config, "k"):
        config.k = 2
    return make_method(config, Model(encoders, task, lambda key, batch: batch, optimizer,
                                     epoch, ROWS, ROWS))


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("name", sorted(METHODS))
def test_works_or_says_why_not(name, kind):
    """A step and predictions of the right shapes, or one line that names the task."""
    task, label = TASKS[kind]
    batch, options = make_batch(label), {}
    if METHODS[name].dense:
        with pytest.raises(UserError, match=f"{name} predicts a class for every pixel, and the task is {kind}; "):
            build(name, task)
        return
    if name in NEED_CLASSES:
        with pytest.raises(UserError, match=f"needs a classification; the task is {kind}: ") as error:
            build(name, task)
        assert "\n" not in str(error.value)
        options = NEED_CLASSES[name]
        if options is None:
            return
    method = build(name, task, **options)

    def run(key):
        state = method.init(key, batch)
        state, metrics = method.step(state, batch)
        return metrics, method.predict(state, batch)

    metrics, outputs = jax.eval_shape(run, jax.random.key(0))
    heads = {"sound"} if name == "unimodal" else set(SHAPES)
    assert set(outputs) == heads | {"fused"}
    assert {z.shape for z in outputs.values()} == {(ROWS, 2)}
    shown = {name for name in metrics if name.startswith(task.progress[0])}
    assert {f"{task.progress[0]}/{m}" for m in ({"fused"} if name in ONE_PASS else heads)} <= shown


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("name", ["concat", "late", "mla", "samm"])
def test_losses_by_hand(name, kind):
    """From the outputs of each head, which a learning rate of 0 leaves as they are."""
    task, label = TASKS[kind]
    batch = make_batch(label)
    method = build(name, task, **NEED_CLASSES.get(name, {}))

    @jax.jit
    def run(key):
        state = method.init(key, batch)
        return method.predict(state, batch), method.step(state, batch)[1]["loss"]

    outputs, loss = jax.device_get(run(jax.random.key(0)))
    values = {}
    for head, z in outputs.items():
        z = z.astype(np.float64)
        values[head] = (np.square(z - label) if kind == "regression" else
                        np.log1p(np.exp(-np.where(label, z, -z)))).mean(-1)
    unimodal = [values[m][batch["present"][m]].mean() for m in SHAPES]
    expected = {"concat": values["fused"].mean(), "late": sum(unimodal), "mla": np.mean(unimodal),
                "samm": values["fused"].mean() + 0.01 * sum(unimodal)}      # of an empty memory
    np.testing.assert_allclose(loss, expected[name], rtol=1e-4)


def test_replay_balanced_over_classes_needs_them():
    with pytest.raises(UserError, match="balanced over the classes.*method.balanced=false"):
        build("er", TASKS["regression"][0], balanced=True)
