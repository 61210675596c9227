"""ESANet and its parts against the code of their authors, run on small random networks; see `about` in the files."""
import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.encoders import make_encoder
from jaxmm.encoders.conv import Conv
from jaxmm.encoders.decoder import Context, Module, Upsample
from jaxmm.encoders.exchange import se_add
from jaxmm.encoders.norm import batch_norm
from jaxmm.encoders.resnet import NonBottleneck1D
from jaxmm.losses import weighted_mean
from jaxmm.methods.segment import SegmentConfig, segmenting_model
from jaxmm.model import Model
from jaxmm.pretrained import names

FOLDER = pathlib.Path(__file__).parent


class Segmentation(NamedTuple):
    size: int = 5


@functools.cache
def fixture(model):
    with np.load(FOLDER / f"{model}.npz", allow_pickle=False) as file:
        return {key: file[key].astype(np.float32) for key in file if key != "about"}


def under(prefix, found):
    return {key.removeprefix(prefix): x for key, x in found.items() if key.startswith(prefix)}


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def last(x):
    """[B, C, H, W] -> [B, H, W, C]."""
    return x.transpose(0, 2, 3, 1)


def kernel(x):
    """[O, I, h, w] -> [h, w, I, O]."""
    return x.transpose(2, 3, 1, 0)


# Parameters and statistics of our modules from released names; `prefix` ends with a dot.

def conv(arrays, prefix):
    found = {"kernel": kernel(arrays[f"{prefix}weight"])}
    return found | ({"bias": arrays[f"{prefix}bias"]} if f"{prefix}bias" in arrays else {})


def norm(arrays, prefix):
    return ({"scale": arrays[f"{prefix}weight"], "bias": arrays[f"{prefix}bias"]},
            {part: arrays[f"{prefix}running_{part}"] for part in ("mean", "var")})


def together(**parts):
    """(params, stats) of a module from those of its parts."""
    return {name: p for name, (p, _) in parts.items()}, {name: s for name, (_, s) in parts.items() if s}


def conv_norm(arrays, prefix, names=("conv.", "bn.")):
    return together(Conv_0=(conv(arrays, prefix + names[0]), {}), BatchNorm_0=norm(arrays, prefix + names[1]))


def block(arrays, prefix):
    convs = ["conv3x1_1.", "conv1x3_1.", "conv3x1_2.", "conv1x3_2.", "downsample.0."]
    norms = ["bn1.", "bn2.", "downsample.1."]
    shortcut = f"{prefix}downsample.0.weight" in arrays
    return together(
        **{f"Conv_{i}": (conv(arrays, prefix + name), {}) for i, name in enumerate(convs[:4 + shortcut])},
        **{f"BatchNorm_{i}": norm(arrays, prefix + name) for i, name in enumerate(norms[:2 + shortcut])})


def context(arrays, prefix):
    return together(bins_0=conv_norm(arrays, f"{prefix}features.0.1."), bins_1=conv_norm(arrays, f"{prefix}features.1.1."),
                    out=conv_norm(arrays, f"{prefix}final_conv."))


def module(arrays, prefix, blocks):
    return together(ConvNormReLU_0=conv_norm(arrays, f"{prefix}conv3x3."), **{
        f"block_{i}": block(arrays, f"{prefix}decoder_blocks.{i}.") for i in range(blocks)})


def upsampling(arrays, prefix):
    return {"kernel": arrays[f"{prefix}conv.weight"][:, 0].transpose(1, 2, 0), "bias": arrays[f"{prefix}conv.bias"]}


def excitation(arrays, prefix):
    def linear(name):
        return {"kernel": arrays[f"{prefix}fc.{name}.weight"][:, :, 0, 0].T, "bias": arrays[f"{prefix}fc.{name}.bias"]}

    return {"squeeze": linear(0), "excite": linear(2)}


NORM = functools.partial(batch_norm, None, mask=None)
BLOCKS = {      # name in the file: the module for (train), its parameters, our places of released parameters
    "nbt1d": (lambda train: NonBottleneck1D(10, 2, Conv, NORM(train)), block,
              {"conv3x1_1.weight": ("Conv_0", "kernel"), "conv3x1_1.bias": ("Conv_0", "bias"),
               "downsample.0.weight": ("Conv_4", "kernel")}),
    "nbt1d_plain": (lambda train: NonBottleneck1D(6, 1, Conv, NORM(train)), block,
                    {"conv1x3_2.weight": ("Conv_3", "kernel"), "bn2.weight": ("BatchNorm_1", "scale"),
                     "conv3x1_2.bias": ("Conv_2", "bias")}),
    **dict.fromkeys(("context", "context_uneven"), (
        lambda train: Context(8, Conv, NORM(train)), context,
        {"features.0.1.conv.weight": ("bins_0", "Conv_0", "kernel"),
         "features.1.1.conv.weight": ("bins_1", "Conv_0", "kernel"),
         "final_conv.conv.weight": ("out", "Conv_0", "kernel")}))}


@pytest.mark.parametrize("name", BLOCKS)
def test_parts_are_those_of_the_authors(name):
    make, parameters, places = BLOCKS[name]
    truth = fixture("esanet_blocks")
    arrays = under(f"weights/{name}.", truth) | under(f"stats/{name}.", truth)
    params, stats = parameters(arrays, "")
    x = last(truth[f"input/{name}/x"])

    def trained(params):
        y, _ = make(True).apply({"params": params, "batch_stats": stats}, x, mutable=["batch_stats"])
        return (y ** 2).sum(), y

    y = make(False).apply({"params": params, "batch_stats": stats}, x)
    close(y, last(truth[f"output/{name}/eval_0"]))
    grads, y = jax.jit(jax.grad(trained, has_aux=True))(params)
    close(y, last(truth[f"output/{name}/train_0"]), 5e-5)
    for released, place in places.items():
        expected = truth[f"output/{name}/gradient/{released}"]
        close(functools.reduce(lambda tree, key: tree[key], place, grads),
              kernel(expected) if expected.ndim == 4 else expected, 1e-4)


def test_squeeze_and_excitation_is_that_of_the_authors():
    truth = fixture("esanet_blocks")
    arrays = under("weights/se_add.", truth)
    params = {m: excitation(arrays, f"se_{m}.") for m in ("rgb", "depth")}
    maps = {m: last(truth[f"input/se_add/{m}"]) for m in params}
    present = {m: np.ones(3, bool) for m in params}
    exchange = se_add((0,), "rgb")

    def loss(params):
        found, _ = exchange.apply(params, {}, maps, present, train=True, mean=weighted_mean)
        return (found["rgb"] ** 2).sum(), found

    grads, found = jax.jit(jax.grad(loss, has_aux=True))(params)
    close(found["rgb"], last(truth["output/se_add/eval_0"]))
    np.testing.assert_array_equal(found["depth"], maps["depth"])
    expected = under("output/se_add/gradient/", truth)
    close(grads["rgb"]["squeeze"]["kernel"].T, expected["se_rgb.fc.0.weight"][:, :, 0, 0], 1e-4)
    close(grads["depth"]["excite"]["kernel"].T, expected["se_depth.fc.2.weight"][:, :, 0, 0], 1e-4)
    close(grads["depth"]["excite"]["bias"], expected["se_depth.fc.2.bias"], 1e-4)


def decoder(arrays, blocks):
    """(params, stats) of `PyramidDecoder`; the files' widths leave skips as they are where they fit."""
    skips = {f"skip_{i}": conv_norm(arrays, f"skip_layer{3 - i}.0.") for i in range(3)
             if f"skip_layer{3 - i}.0.conv.weight" in arrays}
    return together(
        context=context(arrays, "context_module."), **skips,
        **{f"module_{i}": module(arrays, f"decoder.decoder_module_{i + 1}.", blocks) for i in range(3)},
        **{f"upsample_{i}": (upsampling(arrays, f"decoder.decoder_module_{i + 1}.upsample."), {}) for i in range(3)})


def head(arrays):
    sides = {f"side_{scale}": conv(arrays, f"decoder.decoder_module_{i}.side_output.")
             for i, scale in ((1, 32), (2, 16), (3, 8))}
    return {"out": sides | {"fused": conv(arrays, "decoder.conv_out.")},
            **{f"upsample_{i}": upsampling(arrays, f"decoder.upsample{i + 1}.") for i in range(2)}}


WHOLE = {       # modality: where its encoder and its squeezes are in the file; the main one comes first
    "esanet_rgbd": {"rgb": ("encoder_rgb.", "se_rgb."), "depth": ("encoder_depth.", "se_depth.")},
    "esanet_rgb": {"rgb": ("encoder.", "")}}


@pytest.mark.parametrize("name", WHOLE)
def test_the_whole_is_that_of_the_authors(name):
    """Encoders come through the converter, which tells them apart by the number of channels."""
    truth = fixture(name)
    arrays = under("weights/", truth) | under("stats/", truth)
    inputs = {m: last(truth[f"input/{m}"]) for m in WHOLE[name]}
    batch = {"inputs": inputs, "present": {m: np.ones(3, bool) for m in inputs}}
    encoders = {m: make_encoder(EncoderConfig("esanet18", width=16), 3) for m in inputs}
    model = segmenting_model(SegmentConfig(decoder_width=64, decoder_blocks=1), Model(
        encoders, Segmentation(), None, None, None, 3, 3))
    params: dict[str, Any] = {"head": head(arrays)}
    stats: dict[str, Any] = {"exchange": {f"stage_{i}": {} for i in range(5)}}
    params["decoder"], stats["decoder"] = decoder(arrays, 1)
    params["exchange"] = {f"stage_{i}": {m: excitation(arrays, f"se_layer{i}.{prefix}") for m, (_, prefix) in
                                         WHOLE[name].items()} for i in range(5)}
    for m, encoder in encoders.items():
        like = dict(zip(("params", "batch_stats"), jax.eval_shape(encoder.init, jax.random.key(0), inputs[m])))
        tree = names.to_tree(arrays, "esanet18", "image", like)
        params[m], stats[m] = tree["params"], tree["batch_stats"]

    def trained(params):
        outputs = model.run(params, stats, batch, train=True).outputs
        return sum((z ** 2).mean() for z in outputs.values()), outputs

    @jax.jit
    def evaluated_and_trained(params):
        return model.run(params, stats, batch, train=False), jax.grad(trained, has_aux=True)(params)

    out, (grads, outputs) = evaluated_and_trained(params)
    released = {"fused": "out", **{f"side_{r}": f"side_{r}" for r in (8, 16, 32)}}
    for ours, theirs in released.items():
        close(out.outputs[ours], last(truth[f"output/eval_{theirs}"]))
        close(outputs[ours], last(truth[f"output/train_{theirs}"]), 3e-4)
    close(out.taps["rgb"][0][:, ::4, ::4], last(truth["output/eval_map_stem"]))
    close(out.taps["rgb"][4], last(truth["output/eval_map_stage_4"]))
    expected = under("output/gradient/", truth)
    encoder, se = next(iter(WHOLE[name].values()))[0], list(WHOLE[name].values())[-1][1]
    m = list(inputs)[-1]
    close(grads["rgb"]["NonBottleneck1D_2"]["Conv_1"]["kernel"],
          kernel(expected.pop(f"{encoder}layer2.0.conv1x3_1.weight")), 1e-3)
    close(grads["head"]["upsample_0"]["kernel"],
          expected.pop("decoder.upsample1.conv.weight")[:, 0].transpose(1, 2, 0), 1e-3)
    close(grads["exchange"]["stage_1"][m]["squeeze"]["kernel"].T,
          expected.pop(f"se_layer1.{se}fc.0.weight")[:, :, 0, 0], 1e-3)
    assert not expected


def test_a_module_of_the_decoder_is_that_of_the_authors():
    """The map behind it, its skip added, and its side output."""
    truth = fixture("esanet_blocks")
    arrays = under("weights/decoder.", truth) | under("stats/decoder.", truth)
    params, stats = module(arrays, "", 3)
    layers = {"up": upsampling(arrays, "upsample."), "side": conv(arrays, "side_output.")}
    x, skip = (last(truth[f"input/decoder/{name}"]) for name in ("x", "skip"))

    def outputs(params, layers, train):
        y, _ = Module(8, 3, Conv, NORM(train)).apply({"params": params, "batch_stats": stats}, x,
                                                     mutable=["batch_stats"])
        return (Upsample().apply({"params": layers["up"]}, y) + skip,
                y @ layers["side"]["kernel"][0, 0] + layers["side"]["bias"])

    def loss(params, layers):
        found = outputs(params, layers, True)
        return sum((y ** 2).sum() for y in found), found

    for i, y in enumerate(outputs(params, layers, False)):
        close(y, last(truth[f"output/decoder/eval_{i}"]))
    grads, found = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(params, layers)
    for i, y in enumerate(found):
        close(y, last(truth[f"output/decoder/train_{i}"]), 5e-5)
    expected = under("output/decoder/gradient/", truth)
    close(grads[0]["ConvNormReLU_0"]["Conv_0"]["kernel"], kernel(expected["conv3x3.conv.weight"]), 1e-4)
    close(grads[1]["up"]["kernel"], expected["upsample.conv.weight"][:, 0].transpose(1, 2, 0), 1e-4)
    close(grads[1]["side"]["kernel"], kernel(expected["side_output.weight"]), 1e-4)
