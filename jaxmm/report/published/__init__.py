"""Accuracies that the papers publish, to stand beside those of a comparison.

`{mla,samm,umt}.csv` hold one value a row, in percent, with its table in the paper. Data sets,
methods with their options, heads and the metric "probe" (of a linear probe) have their names here.
`setting` says what else is special to a value (another encoder, another optimizer); such values
are not rows of a comparison. `protocols.csv` says what the papers trained on: examples that are
not test data (validation included), test examples, and encoders.

References:
  MLA, arXiv 2311.10707. SAMM, arXiv 2405.02766. UMT and UME, arXiv 2305.01233.
"""
import csv
import functools
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from jaxmm.batch import batch_size
from jaxmm.config import Config, EncoderConfig, StreamConfig
from jaxmm.data.dataset import Dataset
from jaxmm.report import variants
from jaxmm.report.variants import Variant

PAPERS = {"mla": "arXiv 2311.10707", "samm": "arXiv 2405.02766", "umt": "arXiv 2305.01233"}
PRETRAINED = ("cavmae", "m3ae")
SIZE_TOLERANCE = 0.1        # share by which numbers of examples may differ: files go missing


class Value(NamedTuple):
    """A published accuracy of one head."""
    mean: float                     # share
    std: float | None
    source: str                     # paper and table
    differences: tuple[str, ...]    # from the paper's setting; empty if it can be compared


Values = dict[tuple[str, int | None], dict[str, Value]]     # by row and head of a comparison


def find(models: Iterable[Variant], dataset: Dataset) -> dict[str, Values]:
    """The published values of a comparison's models.

    Args:
      models: of the comparison.
      dataset: as it was loaded, before it is cut into tasks.

    Returns:
      "accuracy", on streams the one that sums up their tasks, and "probe", of linear probes: by
      row (method, size of memory) and head.
    """
    found: dict[str, Values] = {"accuracy": {}, "probe": {}}
    for model in models:
        name = data_name(dataset.name, model.config.stream)
        for row in _rows():
            if (row["dataset"] == name and not row["setting"]
                    and row["buffer"] == str(model.buffer or "")
                    and _canonical(row["method"]) == _canonical(model.method)
                    and row["head"] in ("fused", model.modality or row["head"])):
                differences = tuple(_differences(row["paper"], name, model.config, dataset))
                values = found["probe" if row["metric"] == "probe" else "accuracy"]
                # Of values that are in several tables the first one stands.
                values.setdefault((model.method, model.buffer), {}).setdefault(row["head"], Value(
                    float(row["mean"]) / 100, float(row["std"]) / 100 if row["std"] else None,
                    f"{PAPERS[row['paper']]}, table {row['table']}", differences))
    return found


def data_name(dataset: str, stream: StreamConfig) -> str:
    """The name under which values on a data set, or on a stream of its tasks, are published."""
    if stream.kind == "generalized":
        return f"gcil_{dataset}_{'longtail' if stream.long_tailed else 'uniform'}"
    return {"class": "seq_", "domain": "dom_"}.get(stream.kind, "") + dataset


def _differences(paper: str, name: str, config: Config, dataset: Dataset) -> Iterator[str]:
    """What keeps our values from being those of the paper."""
    protocol = next(r for r in _read("protocols") if (r["paper"], r["dataset"]) == (paper, name))
    for pair in protocol["encoders"].split():
        m, _, expected = pair.partition("=")
        encoder = config.encoders.get(m, EncoderConfig()).name
        if encoder != expected:
            pretrained = "a pre-trained " if expected in PRETRAINED else ""
            yield f"the encoder of {m} is {encoder}, the paper's {pretrained}{expected}"
    sizes = {split: batch_size(batch) for split, batch in dataset.splits.items()}
    test = sizes.pop("test")
    for what, found, expected in (("training and validation", sum(sizes.values()),
                                   int(protocol["train"])), ("test", test, int(protocol["test"]))):
        if abs(found - expected) > SIZE_TOLERANCE * expected:
            yield f"{found} {what} examples, the paper has {expected}"


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
