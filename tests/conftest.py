"""Runs every test on eight virtual CPU devices.

XLA_FLAGS in the environment is kept, in the processes that tests start too, so that other rounding can be
tried: XLA_FLAGS="--xla_backend_optimization_level=0 --xla_cpu_max_isa=SSE4_2" python -m pytest
"""
import contextlib
import ctypes
import gc
import importlib.util
import mmap
import os
import pathlib
import resource
import signal
import site

# A home folder in the checkout, for what is kept from run to run: nothing is read from that of the user, and
# nothing written there.
HOME = pathlib.Path(__file__).resolve().parents[1] / ".pytest_cache" / "home"
with contextlib.suppress(OSError):
    HOME.mkdir(parents=True, exist_ok=True)
for variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
    os.environ.pop(variable, None)
os.environ |= {"PYTHONUSERBASE": site.getuserbase(), "HOME": str(HOME)}

# Jobs in the background of a shell ignore interrupts, and those of nohup hang-ups; what tests start and stop must not.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, lambda number, frame: None)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

# Programs here are small and run a few times: most of the time is what XLA takes to compile them.
FAST_TO_COMPILE = {"xla_backend_optimization_level": "0", "xla_cpu_use_fusion_emitters": "false",
                   "xla_cpu_parallel_codegen_split_count": "1"}


def _known_flags() -> str:
    """Those of `FAST_TO_COMPILE` that this jaxlib has: one that it has not ends the process."""
    library = pathlib.Path(importlib.util.find_spec("jaxlib").origin).with_name("libjax_common.so")
    with contextlib.suppress(OSError), open(library, "rb") as file, \
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as found:
        return " ".join(f"--{name}={value}" for name, value in FAST_TO_COMPILE.items()
                        if found.find(name.encode() + b"\0") >= 0)
    return ""


# Read when the backend starts: the collectives of several virtual devices need a thread each,
# more than a small machine has cores, or an asynchronous loop of them deadlocks.
os.environ["NPROC"] = "16"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", _known_flags())
# Programs are kept by their flags, those of the processes that tests start too.
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import numpy as np
import psutil
import pytest

from jaxmm.batch import make_batch
from jaxmm.caches import cache_folder
from jaxmm.config import Config, EncoderConfig, MethodConfig, OptimizerConfig, TrainConfig
from jaxmm.data.dataset import Dataset
from jaxmm.methods import method_config
from jaxmm.train import setup as setup_lib
from jaxmm.train.options import to_dict

jax.config.update("jax_num_cpu_devices", 8)
with contextlib.suppress(OSError):      # where no folder can be made they are compiled every time
    (cache_folder() / "xla").mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _collect_new() -> None:
    """Garbage among what was made since the last call. Looking for it in all that is imported and compiled,
    time and again, took a tenth of the suite."""
    gc.collect()
    gc.freeze()
    gc.disable()


@pytest.fixture(autouse=True, scope="module")
def _collected():
    _collect_new()


@pytest.fixture(autouse=True)
def _little_memory():
    """Compiled programs, and what hangs on them, are kept from test to test until this process has 2.5 GiB."""
    yield
    if psutil.Process().memory_info().rss > 2.5 * 2**30 and len(jax.devices()[0].client.live_executables()) > 100:
        jax.clear_caches()
        gc.unfreeze()
        _collect_new()
        with contextlib.suppress(AttributeError, OSError):      # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)             # which gives it back


SHAPES = {"sound": (3,), "image": (5,), "flow": (4,)}


def _make_dataset(shapes=None, *, rows=(32, 16, 16), classes=3, missing=False, seed=0,
                  noise=1.0) -> Dataset:
    """A small problem: class means plus noise in every modality.

    With noise of 0.05 a class is right or wrong as a whole, whatever the rounding of the processor.
    """
    shapes = shapes or {m: SHAPES[m] for m in ("sound", "image")}
    rng = np.random.default_rng(seed)
    means = {m: 2 * rng.normal(size=(classes, *shape)) for m, shape in shapes.items()}
    splits = {}
    for split, n in zip(("train", "val", "test"), rows):
        label = np.arange(n) % classes
        inputs = {m: (means[m][label] + noise * rng.normal(size=(n, *shape))).astype(np.float32)
                  for m, shape in shapes.items()}
        present = {}
        if missing:
            drawn = rng.random((len(shapes), n)) < 0.6
            drawn[rng.integers(len(shapes), size=n), np.arange(n)] = True
            present = dict(zip(shapes, drawn))
        splits[split] = make_batch(inputs, label, present=present)
    return Dataset("tiny", splits, tuple(f"class {c}" for c in range(classes)))


def _make_config(method: MethodConfig | str = "concat", *, encoder=None, modalities=("sound", "image"),
                 optimizer=None, **train) -> Config:
    """A config for `make_dataset`: small networks, few steps."""
    config = Config(
        method=method_config(method) if isinstance(method, str) else method,
        optimizer=optimizer or OptimizerConfig(learning_rate=0.1, schedule="constant"),
        train=TrainConfig(**{"epochs": 2, "batch_size": 8} | train))
    if hasattr(config.method, "blocks"):
        config.method.blocks = min(config.method.blocks, 2)
    if hasattr(config.method, "expansion"):
        config.method.expansion = min(config.method.expansion, 8)
    if config.method.name == "unimodal" and not config.method.modality:
        config.method.modality = next(iter(modalities))
    if isinstance(method, str) and hasattr(config.method, "k"):
        config.method.k = 2     # inputs have few numbers
    if isinstance(method, str) and method in ("opm", "smv"):
        config.method.warmup_epochs = 0     # few runs would get past the default
    for m in modalities:
        config.encoders[m] = encoder or EncoderConfig(name="mlp", width=6, depth=1)
    return config


@pytest.fixture(scope="session")
def make_dataset():
    return _make_dataset


@pytest.fixture(scope="session")
def make_config():
    return _make_config


@pytest.fixture(scope="session")
def layouts():
    """The module layouts.py beside this file: makers of data sets as users have them on disk."""
    path = pathlib.Path(__file__).with_name("layouts.py")
    spec = importlib.util.spec_from_file_location("layouts", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def compiled_once(monkeypatch):
    """Runs of one config in a test, such as one that goes on, share what they compile, as those of several seeds do."""
    build, known = setup_lib.build, {}

    def build_like(config, *, dataset=None, devices=None, like=None, **kwargs):
        key = repr(to_dict(config)), id(dataset), tuple(devices or ())
        like = like or known.get(key, (None,))[0]
        setup = build(config, dataset=dataset, devices=devices, like=like, **kwargs)
        known[key] = setup, dataset     # which keeps its id
        return setup

    monkeypatch.setattr(setup_lib, "build", build_like)


@pytest.fixture
def full_disk():
    """with full_disk(size): no file of this process may grow beyond `size` bytes."""
    @contextlib.contextmanager
    def limit(size=50_000):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limit


def _vit_arrays(seed=0, width=8, patch=4, grid=(2, 2), channels=3) -> dict[str, np.ndarray]:
    """The weights of a ViT with one block, under the names that released ones have."""
    rng, d = np.random.default_rng(seed), width
    shapes = {"cls_token": (1, 1, d), "pos_embed": (1, 1 + grid[0] * grid[1], d), "norm.weight": (d,), "norm.bias": (d,),
              "patch_embed.proj.weight": (d, channels, patch, patch), "patch_embed.proj.bias": (d,)}
    layers = {"norm1": (d,), "norm2": (d,), "attn.qkv": (3 * d, d), "attn.proj": (d, d), "mlp.fc1": (4 * d, d),
              "mlp.fc2": (d, 4 * d)}
    for name, shape in layers.items():
        shapes |= {f"blocks.0.{name}.weight": shape, f"blocks.0.{name}.bias": shape[:1]}
    return {name: 0.3 * rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def vit_arrays():
    return _vit_arrays
