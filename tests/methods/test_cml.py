"""CML: which subsets are compared, by hand, and the loss of a step."""
import itertools

import jax
import numpy as np

from jaxmm import heads
from jaxmm.methods.cml import CMLConfig, overconfidence
from jaxmm.train import setup as setup_lib


def test_pairs_of_subsets_by_hand():
    """Of two modalities a is surer than both, by 0.1; b is not. The last example has nothing to compare."""
    confidence = {s: np.float32([x, x, x]) for s, x in ((("a",), .9), (("b",), .6), (("a", "b"), .8))}
    present = {"a": np.array([True, True, True]), "b": np.array([True, True, False])}
    values, counts = overconfidence(confidence, present)
    np.testing.assert_allclose(values, [.05, .05, 0], atol=1e-6)
    np.testing.assert_array_equal(counts, [True, True, False])
    grads = jax.grad(lambda c: overconfidence(c, present)[0].sum())(confidence)
    np.testing.assert_allclose(grads["a",], [.5, .5, 0])
    np.testing.assert_allclose(grads["a", "b"], [-.5, -.5, 0])
    np.testing.assert_array_equal(grads["b",], 0)


def test_loss_of_three_modalities_in_numpy(make_dataset, make_config):
    """The twelve pairs of nested subsets, or fewer where modalities are missing."""
    dataset = make_dataset({"a": (3,), "b": (5,), "c": (4,)}, rows=(8, 8, 8), missing=True)
    batch = dataset.splits["train"]
    config = make_config(CMLConfig(fusion="mlp", hidden=4, weight=2.0), modalities="abc")
    method = setup_lib.build(config, dataset=dataset, devices=jax.devices()[:1]).make_method(None, {})
    apply = heads.mlp(3, 4).apply
    subsets = [s for size in (1, 2, 3) for s in itertools.combinations("abc", size)]

    @jax.jit
    def run(key):
        state = method.init(key, batch)
        h = method.features(state, batch)
        z = {s: apply(state.params["head"], {m: x * (m in s) for m, x in h.items()})["fused"]
             for s in subsets}
        return {s: jax.nn.softmax(x) for s, x in z.items()}, method.step(state, batch)[1]

    p, metrics = jax.device_get(run(jax.random.key(0)))
    values, pairs = [], [(s, t) for s in subsets for t in subsets if set(s) < set(t)]
    assert len(pairs) == 12
    for i in range(8):
        found = [max(0, p[s][i].max() - p[t][i].max()) for s, t in pairs
                 if all(batch["present"][m][i] for m in t)]
        values += [np.mean(found)] if found else []
    assert 0 < len(values) < 8
    np.testing.assert_allclose(metrics["loss/overconfidence"], 2 * np.mean(values), rtol=1e-4)
    np.testing.assert_allclose(
        metrics["loss/fused"], -np.log(p["a", "b", "c"][np.arange(8), batch["label"]]).mean(), rtol=1e-4)
