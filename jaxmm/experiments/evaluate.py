"""A trained model evaluated: on any split, with modalities missing or noisy, and analysed."""
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxmm import escape, files
from jaxmm.batch import Batch, Logits, batch_size
from jaxmm.data.dataset import SPLITS, deviations
from jaxmm.data.streams import Stream
from jaxmm.errors import UserError, check_choice, suggest
from jaxmm.evaluate.corruptions import corrupt
from jaxmm.report import analysis, continual
from jaxmm.report import predictions as table
from jaxmm.report.tables import scores_table
from jaxmm.task import not_for_maps
from jaxmm.train import validity
from jaxmm.evaluate.measure import Options
from jaxmm.train.predictions import make_weights, predict_split
from jaxmm.train.restore import restore
from jaxmm.train.scores import score, score_tasks
from jaxmm.train.setup import Run


def evaluate(workdir: pathlib.Path, step: int | None, split: str, drop: Sequence[str],
             noise: Sequence[str], path: str = "", predictions: str = "") -> str:
    """Evaluates a run; returns a line on what was evaluated, and the table of every head.

    `path` is where the data of the run are now, by default where they were in training. `predictions`
    names a file for the predictions of every head for every example.
    """
    if predictions:
        table.check_path("--predictions", files.expand(predictions), table.SUFFIXES)
    run = restore(workdir, step, data=path)
    if predictions:
        not_for_maps(run.setup.task, "--predictions")
    dataset = run.setup.dataset
    check_choice("--split", split, SPLITS)
    original = dataset.splits[split]
    used = [m for m in dataset.modalities if m in run.state.params]
    dropped, sigmas = parse_drop(drop, used), parse_noise(noise, used)
    for m in sigmas:
        if m in dataset.num_tokens:
            raise UserError(f"--noise={m}: {m} is text, which takes no noise; name another modality")
    batch = corrupt(original, dropped, sigmas, deviations(dataset.splits["train"]),
                    run.setup.config.data.seed, used)
    if not batch_size(batch):
        raise UserError(f"--drop={','.join(dropped)} leaves no example of {split} with any "
                        "modality; drop fewer")
    logits = predict_split(run.setup, run.state, batch)
    scores = score(logits, batch, run.setup.task.scores)
    if predictions:
        write_predictions(run, batch, logits, predictions)
    notes = [f"{run.setup.config.method.name} on {dataset.name}, "
             f"step {run.setup.programs.fetch(run.state).step}: "
             f"{batch_size(batch)} examples of {split}"]
    if run.changed:
        notes.append(f"Note: {validity.describe(dataset.name, run.changed)}")
    notes += [f"Noise of {sigma:g} standard deviations on {m}" for m, sigma in sigmas.items()]
    notes += [f"Without {m}, which has no row in the table" for m in dropped]
    if batch_size(batch) < batch_size(original):
        notes.append(f"{batch_size(original) - batch_size(batch)} more examples have nothing that the "
                     "run would use and are left out")
    tables = [scores_table(scores, dataset.modalities)]
    if run.setup.stream and split != "train":
        kind = run.setup.config.stream.kind
        record = score_tasks({head: logits[head] for head in scores}, batch,
                             remaining(run.setup.stream, split, original, batch), split)
        tables.append("By task, in percent:\n\n" + continual.table(
            continual.final_accuracy(record, kind), dataset.modalities))
    return "\n\n".join(["\n".join(map(escape.printable, notes)), *tables])


def check_together(names: Sequence[str], changes: Sequence[str], predictions: str,
                   references: Sequence[str], options: Options = Options()) -> None:
    """Raises UserError for options that do not go together: analyses, `changes` to the data and files."""
    if references and not names:
        raise UserError("--reference is for analyses; name one, such as --probe")
    if names and changes:
        raise UserError(f"--drop and --noise do not go with --{names[0]}, which looks at the model "
                        "as it is; --robustness shows both")
    if names and predictions:
        raise UserError(f"--predictions does not go with --{names[0]}; ask for them alone")
    for option, value in options._asdict().items():
        if "contribution" not in names and value != Options._field_defaults[option]:
            raise UserError(f"--{option} is for --contribution; add that, or leave it out")


def write_predictions(run: Run, batch: Batch, logits: Logits, path: str) -> None:
    """A row for every example of `batch`, as `jaxmm predict` writes it, with `label`: what is true."""
    weights = make_weights(run.setup, run.state)(logits, batch["present"])
    columns = table.describe(run.setup.task, logits, batch["present"], weights, True)
    columns = {f"label/{table.PREDICTED[run.setup.task.name]}": batch["label"]} | columns
    with table.open_table(files.expand(path), run.setup.task.names) as add:
        add(batch["id"].tolist(), columns)


def analyse(workdir: pathlib.Path, step: int | None, split: str, names: Sequence[str],
            references: Sequence[str], path: str = "", options: Options = Options()) -> str:
    """The analyses called `names`, which are also written into the run folder, as is said."""
    run = restore(workdir, step, data=path)
    not_for_maps(run.setup.task, f"--{names[0]}")
    check_choice("--split", split, SPLITS)
    others = [analysis.Trained(restore(folder, None, data=path), folder)
              for folder in map(files.expand, references)]
    found = analysis.write(run, workdir, names, split, others, options)
    return f"{found}\n\n{escape.printable(workdir / analysis.FILE)} shows it with the plots."


def remaining(stream: Stream, split: str, original: Batch, batch: Batch) -> Stream:
    """The stream over the examples of `original` that are left in `batch`."""
    kept = np.isin(original["id"], batch["id"])
    position = np.cumsum(kept) - 1
    return stream._replace(tasks=tuple(
        task._replace(indices={split: position[rows[kept[rows]]]})
        for task in stream.tasks for rows in [task.indices[split]]))


def parse_drop(values: Sequence[str], modalities: Sequence[str]) -> list[str]:
    """Modalities named by --drop.

    Raises:
      UserError: a modality that the run does not have, or all that it has.
    """
    names = list(dict.fromkeys(_items(values)))
    for name in names:
        _check_modality("--drop", name, modalities)
    if set(names) == set(modalities):
        raise UserError(f"--drop={','.join(names)} leaves no modality of the run; keep at least "
                        f"one of {', '.join(modalities)}")
    return names


def parse_noise(values: Sequence[str], modalities: Sequence[str]) -> dict[str, float]:
    """Standard deviations by modality, named by --noise.

    Raises:
      UserError: a modality that the run does not have or that is named twice, or not a number >= 0.
    """
    sigmas = {}
    for item in _items(values):
        name, _, number = item.rpartition(":")
        _check_modality("--noise", name or item, modalities)
        try:
            sigma = float(number)
        except ValueError:
            sigma = math.nan
        if not 0 <= sigma <= np.finfo(np.float32).max:
            raise UserError(f"--noise={item}: expected MODALITY:SIGMA with a number SIGMA >= 0, "
                            f"such as {modalities[0]}:0.5")
        if name in sigmas:
            raise UserError(f"--noise names {name} twice; give one SIGMA for each modality")
        sigmas[name] = sigma
    return sigmas


def _items(values: Sequence[str]) -> list[str]:
    return [item.strip() for value in values for item in value.split(",")]


def _check_modality(option: str, name: str, modalities: Sequence[str]) -> None:
    if name not in modalities:
        raise UserError(f"{option}: {name!r} is not a modality of the run{suggest(name, modalities)}")
