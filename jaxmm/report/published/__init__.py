"""Accuracies that the papers publish, to stand beside those of a comparison.

`PAPER.csv`, for the keys of PAPERS, hold one value a row, in percent, with its table in the paper. Data sets,
methods with their options, heads and the metric "probe" (of a linear probe) have their names here.
`setting` says what else is special to a value: OPTION=VALUE of the config, as the rates of missing
modalities, or what no run here can have (another encoder), whose values are not shown.

`protocols.csv` holds what the papers trained, one option a row, with where that is said. A row
holds for all papers, data sets or methods that it does not name, and a later one replaces an
earlier one. `option` is one of

  a path in the config, as optimizer.name; options of methods that no row names have their defaults
  encoders.M          NETWORK OPTION=VALUE ...; what it does not name has its default
  examples.SPLIT      numbers of examples
  selection           of the epoch whose accuracy is published

and the value "?" is one that the paper does not give, "all" for a batch of the whole split.

References:
  MLA, arXiv 2311.10707. SAMM, arXiv 2405.02766. UMT and UME, arXiv 2305.01233.
  Tables of methods that balance modalities: BalanceBenchmark, arXiv 2502.10816, whose code scales the gradients
  of AGM the other way round, and values examples for SMV in the first batch alone. InfoReg, arXiv 2503.18595.
  MIDAS, arXiv 2509.25831.
  G2D, arXiv 2506.21514. PMR, CVPR 2023. ReconBoost, arXiv 2405.09321, whose code has another head.
  DER++ and its baselines, arXiv 2004.07211, as its first released code has them. CLS-ER, arXiv 2201.12604.
"""
import csv
import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmm.batch import batch_size
from jaxmm.config import AugmentConfig, Config, EncoderConfig
from jaxmm.data.dataset import Dataset
from jaxmm.methods import METHODS, method_config
from jaxmm.report import variants
from jaxmm.report.variants import Variant
from jaxmm.train.options import to_dict

PAPERS = {"mla": "arXiv 2311.10707", "samm": "arXiv 2405.02766", "umt": "arXiv 2305.01233",
          "balancebenchmark": "arXiv 2502.10816", "inforeg": "arXiv 2503.18595", "midas": "arXiv 2509.25831",
          "g2d": "arXiv 2506.21514", "pmr": "Fan et al., CVPR 2023", "reconboost": "arXiv 2405.09321",
          "der": "arXiv 2004.07211", "cls_er": "arXiv 2201.12604"}
PRETRAINED = ("cav_mae", "m3ae")
SIZE_TOLERANCE = 0.1        # share by which numbers of examples may differ: files go missing
NETWORK = ("width", "depth", "features", "patch", "stem")   # options that make another encoder
LEARNED = ("pool", "frozen", "rate")                        # and those that train it otherwise
OWN_WIDTH = {"mlp": 128, "resnet18": 64}                    # what their width 0 stands for
NO_SETTING = ("name", "modality", "modalities", "teachers", "capacity")     # they choose the row


class Value(NamedTuple):
    """A published accuracy of one head."""
    mean: float                     # share
    std: float | None
    source: str                     # paper and table
    differences: tuple[str, ...]    # from the paper's setting; empty if it can be compared
    notes: tuple[str, ...] = ()     # what could not be held against the paper's setting


Values = dict[tuple[str, int | None], dict[str, Value]]     # by row and head of a comparison


def find(models: Iterable[Variant], dataset: Dataset) -> dict[str, Values]:
    """The published values of a comparison's models.

    Of values that are in several tables the one of the nearest setting stands, or the first one.

    Args:
      models: of the comparison.
      dataset: as it was loaded, before it is cut into tasks.

    Returns:
      "accuracy", on streams the one that sums up their tasks, and "probe", of linear probes: by
      row (method, size of memory) and head.
    """
    found: dict[str, Values] = {"accuracy": {}, "probe": {}}
    for model in models:
        name = data_name(dataset.name, model.config)
        options = to_dict(model.config)
        for row in _rows():
            setting, (path, _, expected) = row["setting"], row["setting"].partition("=")
            if (row["dataset"] == name and row["buffer"] == str(model.buffer or "")
                    and (not setting or _same(_get(options, path), expected))
                    and _canonical(row["method"]) == _canonical(model.method)
                    and row["head"] in ("fused", model.modality or row["head"])):
                protocol = _protocol(row["paper"], name, model.config.method.name)
                protocol |= {path: expected} if setting else {}
                value = Value(
                    float(row["mean"]) / 100, float(row["std"]) / 100 if row["std"] else None,
                    f"{PAPERS[row['paper']]}, table {row['table']}",
                    tuple(_differences(protocol, row, model, dataset)), tuple(_notes(protocol)))
                values = found["probe" if row["metric"] == "probe" else "accuracy"]
                heads = values.setdefault((model.method, model.buffer), {})
                known = heads.setdefault(row["head"], value)
                if len(value.differences) < len(known.differences):
                    heads[row["head"]] = value
    return found


def data_name(dataset: str, config: Config) -> str:
    """The name under which values on a data set, or on a stream of its tasks, are published."""
    features = f"{dataset}_features"        # vectors that were made before
    if not config.data.preprocess and any(row["dataset"] == features for row in _rows()):
        return features
    stream = config.stream
    if stream.kind == "generalized":
        return f"gcil_{dataset}_{'longtail' if stream.long_tailed else 'uniform'}"
    return {"class": "seq_", "domain": "dom_", "group": "group_"}.get(stream.kind, "") + dataset


def _protocol(paper: str, dataset: str, method: str) -> dict[str, str]:
    """What the paper trained by, by option."""
    return {row["option"]: row["value"] for row in _read("protocols")
            if all(row[key] in ("", value) for key, value in (
                ("paper", paper), ("dataset", dataset), ("method", method)))}


def _differences(protocol: Mapping[str, str], row: Mapping[str, str], model: Variant,
                 dataset: Dataset) -> Iterator[str]:
    """What keeps our values from being those of the paper."""
    config = model.config
    options = to_dict(config)
    for option, expected in protocol.items():
        section, _, name = option.partition(".")
        if section == "encoders":
            if METHODS[config.method.name].encodes and name == (model.modality or name):
                yield from _encoder_differences(name, expected, config)
        elif section not in ("examples", "method", "selection") and expected != "?":
            if option.startswith("optimizer.decay_") and config.optimizer.schedule != "step":
                continue        # which the schedule says already
            if expected == "all":
                expected = str(batch_size(dataset.splits["train"]))
            if not _same(_get(options, option), expected):
                yield f"{option} is {_shown(_get(options, option))}, the paper's {expected or 'none'}"
    yield from _method_differences(protocol, row, model)
    for m, augment in config.augment.items():
        for name, value in dataclasses.asdict(augment).items():
            if value != getattr(AugmentConfig(), name):
                yield f"augment.{m}.{name} is {value}, the paper has none"
    yield from _size_differences(protocol, dataset)
    if not config.data.missing_rate:
        present = list(dataset.splits["train"]["present"].values())
        incomplete = np.mean(~np.all(present, axis=0))
        if incomplete:
            yield f"{100 * incomplete:.1f}% of the training examples lack a modality"


def _encoder_differences(modality: str, expected: str, config: Config) -> Iterator[str]:
    """Of one encoder from a cell of the protocol."""
    name, *pairs = expected.split()
    found = config.encoders.get(modality, EncoderConfig())
    if found.name != name:
        pretrained = "a pre-trained " if name in PRETRAINED else ""
        yield f"the encoder of {modality} is {found.name}, the paper's {pretrained}{name}"
        return
    given = dict(pair.split("=") for pair in pairs)
    if bool(found.weights) != (name in PRETRAINED):
        starts = ("pretrained weights", "scratch")[::1 if found.weights else -1]
        yield f"the encoder of {modality} starts from {starts[0]}, the paper's from {starts[1]}"
    # Of pretrained weights the file says the sizes.
    for option in LEARNED if found.weights else NETWORK + LEARNED:
        own = OWN_WIDTH.get(name, 0) if option == "width" else getattr(EncoderConfig(), option)
        value, wanted = getattr(found, option), given.get(option, own)
        if not _same(value or own, str(wanted)):
            yield f"encoders.{modality}.{option} is {value}, the paper's {wanted}"


def _method_differences(protocol: Mapping[str, str], row: Mapping[str, str],
                        model: Variant) -> Iterator[str]:
    """Of the method's options that are not part of the row's name."""
    found = model.config.method
    expected = method_config(found.name)
    named = variants.parse(row["method"])[2]
    given = {option.removeprefix("method."): value for option, value in protocol.items()
             if option.startswith("method.")} | named
    for option, value in given.items():
        if option != "capacity":
            variants.set_option(expected, option, value, "published")
    for name, wanted in dataclasses.asdict(expected).items():
        value = getattr(found, name)
        if name not in NO_SETTING and value != wanted:
            yield f"method.{name} of {found.name} is {value}, the paper's {wanted}"


def _size_differences(protocol: Mapping[str, str], dataset: Dataset) -> Iterator[str]:
    """Of numbers of examples; a share of those for training may be held out."""
    found = {split: batch_size(batch) for split, batch in dataset.splits.items()}
    paper = {split: int(protocol[f"examples.{split}"]) for split in ("train", "val", "test")}
    for what, splits in (("training and validation", ("train", "val")), ("test", ("test",))):
        ours, theirs = (sum(sizes[split] for split in splits) for sizes in (found, paper))
        if abs(ours - theirs) > SIZE_TOLERANCE * theirs:
            yield f"{ours} {what} examples, the paper has {theirs}"
    if found["train"] < (1 - SIZE_TOLERANCE)**2 * paper["train"]:
        yield f"{found['train']} training examples, the paper has {paper['train']}"


def _notes(protocol: Mapping[str, str]) -> Iterator[str]:
    """What is left to say about a value that has no difference."""
    unknown = [option for option, value in protocol.items() if value == "?"]
    if unknown:
        yield f"the paper does not give {', '.join(unknown)}"
    if "selection" in protocol:
        yield f"the paper's epoch is {protocol['selection']}, here it is the last"


def _get(options: Mapping[str, Any], path: str) -> Any:
    """The value at a path such as "optimizer.name"; None where there is no such option."""
    for name in path.split("."):
        options = options.get(name) if isinstance(options, Mapping) else None
    return options


def _same(value: Any, text: str) -> bool:
    """Whether an option has the value that a cell holds as text."""
    if isinstance(value, (bool, str)):
        return str(value).lower() == text.lower()
    return value is not None and _number(text) == value


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)


def _canonical(row: str) -> tuple[str, str, dict[str, str | float]]:
    """A row's name, so that the order of options and the spelling of numbers do not matter."""
    method, modality, options = variants.parse(row)
    return method, modality, {option: _number(value) for option, value in options.items()}


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _rows() -> Iterator[Mapping[str, str]]:
    for paper in PAPERS:
        yield from _read(paper)


@functools.cache
def _read(name: str) -> list[dict[str, str]]:
    with (pathlib.Path(__file__).parent / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))
