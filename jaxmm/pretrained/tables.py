"""From which released arrays each parameter of an encoder is made, and by which rule.

The tables stand at the end. References:
  M3AE: github.com/young-geng/m3ae_public; its PyTorch port is that of MLA (arXiv 2311.10707). CAV-MAE:
  github.com/YuanGongND/cav-mae. CLIP: github.com/openai/CLIP, and as Hugging Face transformers name it, which
  BERT, ViT and DINOv2 are from, too. timm has the names of MAE and DINOv2 as released. ResNet and ResNet3D: torchvision.
  SlowFast: github.com/facebookresearch/SlowFast and pytorchvideo. ESANet: github.com/TUI-NICR/ESANet.
"""
import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from jaxmm.errors import UserError

MEL_PATCHES = 8             # CAV-MAE hears 128 bands


class Leaf(NamedTuple):
    """A parameter, made from released arrays."""
    names: tuple[str, ...]
    rule: Callable[..., np.ndarray]     # (*arrays, target); raises WrongShape


class Target(NamedTuple):
    """What a rule makes."""
    shape: tuple[int, ...]              # of the parameter
    grid: tuple[int, int]               # rows and columns of the patches of an input


Leaves = dict[str, Leaf]                # by path


class Table(NamedTuple):
    """The released names of an encoder."""
    network: str                        # `EncoderConfig.name`
    about: str                          # the model
    where: str                          # the names that only this one of its encoders has
    parts: Leaves
    blocks: tuple[tuple[str, Leaves], ...] = ()     # what is before the names in block {}, and these names

    def leaves(self, names: Iterable[str]) -> Leaves:
        """The parameters of an encoder that is as deep as the one with these names."""
        names, found, layer = list(names), dict(self.parts), 0
        for prefix, block in self.blocks:
            for number in range(max(count_blocks(prefix, names), 1)):
                for path, leaf in behind(prefix.format(number), block).items():
                    found[f"params/block_{layer}/{path}"] = leaf
                layer += 1
        return found


class WrongShape(Exception):
    """An array does not have the shape that is expected of it."""

    def __init__(self, found: tuple[int, ...], expected: tuple[int, ...]):
        super().__init__(found, expected)
        self.found, self.expected = found, expected


def names_of(leaves: Leaves) -> set[str]:
    """The released names that they are made from."""
    return {name for leaf in leaves.values() for name in leaf.names}


def count_blocks(prefix: str, names: Iterable[str]) -> int:
    """How many blocks the names have behind `prefix`, in which {} is the number of one."""
    pattern = re.compile(re.escape(prefix).replace(r"\{\}", r"(\d+)"))
    return 1 + max((int(found[1]) for found in map(pattern.match, names) if found), default=-1)


# Rules: arrays as PyTorch has them -> the parameter.

def _expect(array: np.ndarray, *shape: int) -> np.ndarray:
    """The array, if it has this shape but for axes of length 1 before it."""
    if _bare(array.shape) != _bare(shape):
        raise WrongShape(array.shape, shape)
    return array.reshape(shape)


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(itertools.dropwhile(lambda size: size == 1, shape))


def _same(array, to):
    return _expect(array, *to.shape)


def _bias(array, to):
    return _expect(array, math.prod(to.shape)).reshape(to.shape)


def transposed(array, to):
    """[out, in] -> [in, *out]."""
    return _expect(array, math.prod(to.shape[1:]), to.shape[0]).T.reshape(to.shape)


def _out_kernel(array, to):
    """[out, in] -> [*in, out]."""
    return _expect(array, to.shape[-1], math.prod(to.shape[:-1])).T.reshape(to.shape)


def _third(rule: Callable, i: int, array, to):
    """What a rule makes of part i of the three that lie behind each other along the outputs."""
    try:
        return rule(np.array_split(np.atleast_1d(array), 3)[i], to)
    except WrongShape as error:
        raise WrongShape(array.shape, (3 * error.expected[0], *error.expected[1:])) from None


def _rows(array, to):
    """The array as [rows, width], if its rows are as wide as those of the parameter."""
    if array.shape[-1:] != to.shape[-1:] or not array.size:
        raise WrongShape(array.shape, to.shape)
    return _expect(array, array.size // to.shape[-1], to.shape[-1])


def _patch(array, to):
    """[D, C, p, p] -> [p * p * C, D], in the order of `transformer.patches`: rows, columns, channels."""
    if array.ndim == 2:     # M3AE's, which is dense
        return transposed(array, to)
    size, width = to.shape
    side = array.shape[-1] if array.ndim == 4 else 0
    if not side or size % side**2:
        raise WrongShape(array.shape, (width, size))
    if array.shape[1] != (channels := size // side**2):
        raise UserError(f"takes {array.shape[1]} channels, found {channels}; a ResNet's file fits any number")
    return _expect(array, width, size // side**2, side, side).transpose(2, 3, 1, 0).reshape(to.shape)


def _mel_patch(array, to):
    """The same of CAV-MAE, whose images are [bands, times] where ours are [times, bands]."""
    return _patch(array.swapaxes(-1, -2) if array.ndim == 4 else array, to)


def _words(array, to):
    array, count = _rows(array, to), to.shape[0]
    if len(array) < count:
        raise UserError(f"knows {len(array)} words, found a vocabulary of {count}; set `vocabulary` to the "
                        "file that the model was trained with")
    return array[:count]


def _text_places(array, to):
    array, length = _rows(array, to), to.shape[0]
    if len(array) < length:
        raise UserError(f"takes texts of up to {len(array)} tokens, found {length}; lower `length`")
    return array[:length]


def _bert_places(array, types, to):
    types = _rows(types, to)
    if len(types) != 2:     # which numbers its positions in another way
        raise UserError(f"has {len(types)} types of tokens, as RoBERTa, expected the 2 of BERT")
    return _text_places(array, to) + types[0]


def _image_places(array, to):
    """CLS and a square of positions."""
    array, width = _rows(array, to), to.shape[1]
    side = math.isqrt(len(array) - 1)
    if not side or side**2 + 1 != len(array):
        raise WrongShape(array.shape, to.shape)
    if to.grid == (side, side):
        return array
    grid = resized(array[1:].reshape(side, side, width), to.grid)
    return np.concatenate([array[:1], grid.reshape(-1, width)])


def _mel_places(array, modality, to):
    """[bands * times, D] -> the first times of [times * bands, D], plus the vector of sounds."""
    (times, bands), width = to.grid, to.shape[1]
    array = _rows(array, to)
    known = MEL_PATCHES if len(array) == 64 * MEL_PATCHES else bands
    if known != bands or len(array) % bands or len(array) < times * bands:
        raise UserError(f"takes spectrograms of up to {len(array) // known} x {known} patches of time and "
                        f"bands, found {times} x {bands}; set `columns` and `mels`")
    array = array.reshape(bands, -1, width).swapaxes(0, 1)[:times]
    return array.reshape(-1, width) + _expect(modality, width)


def resized(grid: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A grid [H, W, D] of another shape, as torch resizes: bicubic, pixel centres at halves, no smoothing."""
    rows, columns = (_cubic(old, new) for old, new in zip(grid.shape, shape))
    return np.einsum("ih,jw,hwd->ijd", rows, columns, grid, optimize=True).astype(np.float32)


def _cubic(old: int, new: int, a: float = -0.75) -> np.ndarray:
    """The matrix [new, old] of a cubic convolution (Keys, 1981), which repeats what is at the edge."""
    places = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.zeros((new, old))
    for tap in range(-1, 3):
        index = np.floor(places).astype(int) + tap
        d = np.abs(places - index)
        weight = np.where(d <= 1, ((a + 2) * d - (a + 3)) * d**2 + 1, a * (((d - 5) * d + 8) * d - 4))
        np.add.at(matrix, (np.arange(new), index.clip(0, old - 1)), weight)
    return matrix


def _conv(array, to):
    """[O, I, ...] -> [..., I, O], what is left out being the axes of time, if any, and space."""
    *extent, channels, features = to.shape
    array = _expect(array, features, channels, *extent)
    return array.transpose(*range(2, array.ndim), 1, 0)


def _map_conv(array, to):
    """[O, I, 1, k, k] of a map of times and bands -> [k, k, I, O]."""
    return _conv(array[:, :, 0] if array.ndim == 5 else array, to)


def _times_conv(array, to):
    """[O, I, 1, k, 1] over times -> [k, 1, 1, I, O]."""
    return _conv(array.swapaxes(2, 3) if array.ndim == 5 else array, to)


def _bands_conv(array, to):
    """[O, I, 1, 1, k] over bands -> the same."""
    return _conv(array.swapaxes(2, 4) if array.ndim == 5 else array, to)


def _colour_conv(array, to):
    channels = to.shape[-2]
    if array.ndim == len(to.shape) and array.shape[1] != channels:
        array = (array.sum(1, keepdims=True) if channels == 1 else
                 array.mean(1, keepdims=True).repeat(channels, axis=1))
    return _conv(array, to)


# The rules by letter: D dense, Q query, key, value and out, F the same with the first three in one,
# P patches, L norm, V vectors, C convolution, B batch norm.

def D(path: str, name: str, rule: Callable = transposed) -> Leaves:
    return {f"{path}/kernel": Leaf((f"{name}.weight",), rule), f"{path}/bias": Leaf((f"{name}.bias",), _bias)}


def Q(query: str, key: str, value: str, out: str) -> Leaves:
    return (D("attention/query", query) | D("attention/key", key) | D("attention/value", value)
            | D("attention/out", out, _out_kernel))


def F(fused: str, out: str) -> Leaves:
    return {path: leaf if "/out/" in path else leaf._replace(rule=functools.partial(
                _third, leaf.rule, ("query", "key", "value").index(path.split("/")[1])))
            for path, leaf in Q(fused, fused, fused, out).items()}


def P(name: str, rule: Callable = _patch) -> Leaves:
    return D("params/embed", name, rule)


def L(path: str, name: str) -> Leaves:
    return {f"{path}/scale": Leaf((f"{name}.weight",), _same), f"{path}/bias": Leaf((f"{name}.bias",), _same)}


def V(path: str, *names: str, rule: Callable = _same) -> Leaves:
    return {path: Leaf(names, rule)}


def C(path: str, name: str, rule: Callable = _conv) -> Leaves:
    return {f"params/{path}/kernel": Leaf((f"{name}.weight",), rule)}


def B(path: str, name: str) -> Leaves:
    return L(f"params/{path}", name) | {f"batch_stats/{path}/{ours}": Leaf((f"{name}.running_{ours}",), _same)
                                        for ours in ("mean", "var")}


def behind(prefix: str, leaves: Leaves) -> Leaves:
    """The same, with a prefix to all released names."""
    return {path: leaf._replace(names=tuple(prefix + name for name in leaf.names))
            for path, leaf in leaves.items()}


def block(norm_1: str, norm_2: str, attention: Leaves, expand: str, contract: str) -> Leaves:
    return (L("norm_1", norm_1) | L("norm_2", norm_2) | attention
            | D("expand", expand) | D("contract", contract))


def scales(first: str, second: str) -> Leaves:
    return V("scale_1", first) | V("scale_2", second)


def words(name: str) -> Leaves:
    return V("params/embed/embedding", f"{name}.weight", rule=_words)


def places(*names: str, rule: Callable = _image_places) -> Leaves:
    return V("params/positions", *names, rule=rule)


def resnet(forms: Iterable[str]) -> Table:
    """The table of a ResNet with the blocks that a file has names of."""
    bottleneck = "layer1.0.conv3.weight" in forms
    convs, kind = (3, "Bottleneck") if bottleneck else (2, "BasicBlock")
    blocks = _numbers(r"layer(\d+)\.(\d+)\.", forms)
    parts = C("Conv_0", "conv1", _colour_conv) | B("BatchNorm_0", "bn1")
    for n, (stage, number) in enumerate(blocks):
        names = [(f"conv{i}", f"bn{i}") for i in range(1, convs + 1)]
        if number == 0 and (stage > 1 or bottleneck):
            names.append(("downsample.0", "downsample.1"))
        for i, (conv, norm) in enumerate(names):
            parts |= behind(f"layer{stage}.{number}.",
                            C(f"{kind}_{n}/Conv_{i}", conv) | B(f"{kind}_{n}/BatchNorm_{i}", norm))
    return Table("resnet", f"ResNet-{convs * len(blocks) + 2}", "", parts)


def esanet(forms: Iterable[str], channels: int = 3) -> Table:
    """The table of an encoder of ESANet, with the blocks that a file has names of.

    Of the two encoders of a file, the one of depth is for inputs of one channel.
    """
    forms = list(forms)
    own = "encoder_depth." if channels == 1 else "encoder_rgb."
    prefix = own if f"{own}conv1.weight" in forms else "encoder."
    blocks = _numbers(re.escape(prefix) + r"layer(\d+)\.(\d+)\.conv3x1_1\.", forms)
    parts = C("Conv_0", "conv1", _colour_conv) | B("BatchNorm_0", "bn1")
    for n, (stage, number) in enumerate(blocks):
        block = f"NonBottleneck1D_{n}"
        leaves = B(f"{block}/BatchNorm_0", "bn1") | B(f"{block}/BatchNorm_1", "bn2")
        for i, name in enumerate(("conv3x1_1", "conv1x3_1", "conv3x1_2", "conv1x3_2")):
            leaves |= D(f"params/{block}/Conv_{i}", name, _conv)
        if number == 0 and stage > 1:
            leaves |= C(f"{block}/Conv_4", "downsample.0") | B(f"{block}/BatchNorm_2", "downsample.1")
        parts |= behind(f"layer{stage}.{number}.", leaves)
    return Table("esanet", f"ESANet-{2 * len(blocks) + 2}", "", behind(prefix, parts))


def resnet3d(forms: Iterable[str]) -> Table:
    """The table of a ResNet3D of basic blocks, with those that a file has names of."""
    blocks = _numbers(r"layer(\d+)\.(\d+)\.conv1\.0\.", forms)
    parts = C("Conv_0", "stem.0", _colour_conv) | B("BatchNorm_0", "stem.1")
    for n, (stage, number) in enumerate(blocks):
        layers = ["conv1", "conv2"] + ["downsample"] * (number == 0 and stage > 1)
        for i, layer in enumerate(layers):
            parts |= behind(f"layer{stage}.{number}.{layer}.", C(f"BasicBlock_{n}/Conv3D_{i}", "0")
                            | B(f"BasicBlock_{n}/BatchNorm_{i}", "1"))
    return Table("resnet3d", f"ResNet3D-{2 * len(blocks) + 2}", "", parts)


def slowfast(forms: Iterable[str]) -> Table:
    """The table of a SlowFast, or of its slow pathway alone, with the blocks that a file has names of."""
    forms = list(forms)
    parts = {}
    for path, name in ("0", "slow"), ("1", "fast"):
        blocks = _numbers(rf"s(\d)\.pathway{path}_res(\d+)\.", forms)
        if path == "1" and not blocks:
            break
        parts |= behind(f"s1.pathway{path}_stem.", C(f"{name}_0/Conv3D_0", "conv", _colour_conv)
                        | B(f"{name}_0/BatchNorm_0", "bn"))
        for stage, number in blocks:
            layers = [f"branch2.{x}" for x in "abc"] + ["branch1"] * (number == 0)
            for i, layer in enumerate(layers):
                ours = f"{name}_{stage - 1}/block_{number}"
                parts |= behind(f"s{stage}.pathway{path}_res{number}.", C(f"{ours}/Conv3D_{i}", layer)
                                | B(f"{ours}/BatchNorm_{i}", f"{layer}_bn"))
    fuses = _numbers(r"s(\d)_fuse\.", forms)
    for stage, in fuses:        # in AVSlowFast, where others stand beside it, the norm has a longer name
        norm = "bn_f2s" if f"s{stage}_fuse.bn_f2s.weight" in forms else "bn"
        parts |= behind(f"s{stage}_fuse.", C(f"lateral_{stage - 1}/Conv3D_0", "conv_f2s")
                        | B(f"lateral_{stage - 1}/BatchNorm_0", norm))
    depth = 3 * len(_numbers(r"s(\d)\.pathway0_res(\d+)\.", forms)) + 2
    hears = "s1.pathway2_stem.bn.weight" in forms
    about = "AVSlowFast" if hears else "SlowFast" if fuses else "Slow"
    return Table("slowfast", f"{about}-{depth}", "pathway0, pathway1" if hears else "", parts)


def separable(forms: Iterable[str]) -> Table:
    """The table of AVSlowFast's audio pathway, with the blocks that a file has names of."""
    blocks = _numbers(r"s(\d)\.pathway2_res(\d+)\.", forms)
    parts = behind("s1.pathway2_stem.", C("AxisConv_0/Conv3D_0", "conv_t", _times_conv)
                   | C("AxisConv_1/Conv3D_0", "conv_f", _bands_conv) | B("BatchNorm_0", "bn"))
    for stage, number in blocks:
        separate = stage <= 3
        layers = ["t", "f", "out"] if separate else ["a", "b", "c"]
        layers = [f"branch2.{layer}" for layer in layers] + ["branch1"] * (number == 0)
        for i, layer in enumerate(layers):
            path, rule = f"Conv_{i}", _map_conv
            if separate:
                path, rule = (f"AxisConv_{i}/Conv3D_0", (_times_conv, _bands_conv)[i]) if i < 2 else (
                    f"Conv_{i - 2}", _map_conv)
            ours = f"block_{stage - 1}_{number}"
            parts |= behind(f"s{stage}.pathway2_res{number}.", C(f"{ours}/{path}", layer, rule)
                            | B(f"{ours}/BatchNorm_{i}", f"{layer}_bn"))
    return Table("separable", f"AVSlowFast-{3 * len(blocks) + 2}", "pathway2", parts)


def slowfast_form(form: str) -> str:
    """A name of pytorchvideo's SlowFast as PySlowFast has it; others stay."""
    parts = r"^blocks\.(\d)\.(?:multipathway_blocks\.(\d)\.)?"
    form = re.sub(parts + r"res_blocks\.(\d+)\.", lambda found: (
        f"s{int(found[1]) + 1}.pathway{found[2] or 0}_res{found[3]}."), form)
    form = re.sub(parts.replace(r"\d", "0", 1) + r"(conv|norm)\.", lambda found: (
        f"s1.pathway{found[2] or 0}_stem.{'conv' if found[3] == 'conv' else 'bn'}."), form)
    form = re.sub(r"^blocks\.(\d)\.multipathway_fusion\.(conv_fast_to_slow|norm)\.", lambda found: (
        f"s{int(found[1]) + 1}_fuse.{'bn' if found[2] == 'norm' else 'conv_f2s'}."), form)
    if re.match(r"s\d\.pathway", form):
        form = re.sub(r"branch2\.norm_([abc])\.", r"branch2.\1_bn.", form.replace("branch2.conv_", "branch2."))
        form = form.replace("branch1_conv.", "branch1.").replace("branch1_norm.", "branch1_bn.")
    return form


def _numbers(pattern: str, forms: Iterable[str]) -> list[tuple[int, ...]]:
    """The numbers in the names that a pattern is at the beginning of, sorted."""
    return sorted({tuple(map(int, found.groups())) for form in forms if (found := re.match(pattern, form))})


# The tables.

M3AE = (
    ("encoder.LayerNorm_0", "encoder.Block_{}.", block(
        "LayerNorm_0", "LayerNorm_1", F("Attention_0.Dense_0", "Attention_0.Dense_1"),
        "TransformerMLP_0.fc1", "TransformerMLP_0.fc2")),
    ("encoder.layer_norm", "encoder.blocks.{}.", block(
        "layer_norm1", "layer_norm2", F("attention.qkv_linear", "attention.fc"),
        "transformer_mlp.fc1", "transformer_mlp.fc2")))
M3AE_IMAGE = (P("image_embedding") | V("params/cls", "cls_token")
              | V("params/type", "encoder_image_type_embedding"))
M3AE_TEXT = (words("text_embedding") | V("params/cls", "cls_token")
             | V("params/type", "encoder_text_type_embedding"))

TIMM = block("norm1", "norm2", F("attn.qkv", "attn.proj"), "mlp.fc1", "mlp.fc2")
TIMM_VIT = (P("patch_embed.proj") | V("params/cls", "cls_token") | places("pos_embed")
            | L("params/norm_out", "norm"))
CAV_MAE = (P("patch_embed_a.proj", _mel_patch) | places("pos_embed_a", "modality_a", rule=_mel_places)
           | L("params/norm_out", "norm_a"))

CLIP = block("layer_norm1", "layer_norm2", Q(*(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out"))),
             "mlp.fc1", "mlp.fc2")
CLIP_IMAGE = (
    V("params/embed/kernel", "embeddings.patch_embedding.weight", rule=_patch)
    | V("params/cls", "embeddings.class_embedding") | places("embeddings.position_embedding.weight")
    | L("params/norm_in", "pre_layrnorm") | L("params/norm_out", "post_layernorm"))
CLIP_TEXT = (
    words("embeddings.token_embedding") | places("embeddings.position_embedding.weight", rule=_text_places)
    | L("params/norm_out", "final_layer_norm"))
OPENAI = block("ln_1", "ln_2", F("attn.in_proj", "attn.out_proj"), "mlp.c_fc", "mlp.c_proj")
OPENAI_IMAGE = (
    V("params/embed/kernel", "conv1.weight", rule=_patch) | V("params/cls", "class_embedding")
    | places("positional_embedding") | L("params/norm_in", "ln_pre") | L("params/norm_out", "ln_post")
    | V("params/projection/kernel", "proj"))
OPENAI_TEXT = (
    words("token_embedding") | places("positional_embedding", rule=_text_places)
    | L("params/norm_out", "ln_final") | V("params/projection/kernel", "text_projection"))

BERT = block("attention.output.LayerNorm", "output.LayerNorm",
             Q(*(f"attention.self.{name}" for name in ("query", "key", "value")), "attention.output.dense"),
             "intermediate.dense", "output.dense")
BERT_TEXT = (
    words("embeddings.word_embeddings") | places(
        "embeddings.position_embeddings.weight", "embeddings.token_type_embeddings.weight", rule=_bert_places)
    | L("params/norm_in", "embeddings.LayerNorm"))
HF_ATTENTION = Q(*(f"attention.attention.{name}" for name in ("query", "key", "value")),
                 "attention.output.dense")
HF = block("layernorm_before", "layernorm_after", HF_ATTENTION, "intermediate.dense", "output.dense")
HF_DINOV2 = (block("norm1", "norm2", HF_ATTENTION, "mlp.fc1", "mlp.fc2")
             | scales("layer_scale1.lambda1", "layer_scale2.lambda1"))
HF_VIT = (
    P("embeddings.patch_embeddings.projection") | V("params/cls", "embeddings.cls_token")
    | places("embeddings.position_embeddings") | L("params/norm_out", "layernorm"))

VITS = (
    Table("mae", "ViT", "", TIMM_VIT, (("blocks.{}.", TIMM),)),
    Table("vit", "ViT", "", HF_VIT, (("encoder.layer.{}.", HF),)),
    Table("dinov2", "DINOv2", "", TIMM_VIT, (("blocks.{}.", TIMM | scales("ls1.gamma", "ls2.gamma")),)),
    Table("dinov2", "DINOv2", "", HF_VIT, (("encoder.layer.{}.", HF_DINOV2),)))

TABLES = {
    "m3ae": {
        "image": tuple(Table("m3ae", "M3AE", "image_embedding", M3AE_IMAGE | L("params/norm_out", norm),
                             ((prefix, names),)) for norm, prefix, names in M3AE),
        "text": tuple(Table("m3ae", "M3AE", "text_embedding", M3AE_TEXT | L("params/norm_out", norm),
                            ((prefix, names),)) for norm, prefix, names in M3AE)},
    "cav_mae": {"audio": (Table("cav_mae", "CAV-MAE", "blocks_a.*", CAV_MAE, (
        ("blocks_a.{}.", TIMM), ("blocks_u.{}.", TIMM | L("norm_1", "norm1_a") | L("norm_2", "norm2_a")))),)},
    "clip": {
        "image": (
            Table("clip", "CLIP", "vision_model.*", behind("vision_model.", CLIP_IMAGE)
                  | V("params/projection/kernel", "visual_projection.weight", rule=transposed),
                  (("vision_model.encoder.layers.{}.", CLIP),)),
            Table("clip", "CLIP", "visual.*", behind("visual.", OPENAI_IMAGE),
                  (("visual.transformer.resblocks.{}.", OPENAI),))),
        "text": (
            Table("clip", "CLIP", "text_model.*", behind("text_model.", CLIP_TEXT)
                  | V("params/projection/kernel", "text_projection.weight", rule=transposed),
                  (("text_model.encoder.layers.{}.", CLIP),)),
            Table("clip", "CLIP", "transformer.*", OPENAI_TEXT, (("transformer.resblocks.{}.", OPENAI),)))},
    "bert": {"text": (Table("bert", "BERT", "", BERT_TEXT, (("encoder.layer.{}.", BERT),)),)},
    "vit": {"image": VITS},
    "mae": {"image": VITS},
    "dinov2": {"image": VITS},
}
