"""AMCo: which modality a prediction depends on, and which of its features are masked when."""
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.batch import make_batch
from jaxmm.methods.amco import AMCoConfig, mask, masked, shares
from jaxmm.model import Model
from jaxmm.task import classification
from jaxmm.train import setup as setup_lib


def test_shares_of_the_evidence_by_hand():
    """Sums of exp z of 3 and 1, then of 1 and 4; the third example has a alone, and nobody has c."""
    model = Model(dict.fromkeys("abc"), classification("xy"), None, None, None, 3, 3)
    present = {"a": np.ones(3, bool), "b": np.array([True, True, False]), "c": np.zeros(3, bool)}
    evidence = {"a": [[1, 2], [.5, .5], [1, 1]], "b": [[.5, .5], [1, 3], [9, 9]], "c": [[1e9, 1e9]] * 3}
    found = shares(model, {m: jnp.log(jnp.array(x)) for m, x in evidence.items()}, present)
    expected = [(3 / 4 + 1 / 5 + 1) / 3, (1 / 4 + 4 / 5) / 2, 0]
    np.testing.assert_allclose([found[m] for m in "abc"], expected, rtol=1e-5)
    for threshold, rate in ((0.5, 0.25), (0.7, 0)):
        rates = masked(found, threshold, jnp.float32(0.25))
        assert [float(rates[m]) for m in "abc"] == [rate, 0, 0]


def test_features_are_masked_by_example():
    features = {m: jnp.ones((20, 200)) for m in "ab"}
    alone = np.arange(20) == 3
    batch = make_batch({m: np.zeros((20, 1)) for m in "ab"}, np.zeros(20, int), present={"b": ~alone})
    kept = mask(jax.random.key(0), features, {"a": jnp.float32(0.75), "b": jnp.float32(0)}, batch)
    np.testing.assert_array_equal(kept["b"], 1)
    np.testing.assert_array_equal(kept["a"][3], 1)
    rest = np.asarray(kept["a"])[~alone]
    assert set(np.unique(rest)) == {0, 4}
    np.testing.assert_allclose((rest == 0).mean(), 0.75, atol=0.03)
    assert (rest[0] != rest[1]).any()


def test_rates_rise_with_the_epochs(make_dataset, make_config):
    """By a sine over two epochs of two steps; of one modality, on which the features then say less."""
    dataset = make_dataset(rows=(16, 8, 8))
    config = make_config(AMCoConfig(epochs=2, rate=0.8))
    setup = setup_lib.build(config, dataset=dataset, devices=jax.devices()[:1])
    feed = setup.programs.feed(dataset.splits["train"], "device")
    state, found, index = setup_lib.init_state(setup), [], np.arange(8, dtype=np.int32)[None]
    for _ in range(6):
        state, metrics = setup.programs.steps(state, feed.at(index))
        rates = [float(metrics[f"masked/{m}"][0]) for m in dataset.modalities]
        assert min(rates) == 0
        found.append(max(rates))
    np.testing.assert_allclose(found, np.repeat([0, 0.8 * np.sqrt(0.5), 0.8], 2), rtol=1e-5)
