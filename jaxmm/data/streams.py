"""Streams of tasks for continual learning, drawn from labels alone.

A stream is made from the labels of the training split, then `add_split` selects the validation
and test examples that its tasks are evaluated on. Which classes a task has depends on the class
numbers and the seed, never on the order of the examples.
"""
import csv
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import chex
import numpy as np

from jaxmm import escape, files
from jaxmm.config import StreamConfig
from jaxmm.data.dataset import Dataset, by_number, listed
from jaxmm.errors import UserError, check_choice

MOST_CLASSES = 10**6        # more are taken for a mistake in the labels


class Task(NamedTuple):
    """One task: learn the training examples, then be evaluated on those of the other splits."""
    classes: np.ndarray                 # int64 [k], sorted: classes of its training examples
    evaluated: np.ndarray               # int64 [e], sorted: classes of its evaluation examples
    indices: dict[str, np.ndarray]      # by split, int64 [n], sorted: its examples
    groups: tuple[str, ...] = ()        # those whose examples it has, where they are tasks


class Stream(NamedTuple):
    """Tasks in the order of learning, and the label by which each class is learned."""
    tasks: tuple[Task, ...]
    label_of: np.ndarray                # int32, by class; -1 where a number is no class
    class_names: tuple[str, ...] = ()   # of the classes, not of the labels; set by `make_stream`


def make_stream(config: StreamConfig, dataset: Dataset,
                coarse: Mapping[int, str] | None = None) -> tuple[Dataset, Stream]:
    """(The data set with the labels to learn, the stream of `config.kind` over all its splits).

    `coarse` is the category of every class, in place of the file `config.coarse`.

    Raises:
      UserError: an unknown kind, or tasks that the data set cannot be cut into.
    """
    labels = {split: batch["label"] for split, batch in dataset.splits.items()}
    class_names = dataset.class_names
    check_choice("stream.order", config.order, ("shuffled", "sorted"))
    if config.order == "sorted" and config.kind not in ("class", "group"):
        raise UserError(f"stream.order=sorted is for stream.kind=class or group; here it is {config.kind}")
    seed = None if config.order == "sorted" else config.seed
    if config.kind == "class":
        stream = class_incremental(labels["train"], config.num_tasks, seed)
    elif config.kind == "domain":
        coarse = coarse or read_coarse_map(config.coarse, class_names)
        stream = domain_incremental(labels["train"], coarse, config.num_tasks, config.seed)
        class_names = tuple(sorted(set(coarse.values()), key=by_number))
    elif config.kind == "generalized":
        stream = generalized_class_incremental(
            labels["train"], config.num_tasks, config.phase_size, config.max_classes,
            config.long_tailed, config.seed)
    elif config.kind == "group":
        if not dataset.groups:
            raise UserError(f"stream.kind=group: {dataset.name} does not say which group its rows are of; it "
                            "takes an .npz file with train/group, val/group and test/group")
        stream = group_incremental(labels, dataset.groups, config.num_tasks, seed)
    else:
        raise UserError(f"stream.kind={config.kind!r}; expected class, domain, group or generalized")
    for split in [name for name in labels if name not in stream.tasks[0].indices]:
        stream = add_split(stream, split, labels[split])
    splits = {split: batch | {"label": relabel(stream, batch["label"])}
              for split, batch in dataset.splits.items()}
    stream = stream._replace(class_names=dataset.class_names)
    return dataset._replace(splits=splits, class_names=class_names), stream


def class_incremental(labels: np.ndarray, num_tasks: int, seed: int | None) -> Stream:
    """Tasks of new classes: shuffled by the seed, then cut into groups as even as can be.

    Args:
      labels: int [N], of the training split.
      num_tasks: between 1 and the number of classes.
      seed: of the class order; None: by number.
    """
    classes = _classes(labels)
    if not 1 <= num_tasks <= len(classes):
        raise UserError(f"{num_tasks} tasks cannot share {len(classes)} classes; "
                        f"expected 1 to {len(classes)} tasks")
    order = classes if seed is None else np.random.default_rng(seed).permutation(classes)
    tasks = _tasks(np.array_split(order, num_tasks))
    return add_split(Stream(tasks, _identity(classes)), "train", labels)


def domain_incremental(fine_labels: np.ndarray, coarse_map: Mapping[int, str | int],
                       num_tasks: int, seed: int) -> Stream:
    """Tasks with the same labels: each brings new fine classes of every coarse category.

    A category's label is its position in the sorted list of all categories of the map, numbers as
    numbers, in every task; `relabel` gives the labels to learn.

    Args:
      fine_labels: int [N], of the training split.
      coarse_map: the category of every fine class; its classes are dealt out as evenly as can be.
      num_tasks: between 1 and the number of classes of the smallest category.
      seed: of the order of the classes in each category.
    """
    unmapped = np.setdiff1d(_classes(fine_labels), list(coarse_map))
    if unmapped.size:
        raise UserError(f"classes {listed(unmapped)} have no coarse category; "
                        f"add them to the map")
    rng = np.random.default_rng(seed)
    groups = [[] for _ in range(num_tasks)]
    label_of = np.full(max(coarse_map) + 1, -1, np.int32)
    for label, category in enumerate(sorted(set(coarse_map.values()), key=by_number)):
        members = sorted(fine for fine, coarse in coarse_map.items() if coarse == category)
        if not 1 <= num_tasks <= len(members):
            raise UserError(f"{num_tasks} tasks cannot share the {len(members)} classes of "
                            f"category {category!r}; expected 1 to {len(members)} tasks")
        label_of[members] = label
        for group, part in zip(groups, np.array_split(rng.permutation(members), num_tasks)):
            group.extend(part)
    return add_split(Stream(_tasks(groups), label_of), "train", fine_labels)


def group_incremental(labels: Mapping[str, np.ndarray], groups: Mapping[str, np.ndarray], num_tasks: int,
                      seed: int | None) -> Stream:
    """Tasks with the same labels, of the examples of other groups, such as speakers or sessions.

    Args:
      labels: int [N] by split.
      groups: whole numbers or text [N] by split; those of other splits are groups of the training split.
      num_tasks: between 1 and the number of groups, which are dealt out as evenly as can be.
      seed: of the order of the groups; None: sorted.
    """
    known = np.unique(groups["train"])
    if not 1 <= num_tasks <= len(known):
        raise UserError(f"{num_tasks} tasks cannot share {len(known)} groups; expected 1 to {len(known)} tasks")
    for split, found in groups.items():
        if len(other := np.setdiff1d(found, known)):
            raise UserError(f"groups {listed(other)} of split {split!r} have no training example; expected "
                            "groups of the training split")
    order = known if seed is None else np.random.default_rng(seed).permutation(known)
    tasks = []
    for number, part in enumerate(np.array_split(order, num_tasks), 1):
        part = np.sort(part)
        indices = {split: np.flatnonzero(np.isin(found, part)) for split, found in groups.items()}
        for split, rows in indices.items():
            if not rows.size:
                raise UserError(f"task {number} of {num_tasks}, groups {listed(part)}, has no example in split "
                                f"{split!r}; use fewer tasks or a larger split")
        learned = np.unique(labels["train"][indices["train"]])
        others = [labels[split][rows] for split, rows in indices.items() if split != "train"]
        tested = np.unique(np.concatenate(others or [learned]))
        tasks.append(Task(learned.astype(np.int64), tested.astype(np.int64), indices, tuple(map(str, part))))
    return Stream(tuple(tasks), _identity(_classes(labels["train"])))


def generalized_class_incremental(labels: np.ndarray, num_phases: int, phase_size: int,
                                  max_classes: int, long_tailed: bool, seed: int,
                                  decay: float = 0.984) -> Stream:
    """Phases of classes that come back, in uneven shares (Mi et al., CVPRW 2020).

    A phase draws a number of classes, uniform on [1, max_classes], then that many of the classes with
    examples left, then its examples according to the shares of these classes. No example is used twice,
    so a phase is shorter if a class runs out, and the stream ends early when no examples are left. A
    phase is evaluated on all classes seen so far.

    Args:
      labels: int [N], of the training split.
      num_phases: number of tasks, at most.
      phase_size: examples in a phase, at most.
      max_classes: classes in a phase, at most.
      long_tailed: whether classes have shares in proportion to decay ** class, not equal ones.
      seed: of everything drawn.
      decay: of the long-tailed shares.
    """
    for name, value in (("num_phases", num_phases), ("phase_size", phase_size),
                        ("max_classes", max_classes)):
        if value < 1:
            raise UserError(f"{name} is {value}; expected at least 1")
    rng = np.random.default_rng(seed)
    classes = _classes(labels)
    weights = decay ** classes if long_tailed else np.ones(len(classes))
    unused = [rng.permutation(np.flatnonzero(labels == c)) for c in classes]
    tasks, seen = [], np.array([], np.int64)
    for _ in range(num_phases):
        left = np.array([len(indices) for indices in unused])
        candidates = np.flatnonzero(left)
        if not candidates.size:
            break
        num_classes = rng.integers(1, min(max_classes, len(candidates)), endpoint=True)
        drawn = rng.choice(candidates, num_classes, replace=False)
        shares = weights[drawn] / weights[drawn].sum()
        counts = np.minimum(rng.multinomial(phase_size, shares), left[drawn])
        used = np.sort(np.concatenate([unused[c][:n] for c, n in zip(drawn, counts)]))
        for c, n in zip(drawn, counts):
            unused[c] = unused[c][n:]
        seen = np.union1d(seen, labels[used])
        tasks.append(Task(np.unique(labels[used]).astype(np.int64), seen, {"train": used}))
    return Stream(tuple(tasks), _identity(classes))


def joint(labels: np.ndarray) -> Stream:
    """One task of all classes."""
    classes = _classes(labels)
    return add_split(Stream(_tasks([classes]), _identity(classes)), "train", labels)


def balanced_rows(labels: np.ndarray, rows: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Of these rows as many as `size`, sorted, drawn by the seed: of each class equally many, as far as it has them.

    Args:
      labels: int [N], of the split.
      rows: int [n], of the split.
      size: at least 1.
      seed: of the draw, by which the classes that give one more are drawn, too.
    """
    if size < 1:
        raise UserError(f"stream.budget={size}; expected at least 1 example, or 0 for all")
    rows = np.random.default_rng(seed).permutation(rows)
    turn = np.zeros(len(rows), int)     # how many of its class come before a row
    for c in np.unique(labels[rows]):
        own = labels[rows] == c
        turn[own] = np.arange(own.sum())
    return np.sort(rows[np.argsort(turn, kind="stable")[:size]])


def add_split(stream: Stream, split: str, labels: np.ndarray) -> Stream:
    """The stream with the examples of one more split: those of each task's evaluated classes.

    Args:
      stream: made from the training split.
      split: name of the split, as in "test".
      labels: int [N], classes of its examples.
    """
    relabel(stream, labels)     # every class is known
    tasks = []
    for number, task in enumerate(stream.tasks, 1):
        indices = np.flatnonzero(np.isin(labels, task.evaluated))
        if not indices.size:
            raise UserError(f"task {number} of {len(stream.tasks)}, classes "
                            f"{listed(task.evaluated)}, has no example in split {split!r}; "
                            f"use fewer tasks or a larger split")
        tasks.append(task._replace(indices=task.indices | {split: indices}))
    return stream._replace(tasks=tuple(tasks))


def relabel(stream: Stream, labels: np.ndarray) -> np.ndarray:
    """The labels to learn, int32 [N], of examples with the classes `labels` [N]."""
    unknown = np.setdiff1d(labels, np.flatnonzero(stream.label_of >= 0))
    if unknown.size:
        raise UserError(f"classes {listed(unknown)} are not in the stream; "
                        f"expected classes of the training split")
    return stream.label_of[labels]


def task_labels(stream: Stream) -> list[np.ndarray]:
    """The labels that each task is evaluated on, sorted: what its logits are masked to."""
    return [np.unique(stream.label_of[task.evaluated]) for task in stream.tasks]


def to_json(stream: Stream) -> dict:
    """A JSON-serialisable description: the classes of each task and the number of its examples by split."""
    return {
        "label_of": stream.label_of.tolist(),
        "tasks": [{"classes": task.classes.tolist(), "evaluated": task.evaluated.tolist()}
                  | ({"groups": list(task.groups)} if task.groups else {}) | {
                   "examples": {split: len(index) for split, index in task.indices.items()}}
                  for task in stream.tasks],
    }


def describe(stream: Stream, class_names: Sequence[str]) -> str:
    """A Markdown table of the tasks: number, groups if it is made of them, classes, examples in each split."""
    splits = list(stream.tasks[0].indices)
    grouped = bool(stream.tasks[0].groups)
    lines = [f"| task |{' groups |' * grouped} classes | {' | '.join(splits)} |",
             f"|---:|{':---|' * (1 + grouped)}{'---:|' * len(splits)}"]
    for number, task in enumerate(stream.tasks, 1):
        columns = [task.groups] * grouped + [[class_names[c] for c in task.classes]]
        names = " | ".join(escape.markdown("; ".join(column)) for column in columns)
        counts = " | ".join(str(len(task.indices[split])) for split in splits)
        lines.append(f"| {number} | {names} | {counts} |")
    return "\n".join(lines) + "\n"


def read_coarse_map(path: str, class_names: Sequence[str]) -> dict[int, str]:
    """The coarse category of every class, from a CSV file with columns `class` and `coarse`.

    Rows of other classes are ignored, so one file serves every selection of classes. Blanks around
    names are removed.

    Args:
      path: the file, UTF-8. It is looked for in the working directory, then beside this package and in
        it, so that a config can name a file that comes with the package on every machine.
      class_names: names of the classes, in the order of their numbers.
    """
    if not path:
        raise UserError("stream.coarse is empty; name a CSV file with the columns class, coarse")
    here = files.expand(path)
    package = pathlib.Path(__file__).parents[1]     # where the configs are too, once it is installed
    found = next((file for file in (here, package.parent / here, package / here) if file.exists()),
                 package.parent / here)
    try:
        with open(found, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            rows = [(reader.line_num, row) for row in reader]
            columns = [name.strip() for name in reader.fieldnames or []]
    except FileNotFoundError as error:
        raise UserError(f"cannot read the coarse map {path}: there is neither {here.absolute()} nor "
                        f"{found}") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the coarse map {found}: {error}; "
                        f"expected a CSV file in UTF-8") from error
    if not {"class", "coarse"} <= set(columns):
        raise UserError(f"{path} has the columns {', '.join(columns) or '(none)'}; "
                        f"expected class and coarse")
    coarse = {}
    for line, row in rows:
        if None in row:
            raise UserError(f"{path}: line {line} has more than {len(columns)} columns; put names with "
                            "a comma in double quotes")
        row = {name.strip(): (value or "").strip() for name, value in row.items()}
        name, category = row["class"], row["coarse"]
        if coarse.setdefault(name, category) != category:
            raise UserError(f"{path} puts class {name!r} in {coarse[name]!r} and in {category!r}; "
                            f"expected one category")
    missing = [name for name in class_names if not coarse.get(name)]
    if missing:
        raise UserError(f"{path} has no category for {listed(missing)}; "
                        f"add one row for each class")
    return {number: coarse[name] for number, name in enumerate(class_names)}


def _classes(labels: np.ndarray) -> np.ndarray:
    """The classes that occur, int64, sorted."""
    chex.assert_rank(labels, 1)
    chex.assert_type(labels, int)
    if not len(labels):
        raise UserError("a stream of tasks needs examples; found none in the training split")
    classes = np.unique(labels).astype(np.int64)
    if classes[0] < 0 or classes[-1] >= MOST_CLASSES:
        raise UserError(f"a stream of tasks needs class numbers from 0 to {MOST_CLASSES - 1}; found "
                        f"{classes[0]} to {classes[-1]}: renumber the classes")
    return classes


def _identity(classes: np.ndarray) -> np.ndarray:
    """`label_of` of a stream that keeps the classes as labels."""
    label_of = np.full(classes.max() + 1, -1, np.int32)
    label_of[classes] = classes
    return label_of


def _tasks(groups: Sequence[Sequence[int]]) -> tuple[Task, ...]:
    """Tasks that learn and are evaluated on the same classes, still without examples."""
    groups = [np.sort(np.asarray(group, np.int64)) for group in groups]
    return tuple(Task(group, group, {}) for group in groups)

