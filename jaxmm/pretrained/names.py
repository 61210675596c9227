"""The arrays of released models under the names of our encoders.

Names are compared as PyTorch writes them: flax's `a/kernel` counts as `a.weight`, transposed, and wrappers
such as `module.` do not count. Messages say what a file holds; who calls puts its path before them.
"""
import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from flax import traverse_util
import numpy as np

from jaxmm.errors import UserError
from jaxmm.pretrained.tables import (MEL_PATCHES, TABLES, Leaves, Table, Target, WrongShape,
                                     count_blocks, esanet, names_of, resnet, resnet3d, separable, slowfast,
                                     slowfast_form, transposed)

ADDED = "params/Dense_0/"   # the layer that `EncoderConfig.features` adds, which no file has
RESNETS = {     # whose tables have the blocks that a file has names of
    **dict.fromkeys(("resnet18", "resnet34", "resnet50"), resnet), "resnet3d18": resnet3d,
    **dict.fromkeys(("esanet18", "esanet34"), esanet),
    **{f"{name}{depth}": table for name, table in (("slow", slowfast), ("slowfast", slowfast), (
        "avslowfast", slowfast), ("separable", separable)) for depth in (14, 50, 101)}}
STEMS = ("Conv_0", "slow_0/Conv3D_0", "AxisConv_0/Conv3D_0")
WRITTEN = {"resnet": "ResNet", "resnet3d": "ResNet3D", "esanet": "ESANet", "slow": "Slow", "slowfast": "SlowFast",
           "avslowfast": "AVSlowFast", "separable": "AVSlowFast"}
WRAPPERS = r"^((_orig_mod|module|model|params|state|state_dict|bert|vit|dinov2)\.)+"
FOREIGN = {     # names that tell models which have all of the names of a known one, and others
    "register_tokens": "DINOv2 with registers", "reg_token": "a ViT with registers",
    "dist_token": "DeiT with distillation", "embeddings.distillation_token": "DeiT or AST"}
HEADS = {       # by width, of released models that do not have one for 64 channels
    ("bert", "text"): {312: 12, 384: 12},       # TinyBERT; MiniLM, and what was made from it
    **{(network, "image"): {1280: 16, 1408: 16, 1664: 16} for network in ("vit", "mae", "clip")}}   # huge ones


def detect(names: Iterable[str]) -> str:
    """What a file with these names holds, in words; "" if no model is known by them."""
    forms = as_torch(names)
    for name, about in FOREIGN.items():
        if any(f".{form}".endswith(f".{name}") for form in forms):
            return about
    tables = _held(forms)
    wheres = [table.where for table in tables if table.where]
    return tables[0].about + (f" ({', '.join(wheres)})" if wheres else "") if tables else ""


def sizes(arrays: Mapping[str, np.ndarray], network: str, kind: str) -> dict[str, Any]:
    """The fields of `EncoderConfig` that a file decides, from the shapes of its arrays.

    Of transformers these are width, depth, patch (of images and sounds) and features (of CLIP); heads if
    released models do not have one for 64 channels; name if the file holds a relative of the network
    ("dinov2" or "mae" for "vit"). Of ResNets they are width and, for images, stem.

    Args:
      arrays: of the file.
      network: `EncoderConfig.name`.
      kind: of the modality: "text", "image" or "audio".

    Raises:
      UserError: the file holds another model, or names of it are missing.
    """
    table, _, forms = _complete(arrays, network, kind)

    def shape(form: str, *ranks: int) -> tuple[int, ...]:
        found = _turned(forms[form], arrays[forms[form]].shape)
        if len(found) not in ranks:
            raise UserError(f"{forms[form]} is {list(found)}, expected {' or '.join(map(str, ranks))} axes")
        return found

    if network in RESNETS:
        stem = next(table.parts[path] for name in STEMS if (path := f"params/{name}/kernel") in table.parts)
        return {"width": shape(*stem.names, 4, 5)[0]} | ({"stem": "standard"} if table.network == "resnet" else {})
    found: dict[str, Any] = {} if table.network == network else {"name": table.network}
    if kind == "text":
        width = shape(*table.parts["params/embed/embedding"].names, 2)[1]
    else:
        width, *patch = shape(*table.parts["params/embed/kernel"].names, 2, 4)
        found["patch"] = patch[-1] if len(patch) == 3 else math.isqrt(patch[0] // 3)
    found |= {"width": width, "depth": sum(count_blocks(prefix, forms) for prefix, _ in table.blocks)}
    if projection := table.parts.get("params/projection/kernel"):
        found["features"] = shape(*projection.names, 2)[projection.rule is not transposed]
    if heads := HEADS.get((table.network, kind), {}).get(width):
        found["heads"] = heads
    return found


def num_channels(like: Mapping[str, Any]) -> int:
    """How many channels a ResNet of images like this one takes; 3 of other networks."""
    stem = like["params"].get("Conv_0", {})
    return stem["kernel"].shape[-2] if "kernel" in stem else 3


def used_names(names: Iterable[str], network: str = "", kind: str = "", channels: int = 3) -> set[str]:
    """The names that `to_tree` reads; without a network those of all encoders of the model that is found.

    `channels` is as `num_channels` finds it.
    """
    forms = as_torch(names)
    tables = [_table(forms, network, kind, channels)] if network else _held(forms)
    return {forms[name] for table in tables for name in names_of(table.leaves(forms)) & forms.keys()}


def num_words(shapes: Mapping[str, tuple[int, ...]], network: str) -> int:
    """The words that a file with arrays of these shapes knows, for a network that reads texts."""
    table = _table(forms := as_torch(shapes), network, "text")
    name, = table.parts["params/embed/embedding"].names
    return shapes[forms[name]][0]


def to_tree(arrays: Mapping[str, np.ndarray], network: str, kind: str, like: Mapping[str, Any],
            shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    """The parameters of an encoder from the arrays of a released one.

    Learned positions are resized to the input (images) or cut (texts, sounds). Of more words than `like`
    has the first are taken. The first convolution of a ResNet is summed over colours for one channel, and
    averaged over them for other numbers; of the two encoders of ESANet, that of depth is for one channel.

    Args:
      arrays: of the file.
      network, kind: as for `sizes`.
      like: {"params": ..., "batch_stats": ...} of the encoder, of which only shapes are read.
      shape: height and width of an image, or times and bands of a sound, and what follows them; by default
        images are square, and sounds have as many bands as the model was trained with.

    Returns:
      {"params": ..., "batch_stats": ...}, float32, without the layer that `EncoderConfig.features` adds.

    Raises:
      UserError: another model, names that are missing, shapes that do not fit.
    """
    table, leaves, forms = _complete(arrays, network, kind, num_channels(like))
    targets = {path: tuple(x.shape) for path, x in traverse_util.flatten_dict(dict(like), sep="/").items()
               if not path.startswith(ADDED)}
    _check_same_encoder(arrays, network, kind, table, leaves, targets)
    grid = _grid(targets, network, shape, sizes(arrays, network, kind).get("patch") or 1)
    tree, wrong = {}, {}
    for path, leaf in leaves.items():
        read = [_turn(forms[name], np.asarray(arrays[forms[name]])).astype(np.float32, copy=False)
                for name in leaf.names]
        try:
            tree[path] = leaf.rule(*read, Target(targets[path], grid))
            if tree[path].shape != targets[path]:       # of another `shape`
                raise WrongShape(tree[path].shape, targets[path])
        except WrongShape as error:
            name = forms[leaf.names[0]]
            wrong[name] = f"{name}: {list(_turned(name, error.found))}, {list(_turned(name, error.expected))}"
    if wrong:
        raise UserError(f"{len(wrong)} of {len(names_of(leaves))} arrays have another shape than the encoder "
                        f"needs (found, expected): {_first(wrong.values(), '; ')}")
    return traverse_util.unflatten_dict(tree, sep="/")


# What a file holds.

def as_torch(names: Iterable[str]) -> dict[str, str]:
    """The names by how PyTorch would write them."""
    return {_form(name): name for name in names}


def _form(name: str) -> str:
    form = re.sub(WRAPPERS, "", name.replace("/", "."))
    form = re.sub(r"\.(kernel|scale|embedding)$|(?<=LayerNorm)\.gamma$", ".weight", form)
    form = re.sub(r"(?<=LayerNorm)\.beta$", ".bias", form)
    return slowfast_form(re.sub(r"in_proj_(weight|bias)$", r"in_proj.\1", form))


def _turn(name: str, array: np.ndarray) -> np.ndarray:
    return array.T if name.endswith("kernel") else array


def _turned(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape)[::-1] if name.endswith("kernel") else tuple(shape)


def _held(forms: Mapping[str, str]) -> list[Table]:
    """The encoders of the model that a file holds: those of which it has more than half of the names."""
    there = []
    for table in [table for kinds in TABLES.values() for tables in kinds.values() for table in tables] + [
            *(make(forms) for make in dict.fromkeys(RESNETS.values()))]:
        needed = names_of(table.leaves(forms))
        count = len(needed & forms.keys())
        if 2 * count > len(needed):
            there.append((count / len(needed), count, table))
    about = max(there, key=lambda entry: entry[:2])[2].about if there else ""
    return [table for _, _, table in there if table.about == about]


def _table(forms: Mapping[str, str], network: str, kind: str, channels: int = 3) -> Table:
    """The table by which a network reads a file: the one with most of its names in it.

    Raises:
      UserError: the file holds another model.
    """
    if not (kinds := TABLES.get(network)):
        make = RESNETS[network]
        kinds = {"audio" if make is separable else "image": (
            make(forms, channels) if make is esanet else make(forms),)}
    tables = next((kinds[known] for known in kinds if (known == "text") == (kind == "text")), None)
    if not tables:
        raise UserError(f"{network} takes {' and '.join(kinds)}, found {kind}")
    table = max(tables, key=lambda table: len(names_of(table.leaves(forms)) & forms.keys()))
    needed, about = names_of(table.leaves(forms)), detect(forms)
    if 2 * len(needed & forms.keys()) <= len(needed) or about in FOREIGN.values():
        held = about or f"{len(forms)} arrays of no model that is known ({_first(forms.values())})"
        expected = _written(network) if network in RESNETS else tables[0].about
        raise UserError(f"holds {held}, expected {expected}")
    return table


def _written(network: str) -> str:
    """A ResNet's name as papers write it, such as ResNet3D-18."""
    name, depth = re.fullmatch(r"(\w*?\D)(\d+)", network).groups()
    return f"{WRITTEN[name]}-{depth}"


def _complete(names: Iterable[str], network: str, kind: str, channels: int = 3) -> tuple[Table, Leaves, dict[str, str]]:
    """The table by which a network reads a file, its parameters, and the names as PyTorch writes them.

    Raises:
      UserError: it holds another model, names that are missing, or the same one twice.
    """
    forms = as_torch(names)
    table = _table(forms, network, kind, channels)
    leaves = table.leaves(forms)
    needed = names_of(leaves)
    if missing := sorted(needed - forms.keys()):
        spare = sorted(forms.keys() - needed)
        near = dict.fromkeys(n for name in missing[:3] for n in difflib.get_close_matches(name, spare, 1))
        instead = f"; in their place it has {_first(near)}" if near else ""
        raise UserError(f"{len(missing)} of {len(needed)} names of {table.about} are missing: "
                        f"{_first(missing)}{instead}")
    counts = Counter(map(_form, names))
    if twice := [form for form in sorted(needed) if counts[form] > 1]:
        both = [name for name in names if _form(name) == twice[0]]
        raise UserError(f"holds {table.about} more than once, as {_first(both)}; keep one of them")
    return table, leaves, forms


def _check_same_encoder(arrays, network, kind, table, leaves, targets):
    """Raises UserError if width, depth or layers differ, in place of a line on each array."""
    if network not in RESNETS:
        file, ours = sizes(arrays, network, kind), {
            "width": next(s[-1] for path, s in targets.items() if path.startswith("params/embed/")),
            "depth": len({path.split("/")[1] for path in targets if path.startswith("params/block_")})}
        for option, size in ours.items():
            if file[option] != size:
                raise UserError(f"holds {table.about} of {option} {file[option]}, the encoder has {size} "
                                f"(option {option})")
    if odd := sorted(leaves.keys() ^ targets.keys()):
        raise UserError(f"holds {table.about}, expected {network}: {len(odd)} parameters differ, such as "
                        f"{_first(path.split('/', 1)[1] for path in odd)}")


def _grid(targets, network: str, shape: tuple[int, ...] | None, patch: int) -> tuple[int, int]:
    """Rows and columns of the patches of an input."""
    if shape:
        return tuple(-(-side // patch) for side in shape[:2])
    count = targets.get("params/positions", (0,))[0]
    if network == "cav_mae":
        return count // MEL_PATCHES, MEL_PATCHES
    return (math.isqrt(count),) * 2


def _first(found: Iterable[str], separator: str = ", ") -> str:
    found = list(found)
    return separator.join(found[:3] + ["..."] * (len(found) > 3))


