"""Released names against the trees of our encoders; nothing is computed with them here."""
import functools
import pathlib
import re

import chex
from flax import traverse_util
import jax
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.encoders import make_encoder
from jaxmm.errors import UserError
from jaxmm.pretrained import names
from jaxmm.pretrained.tables import resized

FOLDER = pathlib.Path(__file__).parent
MODELS = {"m3ae": "M3AE (image_embedding, text_embedding)", "cav_mae": "CAV-MAE (blocks_a.*)",
          "clip": "CLIP (vision_model.*, text_model.*)", "bert": "BERT", "vit": "ViT", "dinov2": "DINOv2",
          "resnet_basic": "ResNet-18", "resnet_bottleneck": "ResNet-17", "resnet3d18": "ResNet3D-18",
          "esanet_rgbd": "ESANet-18", "esanet_rgb": "ESANet-18", "slow": "Slow-14", "slowfast": "SlowFast-14", "avslowfast": "AVSlowFast-14 (pathway0, pathway1, pathway2)"}


@functools.cache
def released(model):
    """The arrays of a fixture by released name."""
    with np.load(FOLDER / f"{model}.npz", allow_pickle=False) as file:
        return {key.split("/", 1)[1]: file[key] for key in file if key.startswith(("weights/", "stats/"))}


def tree_like(network, kind, *, shape, vocabulary=50, **options):
    """Shapes of the parameters of an encoder for inputs of this shape."""
    encoder = make_encoder(EncoderConfig(network, **options), len(shape),
                           num_tokens=vocabulary if kind == "text" else 0)
    x = jax.ShapeDtypeStruct((1, *shape), np.int32 if kind == "text" else np.float32)
    params, batch_stats = jax.eval_shape(encoder.init, jax.random.key(0), x)
    return {"params": params, "batch_stats": batch_stats} if batch_stats else {"params": params}


def loaded(arrays, network, kind, shape, **options):
    found = names.sizes(arrays, network, kind) | {"heads": 4} | options
    network = found.pop("name", network)
    return names.to_tree(arrays, network, kind, tree_like(network, kind, shape=shape, **found), shape)


TOWERS = {      # fixture, kind of modality, shape of an input
    "m3ae image": ("m3ae", "image", (32, 32, 3)), "m3ae text": ("m3ae", "text", (6,)),
    "cav_mae": ("cav_mae", "audio", (64, 32)), "bert": ("bert", "text", (9,)), "vit": ("vit", "image", (32, 32, 3)),
    "clip image": ("clip", "image", (32, 32, 3)), "clip text": ("clip", "text", (16,)),
    "dinov2": ("vit", "image", (28, 28, 3))}


@functools.cache
def tower(name):
    network, kind, shape = TOWERS[name]
    return loaded(released(name.split()[0]), network, kind, shape)


@pytest.mark.parametrize("model", MODELS)
def test_a_file_is_known_by_its_names(model):
    assert names.detect(released(model)) == MODELS[model]
    assert names.detect([f"module.{name}" for name in released(model)]) == MODELS[model]


def test_what_is_not_known():
    assert names.detect(["a.weight", "b.bias"]) == names.detect([]) == ""
    assert names.detect([*released("dinov2"), "embeddings.register_tokens"]) == "DINOv2 with registers"


def renamed(arrays, *pairs, parts=(), fused=""):
    """The arrays under other names, by pairs of pattern and name; `parts` of a name become one array."""
    found = {}
    for name, array in arrays.items():
        for old, new in pairs:
            name = re.sub(old, new, name)
        found[name] = array
    for name in [name for name in found if parts and parts[0] in name]:
        found[name.replace(parts[0], fused)] = np.concatenate([found.pop(name.replace(parts[0], p)) for p in parts])
    return found


def timm(model):
    return renamed(
        released(model), ("embeddings.patch_embeddings.projection", "patch_embed.proj"), ("^layernorm", "norm"),
        ("embeddings.cls_token", "cls_token"), ("embeddings.position_embeddings", "pos_embed"),
        (r"encoder\.layer", "blocks"), ("attention.output.dense", "attn.proj"), ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
        ("layer_scale(.).lambda1", r"ls\1.gamma"),
        parts=[f"attention.attention.{n}." for n in ("query", "key", "value")], fused="attn.qkv.")


def openai():
    found = renamed(
        released("clip"), ("vision_model.encoder.layers", "visual.transformer.resblocks"), ("vision_model", "visual"),
        ("text_model.encoder.layers", "transformer.resblocks"), ("text_model.", ""), ("embeddings.", ""),
        ("patch_embedding", "conv1"), ("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post"),
        ("final_layer_norm", "ln_final"), ("layer_norm", "ln_"), ("self_attn", "attn"), ("fc1", "c_fc"),
        ("fc2", "c_proj"), ("position_embedding.weight", "positional_embedding"),
        ("visual_projection.weight", "visual.proj"), ("text_projection.weight", "text_projection"),
        parts=[f"attn.{n}_proj." for n in "qkv"], fused="attn.in_proj_")
    return {name: array.T if name in ("visual.proj", "text_projection") else array for name, array in found.items()}


def mla():
    """The port of M3AE to PyTorch."""
    arrays = {name: array.T if name.endswith("kernel") else array for name, array in released("m3ae").items()}
    return renamed(
        arrays, ("^", "module."), ("/", "."), ("Block_", "blocks."), (r"coder\.LayerNorm_0", "coder.layer_norm"),
        ("TransformerMLP_0", "transformer_mlp"), ("Attention_0.Dense_0", "attention.qkv_linear"),
        ("Attention_0.Dense_1", "attention.fc"), ("LayerNorm_0", "layer_norm1"), ("LayerNorm_1", "layer_norm2"),
        (r"\.(kernel|scale|embedding)$", ".weight"))


VARIANTS = {    # other names of the same models: how they are made of those in the fixture, and the encoder
    "timm": (lambda: timm("vit"), "vit"), "DINOv2's own": (lambda: timm("dinov2"), "dinov2"),
    "OpenAI": (openai, "clip image"), "OpenAI text": (openai, "clip text"),
    "MLA image": (mla, "m3ae image"), "MLA text": (mla, "m3ae text"),
    "flax by dots": (lambda: renamed(released("m3ae"), ("^", "params."), ("/", ".")), "m3ae text"),
    "first BERT": (lambda: renamed(released("bert"), ("^", "bert."), ("LayerNorm.weight", "LayerNorm.gamma"),
                                   ("LayerNorm.bias", "LayerNorm.beta")), "bert"),
    "no prefix": (lambda: renamed(released("cav_mae"), ("module.", "")), "cav_mae"),
    "float16": (lambda: {n: a.astype(np.float16) for n, a in released("vit").items()}, "rounded vit")}


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_names_of_a_model_give_the_same_tree(variant):
    make, name = VARIANTS[variant]
    arrays, name = make(), name.removeprefix("rounded ")
    expected = tower(name)
    if variant == "float16":
        expected = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), expected)
    found = loaded(arrays, *TOWERS[name])
    chex.assert_trees_all_equal(found, expected)
    chex.assert_type(jax.tree.leaves(found), np.float32)
    assert names.detect(arrays).split(" ")[0] == MODELS[name.split()[0]].split(" ")[0]


def enlarged(model, depth, dims):
    """Arrays (without memory) of a larger model: sizes by those of the fixture, blocks as the last one there."""
    found = {}
    for name, array in released(model).items():
        shape = [dims.get(size, size) for size in array.shape]
        numbers = [2, *range(3, depth)] if re.search(r"[./](layers?|Block)[._]2\b", name) else [0]
        for i in numbers:
            found[re.sub(r"(layers?|Block)([._])2\b", rf"\1\g<2>{i}", name)] = np.broadcast_to(np.float32(0), shape)
    return found


BASE = {32: 768, 128: 3072, 96: 2304}


@pytest.mark.parametrize("name, depth, shape, dims, leaves, size", [
    ("m3ae image", 12, (256, 256, 3), BASE | {192: 768}, 198, 85_648_128),
    ("m3ae text", 12, (256,), BASE | {192: 768, 50: 30522}, 197, 108_498_432),
    ("cav_mae", 12, (1024, 128), BASE | {8: 512}, 197, 85_646_592),
    ("clip image", 12, (224, 224, 3), BASE | {8: 32, 17: 50, 24: 512}, 200, 87_849_216),
    ("clip text", 12, (77,), {32: 512, 128: 2048, 50: 49408, 16: 77, 24: 512}, 197, 63_428_096),
    ("bert", 12, (512,), BASE | {50: 30522, 16: 512}, 196, 108_890_112),
    ("bert", 6, (512,), {32: 384, 128: 1536, 50: 30522, 16: 512}, 100, 22_564_608),
    ("vit", 12, (224, 224, 3), BASE | {8: 16, 17: 197}, 198, 85_798_656),
    ("dinov2", 12, (518, 518, 3), {32: 384, 128: 1536, 5: 1370}, 222, 22_056_192)])
def test_a_released_model_has_each_parameter_of_the_encoder_once(name, depth, shape, dims, leaves, size):
    arrays, (network, kind, _) = enlarged(name.split()[0], depth, dims), TOWERS[name]
    found = names.sizes(arrays, network, kind)
    assert found["depth"] == depth and found["width"] == dims[32]
    assert found.get("heads", 0) == (12 if dims[32] == 384 and name == "bert" else 0)
    network = found.pop("name", network)
    like = tree_like(network, kind, shape=shape, vocabulary=dims.get(50), **found)
    tree = names.to_tree(arrays, network, kind, like, shape)
    chex.assert_trees_all_equal_shapes(tree, like)
    sizes = [leaf.size for leaf in jax.tree.leaves(tree)]
    assert (len(sizes), sum(sizes)) == (leaves, size)
    unused = {re.sub(r"\d+", "N", n) for n in arrays.keys() - names.used_names(arrays, network, kind)}
    assert not {n for n in unused if not re.search(UNUSED.get(name, "$^"), n)}


UNUSED = {      # what encoders leave out
    "m3ae image": "decoder|mask_embedding|text", "m3ae text": "decoder|mask_embedding|image",
    "cav_mae": r"modality_v|norm_v|mlp_head|norm\d_[av]|normN_[av]|blocks_u.N.normN.|module.norm\.", "bert": "pooler",
    "vit": "pooler", "dinov2": "mask_token", "clip image": "text_|logit_scale", "clip text": "vi|logit_scale"}


@pytest.mark.parametrize("network, stages, leaves, size", [
    ("resnet18", (2, 2, 2, 2), 60 + 40, 11_176_512), ("resnet34", (3, 4, 6, 3), 108 + 72, 21_284_672),
    ("resnet50", (3, 4, 6, 3), 159 + 106, 23_508_032)])
def test_a_resnet_has_each_parameter_once(network, stages, leaves, size):
    like = tree_like(network, "image", shape=(64, 64, 3), stem="standard")
    params = jax.tree.leaves(like["params"])
    assert sum(leaf.size for leaf in params) == size
    assert len(params) + len(jax.tree.leaves(like["batch_stats"])) == leaves
    blocks = [f"layer{stage}.{i}" for stage, count in enumerate(stages, 1) for i in range(count)]
    arrays = {"fc.weight": np.zeros(()), "fc.bias": np.zeros(())}
    for path, leaf in traverse_util.flatten_dict(like, sep="/").items():
        collection, *place, last = path.split("/")
        kind, n = place[-1].split("_")
        block = blocks[int(place[0].split("_")[1])] + "." if len(place) == 2 else ""
        convs = 3 if network == "resnet50" else 2
        shortcut = block and int(n) == convs
        name = f"downsample.{int(kind != 'Conv')}" if shortcut else f"{'conv' if kind == 'Conv' else 'bn'}{int(n) + 1}"
        ending = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}.get(last, last)
        shape = [leaf.shape[axis] for axis in (3, 2, 0, 1)] if last == "kernel" else leaf.shape
        arrays[f"{block}{name}.{ending}"] = np.broadcast_to(np.float32(0), shape)
    assert names.detect(arrays) == network.replace("resnet", "ResNet-")
    assert names.sizes(arrays, network, "image") == {"width": 64, "stem": "standard"}
    chex.assert_trees_all_equal_shapes(names.to_tree(arrays, network, "image", like), like)
    assert arrays.keys() - names.used_names(arrays, network, "image") == {"fc.weight", "fc.bias"}


def of_pyslowfast(name):
    """A name of pytorchvideo's SlowFast, as PySlowFast writes it."""
    place = re.match(r"blocks\.(\d)\.(?:multipathway_(?:blocks\.(\d)|fusion)\.)?(.*)", name)
    stage, path, rest = int(place[1]) + 1, place[2] or 0, place[3]
    if "fusion" in name:
        return f"s{stage}_fuse.{rest.replace('conv_fast_to_slow', 'conv_f2s').replace('norm', 'bn')}"
    if not rest.startswith("res_blocks"):
        return f"s1.pathway{path}_stem.{rest.replace('norm', 'bn')}" if stage == 1 else f"head.{rest}"
    number, rest = re.match(r"res_blocks\.(\d+)\.(.*)", rest).groups()
    rest = re.sub(r"norm_([abc])", r"\1_bn", rest).replace("conv_", "").replace("1_conv", "1").replace("1_norm", "1_bn")
    return f"s{stage}.pathway{path}_res{number}.{rest}"


@pytest.mark.parametrize("model, network, frames", [("slow", "slow14", 4), ("slowfast", "slowfast14", 8)])
def test_pathways_under_the_names_of_pyslowfast(model, network, frames):
    arrays = released(model)
    other = {of_pyslowfast(name): array for name, array in arrays.items()}
    assert not other.keys() & arrays.keys() and len(other) == len(arrays)
    assert names.detect(other) == MODELS[model]
    trees = [loaded(found, network, "image", (frames, 64, 64, 3), heads=0) for found in (arrays, other)]
    chex.assert_trees_all_equal(*trees)
    assert {re.sub(r"^(head|blocks\.\d)\.", "", name) for name in other.keys() - names.used_names(
        other, network, "image")} <= {"proj.weight", "proj.bias"} | {
            name for name in other if name.endswith("num_batches_tracked")}


def without(arrays, *patterns):
    return {name: array for name, array in arrays.items() if not any(re.search(p, name) for p in patterns)}


@pytest.mark.parametrize("arrays, network, kind, message", [
    (lambda: released("clip"), "m3ae", "image", "holds CLIP (vision_model.*, text_model.*), expected M3AE"),
    (lambda: released("resnet_basic"), "vit", "image", "holds ResNet-18, expected ViT"),
    (lambda: released("bert"), "resnet34", "image", "holds BERT, expected ResNet-34"),
    (lambda: released("resnet_basic"), "resnet3d18", "image", "holds ResNet-18, expected ResNet3D-18"),
    (lambda: released("resnet3d18"), "slowfast50", "image", "holds ResNet3D-18, expected SlowFast-50"),
    (lambda: released("slowfast"), "separable50", "audio", "holds SlowFast-14, expected AVSlowFast-50"),
    (lambda: without(released("clip"), "text"), "clip", "text", "holds CLIP (vision_model.*), expected CLIP"),
    (lambda: {"a.weight": np.zeros(2)}, "bert", "text",
     "holds 1 arrays of no model that is known (a.weight), expected BERT"),
    (lambda: released("vit") | {"embeddings.register_tokens": np.zeros(2)}, "vit", "image",
     "holds DINOv2 with registers, expected ViT"),
    (lambda: released("bert") | {"bert.embeddings.word_embeddings.weight": np.zeros((50, 32))}, "bert", "text",
     "holds BERT more than once, as embeddings.word_embeddings.weight, bert.embeddings.word_embeddings.weight; "
     "keep one of them"),
    (lambda: released("bert"), "cav_mae", "text", "cav_mae takes audio, found text"),
    (lambda: released("bert"), "bert", "image", "bert takes text, found image"),
    (lambda: renamed(released("vit"), (r"0\.attention\.output\.dense", "0.attention.dense")), "vit", "image",
     "2 of 54 names of ViT are missing: encoder.layer.0.attention.output.dense.bias, "
     "encoder.layer.0.attention.output.dense.weight; in their place it has "
     "encoder.layer.0.attention.dense.bias, encoder.layer.0.attention.dense.weight")])
def test_files_that_hold_something_else(arrays, network, kind, message):
    with pytest.raises(UserError) as error:
        names.sizes(arrays(), network, kind)
    assert str(error.value) == message


@pytest.mark.parametrize("name, arrays, options, shape, vocabulary, message", [
    ("vit", {}, {"width": 16}, (32, 32, 3), 50, "holds ViT of width 32, the encoder has 16 (option width)"),
    ("vit", {}, {"depth": 2}, (32, 32, 3), 50, "holds ViT of depth 3, the encoder has 2 (option depth)"),
    ("vit", {}, {}, (32, 32, 1), 50, "takes 3 channels, found 1; a ResNet's file fits any number"),
    ("vit", {"encoder.layer.1.intermediate.dense.weight": np.zeros((5, 32)), "layernorm.bias": np.zeros(3)}, {},
     (32, 32, 3), 50, "2 of 54 arrays have another shape than the encoder needs (found, expected): layernorm.bias: "
     "[3], [32]; encoder.layer.1.intermediate.dense.weight: [5, 32], [128, 32]"),
    ("m3ae image", {"encoder/Block_0/Attention_0/Dense_0/kernel": np.zeros((32, 90))}, {}, (32, 32, 3), 50,
     "1 of 42 arrays have another shape than the encoder needs (found, expected): "
     "encoder/Block_0/Attention_0/Dense_0/kernel: [32, 90], [32, 96]"),
    ("clip text", {}, {}, (17,), 50, "takes texts of up to 16 tokens, found 17; lower `length`"),
    ("clip text", {}, {"features": 7}, (16,), 50,
     "1 of 53 arrays have another shape than the encoder needs (found, expected): "
     "text_projection.weight: [24, 32], [7, 32]"),
    ("bert", {}, {}, (9,), 51, "knows 50 words, found a vocabulary of 51; set `vocabulary` to the file that the model "
     "was trained with"),
    ("bert", {"embeddings.token_type_embeddings.weight": np.zeros((1, 32))}, {}, (9,), 50,
     "has 1 types of tokens, as RoBERTa, expected the 2 of BERT"),
    ("cav_mae", {}, {}, (96, 32), 50, "takes spectrograms of up to 4 x 2 patches of time and bands, found 6 x 2; set "
     "`columns` and `mels`")])
def test_arrays_that_do_not_fit_the_encoder(name, arrays, options, shape, vocabulary, message):
    network, kind, _ = TOWERS[name]
    arrays = released(name.split()[0]) | arrays
    found = names.sizes(arrays, network, kind) | {"heads": 4} | options
    like = tree_like(network, kind, shape=shape, vocabulary=vocabulary, **found)
    with pytest.raises(UserError) as error:
        names.to_tree(arrays, network, kind, like, shape)
    assert str(error.value) == message


def test_words_are_counted_in_the_file():
    shapes = {name: x.shape for name, x in released("bert").items()}
    assert names.num_words(shapes, "bert") == 50


def test_a_network_of_another_kind_is_refused():
    like = tree_like("vit", "image", shape=(28, 28, 3), width=32, depth=3, patch=14, heads=4)
    with pytest.raises(UserError, match="holds DINOv2, expected vit: 6 parameters differ, such as block_0/scale_1"):
        names.to_tree(released("dinov2"), "vit", "image", like)
    like = tree_like("resnet18", "image", shape=(32, 32, 3), width=8, stem="standard")
    with pytest.raises(UserError, match="holds ResNet-17, expected resnet18"):
        names.to_tree(released("resnet_bottleneck"), "resnet18", "image", like)


def test_shorter_inputs_take_what_they_need():
    text = loaded(released("bert"), "bert", "text", (5,))["params"]
    np.testing.assert_array_equal(text["positions"], tower("bert")["params"]["positions"][:5])
    sound = loaded(released("cav_mae"), "cav_mae", "audio", (32, 32))["params"]
    whole = tower("cav_mae")["params"]["positions"]     # by time, two bands each
    np.testing.assert_array_equal(sound["positions"], whole[:4])
    truth = released("cav_mae")
    np.testing.assert_array_equal(whole[3], truth["module.pos_embed_a"][0, 4 + 1] + truth["module.modality_a"][0, 0])


def test_the_layer_that_features_add_is_left_to_the_caller():
    like = tree_like("vit", "image", shape=(32, 32, 3), width=32, depth=3, patch=8, heads=4, features=7)
    assert like["params"]["Dense_0"]["kernel"].shape == (32, 7)
    chex.assert_trees_all_equal(names.to_tree(released("vit"), "vit", "image", like), tower("vit"))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_the_first_convolution_fits_the_channels(channels):
    like = tree_like("resnet18", "image", shape=(32, 32, channels), width=8, stem="standard")
    found = names.to_tree(released("resnet_basic"), "resnet18", "image", like)["params"]["Conv_0"]["kernel"]
    kernel = released("resnet_basic")["conv1.weight"]
    assert found.shape == (7, 7, channels, 8)
    for c in range(channels):
        expected = kernel.sum(1) if channels == 1 else kernel.mean(1) if channels == 2 else kernel[:, c]
        np.testing.assert_allclose(found[:, :, c], expected.transpose(1, 2, 0), rtol=1e-6)


def test_resizing_by_hand():
    """Weights of a cubic convolution a quarter of a pixel off: those of torch, with what is at the edge repeated."""
    near, far = -0.75 * (1.25**3 - 5 * 1.25**2 + 8 * 1.25 - 4), -0.75 * (1.75**3 - 5 * 1.75**2 + 8 * 1.75 - 4)
    inner = 1.25 * 0.25**3 - 2.25 * 0.25**2 + 1
    outer = 1.25 * 0.75**3 - 2.25 * 0.75**2 + 1
    row = np.array([1.0, 2.0, 4.0, 8.0])
    found = resized(row[None, :, None], (1, 8))[0, :, 0]
    np.testing.assert_allclose(found[3], near * 1 + inner * 2 + outer * 4 + far * 8, rtol=1e-6)
    np.testing.assert_allclose(found[0], far * 1 + outer * 1 + inner * 1 + near * 2, rtol=1e-6)
    square = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    np.testing.assert_allclose(resized(square, (3, 4)), square, rtol=1e-6)
    np.testing.assert_allclose(resized(np.ones((3, 3, 1)), (5, 2)), 1, rtol=1e-6)


@pytest.mark.parametrize("model, channels, prefix", [
    ("esanet_rgbd", 3, "encoder_rgb."), ("esanet_rgbd", 1, "encoder_depth."), ("esanet_rgb", 3, "encoder.")])
def test_of_the_two_encoders_of_esanet_the_number_of_channels_chooses(model, channels, prefix):
    arrays = released(model)
    assert names.sizes(arrays, "esanet18", "image") == {"width": 16}
    like = tree_like("esanet18", "image", shape=(64, 96, channels), width=16)
    assert names.num_channels(like) == channels
    tree = names.to_tree(arrays, "esanet18", "image", like)
    chex.assert_trees_all_equal_shapes(tree, like)
    np.testing.assert_array_equal(tree["params"]["Conv_0"]["kernel"],
                                  arrays[f"{prefix}conv1.weight"].transpose(2, 3, 1, 0).astype(np.float32))
    used = names.used_names(arrays, "esanet18", "image", channels)
    assert used == {n for n in arrays if n.startswith(prefix) and "num_batches" not in n}


def test_a_file_of_esanet_is_that_of_no_other_network():
    with pytest.raises(UserError, match="holds ESANet-18, expected ResNet-18"):
        names.sizes(released("esanet_rgb"), "resnet18", "image")
    with pytest.raises(UserError, match="holds ResNet-18, expected ESANet-34"):
        names.sizes(released("resnet_basic"), "esanet34", "image")
    like = tree_like("esanet34", "image", shape=(64, 96, 3), width=16)
    with pytest.raises(UserError, match="holds ESANet-18, expected esanet34: .* parameters differ"):
        names.to_tree(released("esanet_rgb"), "esanet34", "image", like)
