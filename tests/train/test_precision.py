"""Computation in bfloat16: everything that is kept, added up or scored stays float32."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.batch import take
from jaxmm.config import EncoderConfig
from jaxmm.methods import METHODS
from jaxmm.train import setup as setup_lib

HALF = EncoderConfig(name="mlp", width=6, depth=1, dtype="bfloat16")


def types(tree):
    return {x.dtype for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)}


@pytest.mark.parametrize("name", sorted(
    name for name, entry in METHODS.items() if not entry.dense and name != "ume"))      # which makes no step
def test_state_loss_and_logits_of_every_method(name, make_dataset, make_config):
    dataset = make_dataset(missing=True)
    setup = setup_lib.build(make_config(name, encoder=HALF), dataset=dataset,
                            devices=jax.devices()[:1])
    method = setup.make_method(None, {})
    batch = take(dataset.splits["train"], np.arange(8))
    state = jax.eval_shape(method.init, jax.random.key(0), batch)
    phases = method.step if isinstance(method.step, dict) else {"": method.step}
    stepped, metrics = {}, {}
    for phase, step in phases.items():
        stepped[phase], metrics[phase] = jax.eval_shape(step, state, batch)
    logits = jax.eval_shape(method.predict, state, batch)
    features = jax.eval_shape(method.features, state, batch)
    assert types((state, stepped, metrics, logits, features)) == {jnp.dtype("float32")}
    text = str(jax.make_jaxpr(method.predict)(state, batch))
    assert "bf16" in text or not state.params["sound"]      # the encoders do compute in it, if there are any
