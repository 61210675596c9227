import pathlib

import numpy as np
import pytest

from jaxmm.experiments import advise

ARRAYS = str(pathlib.Path("configs/arrays.py").absolute())


def write_npz(path, paired):
    """Two modalities that each tell the class, or whose signs must be compared to tell it."""
    rng = np.random.default_rng(0)
    content = {}
    for split, rows in (("train", 256), ("val", 128), ("test", 64)):
        a, b = rng.choice([-1.0, 1.0], size=(2, rows))
        label = a * b > 0 if paired else a > 0
        for m, sign in (("a", a), ("b", b if paired else a)):
            content[f"{split}/{m}"] = np.stack([sign, rng.normal(size=rows) / 9], 1).astype("f")
        content[f"{split}/label"] = label.astype(int)
    np.savez(path, **content)
    return str(path)


def test_advice_follows_the_data_and_can_be_trained(tmp_path, launch):
    options = [f"--config={ARRAYS}", "--rule", "--config.train.epochs=30",
               "--config.train.checkpoint_epochs=30", "--config.train.eval_epochs=30",
               "--config.encoders.a.width=8", "--config.encoders.b.width=8",
               "--config.optimizer.learning_rate=0.1"]
    cases = [[*options, f"--config.data.path={write_npz(tmp_path / f'{name}.npz', paired)}",
              f"--workdir={tmp_path / name}", f"--seeds={seeds}"]
             for name, paired, seeds in (("pair", True, 1), ("each", False, 2))]
    (code, out, err), (other_code, other, _) = launch("launch.advise", cases)
    assert code == other_code == 0, err
    assert "**UMT**" in out and "mlp head is ahead" in out
    assert "**UME**" in other
    following = tmp_path / "pair/next.json"
    assert f"launch.train --config={following}" in (tmp_path / "pair/advice.md").read_text()
    (code, out, err), (bad, _, why) = launch("launch.train", [
        [f"--config={following}", f"--workdir={tmp_path / 'umt'}"],
        [f"--config={tmp_path / 'each/next.json'}:mla", "--config.method.teachers=x"]])
    assert code == 0 and "fused" in out, err
    # The teachers that advise trained were used again.
    assert not (tmp_path / "umt/teachers").exists()
    assert bad == 2 and "teachers" in why


def test_what_cannot_be_advised_is_one_line(tmp_path, launch):
    path = tmp_path / "one.npz"
    np.savez(path, **{f"{s}/{k}": v for s in ("train", "test") for k, v in (
        ("a", np.ones((9, 2), "f")), ("label", np.arange(9) % 3))})
    cases = [[f"--config={ARRAYS}", f"--config.data.path={path}"],
             [f"--config={ARRAYS}", f"--config.data.path={path}", "--config.stream.kind=class"]]
    for (code, _, err), expected in zip(launch("launch.advise", cases), (
            "only the modality a", "without a stream")):
        assert code == 2 and expected in err and err.count("\n") == 1


def test_seeds_in_which_a_run_diverged_are_left_out_of_the_advice():
    linear, mlp = advise.HEADS.values()
    right = {value: np.array([value, not value]) for value in (False, True)}
    correct = {"ume": {0: right[True], 1: right[True], 2: right[False]},
               linear: {0: right[False], 2: right[True]},
               mlp: {2: right[True], 0: right[True], 1: right[False]}}
    average, heads = advise.same_seeds(correct)
    np.testing.assert_array_equal(average, [right[True], right[False]])
    np.testing.assert_array_equal(heads["linear head"], [right[False], right[True]])
    np.testing.assert_array_equal(heads["mlp head"], [right[True], right[True]])
    average, heads = advise.same_seeds({"ume": {0: right[True]}, mlp: {0: right[False]}})
    assert average.shape == (1, 2) and list(heads) == ["mlp head"]
    for lost in ({}, {"ume": {0: 0.5}}, {linear: {0: 0.5}}, {"ume": {0: 0.5}, mlp: {1: 0.5}}):
        with pytest.raises(FloatingPointError, match="in no seed"):
            advise.same_seeds(lost)
