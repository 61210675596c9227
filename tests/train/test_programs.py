import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.train import programs


ALL_KNOW = {"xla_cpu_enable_fast_math": False}


@pytest.mark.parametrize("options, known", [({}, {}), ({"xla_no_such_option": "1"}, {}), (ALL_KNOW, ALL_KNOW),
                                            ({"xla_no_such_option": "1"} | ALL_KNOW, ALL_KNOW)])
def test_options_that_xla_does_not_know_are_left_out(options, known, monkeypatch):
    """One by one; and a program is the same with and without, alone, inside another one and lowered."""
    monkeypatch.setattr(programs, "CPU_OPTIONS", options)
    programs.compiler_options.cache_clear()
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    try:
        assert programs.compiler_options("gpu") == {}
        assert programs.compiler_options("cpu") == known
        whole = programs.jit_whole(lambda x, y: x @ y.T, "cpu")
        np.testing.assert_allclose(whole.lower(x, x).compile()(x, x), [[5, 14], [14, 50]])
        np.testing.assert_allclose(whole(x, x), [[5, 14], [14, 50]])
        np.testing.assert_allclose(jax.jit(lambda x: whole(x, x))(x), [[5, 14], [14, 50]])
        np.testing.assert_allclose(jax.grad(lambda x: whole(x, jnp.ones((2, 3))).sum())(x), np.full((2, 3), 2))
    finally:
        programs.compiler_options.cache_clear()
