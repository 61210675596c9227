import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import DataConfig, EncoderConfig
from jaxmm.errors import UserError
from jaxmm.experiments import evaluate
from jaxmm.train import predictions, setup as setup_lib


@pytest.mark.parametrize("kind, expected", [
    ("regression", {"mae": 0, "rmse": 0, "pearson": 1}),
    ("multilabel", {"macro_f1": 1, "micro_f1": 1, "map": 1, "label_accuracy": 1})])
def test_a_linear_teacher_is_known_again(kind, expected, make_config, tmp_path):
    """Labels through a file, a run, its scores and its predictions; the head has the teacher's weights."""
    rng = np.random.default_rng(0)
    weights, content = {m: rng.normal(size=(n, 2)) for m, n in (("image", 5), ("sound", 3))}, {}
    for split, n in (("train", 32), ("val", 9), ("test", 21)):
        x = {m: rng.normal(1, 2, size=(n, len(w))) for m, w in weights.items()}
        z = sum(x[m] @ w for m, w in weights.items())
        content |= {f"{split}/{m}": value for m, value in x.items()}
        content[f"{split}/label"] = z if kind == "regression" else z > 0
    np.savez(tmp_path / "d.npz", **content, label_names=np.array(["up", "down"]))
    config = make_config("concat", encoder=EncoderConfig(name="identity"))
    config.data = DataConfig(name="arrays", path=str(tmp_path / "d.npz"))
    setup = setup_lib.build(config, devices=jax.devices()[:1])
    assert (setup.task.name, setup.task.names) == (kind, ("up", "down"))
    state = setup_lib.init_state(setup)
    norms = setup.spec.norms
    head = {"kernel": {m: jnp.float32(norms[m][1][:, None] * w) for m, w in weights.items()},
            "bias": jnp.float32(sum(norms[m][0] @ w for m, w in weights.items()))}
    state = setup.programs.place(setup.programs.fetch(state)._replace(
        params=setup.programs.fetch(state).params | {"head": head}))
    outputs = predictions.predict_split(setup, state, setup.dataset.splits["test"])
    found = predictions.score_split(setup, outputs, "test")["scores"]["fused"]
    assert found == pytest.approx(expected, abs=1e-5)
    evaluate.write_predictions(setup_lib.Run(setup, state, []), setup.dataset.splits["test"], outputs,
                               str(tmp_path / "p.npz"))
    with np.load(tmp_path / "p.npz") as file:
        name = {"regression": "value", "multilabel": "labels"}[kind]
        np.testing.assert_allclose(file[f"fused/{name}"], content["test/label"], atol=1e-4)
        np.testing.assert_allclose(file[f"label/{name}"], content["test/label"], atol=1e-5)
    config.task.kind = "classification"
    with pytest.raises(UserError, match="label is .* .rows, 2.; a classification needs integers .rows."):
        setup_lib.build(config, devices=jax.devices()[:1])


def test_numbers_are_no_stream_of_tasks(make_dataset, make_config):
    dataset = make_dataset()
    splits = {s: b | {"label": np.ones((len(b["label"]), 1), np.float32)} for s, b in dataset.splits.items()}
    config = make_config("sgd")
    config.stream.kind = "class"
    with pytest.raises(UserError, match="a stream of tasks needs a classification; the task is regression"):
        setup_lib.build(config, dataset=dataset._replace(splits=splits, class_names=("x",)))
