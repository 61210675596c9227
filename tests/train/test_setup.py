import pytest

from jaxmm.config import SpectrogramConfig, replace
from jaxmm.errors import UserError
from jaxmm.train import setup


@pytest.mark.parametrize("option, value, said", [
    ("optimizer.learning_rate", float("nan"), "learning_rate=nan; expected a finite number"),
    ("optimizer.momentum", float("-inf"), "momentum=-inf; expected a finite number"),
    ("optimizer.weight_decay", 1e39, "weight_decay=1e\\+39; expected at most 3.4"),
    ("optimizer.clip_norm", 1e-60, "clip_norm=1e-60 is 0 in float32"),
    ("data.missing_rate", float("nan"), "data.missing_rate=nan"),
    ("method.hidden", 2**31, "method.hidden=2147483648; expected at most 2147483647"),
    ("train.keep_checkpoints", 10**30, "keep_checkpoints=1000000000000000000000000000000"),
    ("train.seed", 2**31, "train.seed=2147483648"),
    ("train.seeds", 1001, "train.seeds=1001; expected at most 1000"),
    ("data.preprocess", {"sound": SpectrogramConfig(mels=10**6)},
     "data.preprocess.sound.mels=1000000; expected at most 16384"),
    ("data.preprocess", {"sound": SpectrogramConfig(std=(1.0, float("inf")))},
     "data.preprocess.sound.std=inf; expected a finite number"),
])
def test_numbers_that_are_none_or_absurd_are_named(option, value, said, make_config):
    with pytest.raises(UserError, match=said):
        setup.check_counts(replace(make_config(), {option: value}))


def test_numbers_at_the_edge_are_taken(make_config):
    setup.check_counts(replace(make_config(), {
        "optimizer.learning_rate": -0.0, "optimizer.weight_decay": 1e-37, "train.seeds": 1000,
        "train.seed": 2**31 - 1000, "train.epochs": 2**31 - 1}))
    with pytest.raises(UserError, match="train.seeds=1000 reaches the seed 2147483648"):
        setup.check_counts(replace(make_config(), {"train.seeds": 1000, "train.seed": 2**31 - 999}))


def test_runs_that_do_not_fit_into_memory_together_are_trained_apart(make_config, make_dataset,
                                                                     monkeypatch):
    setups = list(setup.build_many([replace(make_config(), {"train.seed": seed})
                                    for seed in range(3)], dataset=make_dataset()))
    size = setup.state_size(setups[0])
    assert size > 4 * 6 * (3 + 5)       # the encoders' first layers alone
    monkeypatch.setattr(setup, "memory_size", lambda: 3 * size)
    assert setup.find_obstacle(setups) == ""
    monkeypatch.setattr(setup, "memory_size", lambda: 3 * size - 1)
    assert "memory does not hold" in setup.find_obstacle(setups)
    monkeypatch.setattr(setup, "memory_size", lambda: size - 1)
    with pytest.raises(UserError, match="more than the 0.0 GiB of memory"):
        setup.build(make_config(), dataset=make_dataset())
