"""Runs every test on eight virtual CPU devices."""
import os

# Read when the backend starts: the collectives of several virtual devices need a thread each,
# more than a small machine has cores, or an asynchronous loop of them deadlocks.
os.environ["NPROC"] = "16"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/jaxmm/xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
