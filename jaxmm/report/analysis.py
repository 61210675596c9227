"""Analyses of a trained run: what each encoder has learned, and when each modality matters.

`write` puts them into `analysis.md` of the run folder, with plots, one section for each analysis.
Existing sections stay unless they are made again, or the data have changed since.
"""
import functools
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from jaxmm import escape, files
from jaxmm.batch import Batch
from jaxmm.data.dataset import deviations, fingerprint
from jaxmm.data.rows import select
from jaxmm.errors import UserError
from jaxmm.evaluate import robustness
from jaxmm.evaluate.class_level import average, beats_sum, class_accuracy
from jaxmm.evaluate.gap import modality_gap, principal_plane
from jaxmm.train.scores import head_rows
from jaxmm.evaluate.probe import probe_encoders
from jaxmm.evaluate.utilization import imbalance, utilization, with_means
from jaxmm.report import analysis_plots, contribution, plots, units
from jaxmm.report.tables import capital, csv_text, markdown, percent, sort_heads
from jaxmm.train.scores import main_head
from jaxmm.train import validity
from jaxmm.evaluate.measure import Options
from jaxmm.train.restore import restore_each
from jaxmm.train.predictions import predict_split, split_features, split_squeezes
from jaxmm.train.setup import Run
from jaxmm.task import need_classes

FILE = "analysis.md"
LONGEST_TABLE = 20      # classes; of more only those with the largest gain are shown


class Trained(NamedTuple):
    """A run with its folder."""
    run: Run
    workdir: pathlib.Path

    @property
    def method(self) -> str:
        return self.run.setup.config.method.name

    @property
    def modalities(self) -> list[str]:
        """Those that the method uses, in the order of the data."""
        return [m for m in self.run.setup.dataset.modalities if m in self.run.state.params]


def write(run: Run, workdir, names: Sequence[str], split: str,
          references: Sequence[Trained] = (), options: Options = Options()) -> str:
    """Writes the analyses called `names` into the run folder; returns their text.

    Args:
      run: to be analysed.
      workdir: its folder.
      names: of analyses, keys of `TITLES`.
      split: the split to predict; probes are always tested on "test".
      references: other runs on the same data to compare with, such as unimodal ones.
      options: of the contribution.

    Raises:
      UserError: references on other data, or an analysis that this run does not allow.
    """
    subject = Trained(run, pathlib.Path(workdir))
    check_references(subject, references)
    analyses = ANALYSES | {"contribution": lambda subject, split, references: contribution.write(
        subject.run, subject.workdir, split, options)}
    made = {TITLES[name]: analyses[name](subject, split, references) for name in names}
    data = f"on the data {'-'.join(run.setup.checksums.values())}."
    changed = escape.markdown(validity.describe(run.setup.dataset.name, run.changed))
    note = f"Note: {changed}. " if changed else ""
    drawn = plots.note(run.setup.dataset.modalities)
    made = {title: f"{text.strip()}{drawn}\n\n{note}Of step {current_step(run)}, {data}"
            for title, text in made.items()}
    sections = read_sections(subject.workdir / FILE)
    gone = [title for title, text in sections.items() if title not in made
            and not text.endswith(data)]
    if gone:
        logging.warning("%s: removed %s, of other data than there are now; make it again",
                        subject.workdir / FILE, ", ".join(gone))
    sections = {title: text for title, text in sections.items() if title not in gone} | made
    text = "".join(f"\n## {title}\n\n{section}\n" for title, section in sections.items())
    title = f"# Analyses of {subject.method} on {escape.markdown(run.setup.dataset.name)}\n"
    files.write(subject.workdir / FILE, title + text)
    link_report(subject.workdir)
    return "\n\n".join(f"## {title}\n\n{section}" for title, section in made.items())


def link_report(workdir: pathlib.Path) -> None:
    """Adds a line on the analyses to the run's report, if there is one without it."""
    report, link = workdir / "report.md", f"More about this run: [analyses]({FILE})."
    text = files.read(report) if report.exists() else link
    if link not in text:
        files.write(report, f"{text}\n{link}\n")


def read_sections(path: pathlib.Path) -> dict[str, str]:
    """Text of the sections by title; none if there is no file."""
    if not path.exists():
        return {}
    parts = re.split(r"^## (.*)\n", files.read(path), flags=re.MULTILINE)[1:]
    return {title: text.strip() for title, text in zip(parts[::2], parts[1::2])}


def check_references(subject: Trained, references: Sequence[Trained]) -> None:
    """Raises UserError for a reference that was not trained on the data of the subject."""
    expected = fingerprint(subject.run.setup.dataset) if references else {}
    for other in references:
        found = fingerprint(other.run.setup.dataset)
        differ = [split for split in expected if found[split] != expected[split]]
        if differ or "train" in other.run.changed:
            raise UserError(f"--reference={other.workdir}: trained on other data than "
                            f"{subject.workdir} ({', '.join(differ or ['train'])}); name runs with "
                            "the same config.data")


def probe_section(subject: Trained, split: str, references: Sequence[Trained]) -> str:
    """Linear probes of every encoder against its readout and against unimodal training."""
    del split
    need_classes(subject.run.setup.task, "--probe", "leave it out")
    alone = unimodal(references)
    curves = {subject.method: probe_curve(subject)} | {
        f"unimodal {m}": probe_curve(other) for m, other in alone.items()}
    probes = {name: {m: curve[max(curve)] for m, curve in by_modality.items()}
              for name, by_modality in curves.items()}
    readouts = accuracies(subject, "test")
    rows = []
    for m in subject.modalities:
        found = probes[subject.method][m]
        row = {"encoder": m, "probe": percent(found),
               "readout": percent(readouts[m]) if m in readouts else None}
        if m in alone:
            trained = probes[f"unimodal {m}"][m]
            row |= {"unimodal": percent(accuracies(alone[m], "test")[m]),
                    "probe, unimodal": percent(trained),
                    "difference": points(found - trained)}
        rows.append(row)
    columns = ["encoder", "probe", "readout"]
    if alone:
        columns += ["unimodal", "probe, unimodal", "difference"]
    text = ("Test accuracy, in percent. `probe`: of logistic regression on the frozen encoder's "
            "features. `readout`: of the run's own head for that modality, which for `concat` is "
            "its slice of the linear layer.")
    if alone:
        listed = escape.markdown(", ".join(f"{m} ({alone[m].workdir})" for m in alone))
        text += (f" `unimodal`: of a model trained on that modality alone, {listed}; `difference`: "
                 "between the probes of both encoders. Where it is far below 0, the modality went "
                 "lazy.")
    text += f"\n\n{markdown(rows, columns)}"
    if max(map(len, curves[subject.method].values())) > 2:
        plots.save(subject.workdir, "probes", functools.partial(
            analysis_plots.probe_curves, curves, subject.run.setup.dataset.modalities,
            1 / subject.run.setup.dataset.num_classes, "Linear probes along training"))
        return text + "\n![Probe accuracy along training](probes.png)\n"
    return text + ("\nFor the curve along training keep more checkpoints: "
                   "`--config.train.keep_checkpoints=N` when training.\n")


def probe_curve(trained: Trained) -> dict[str, dict[int, float]]:
    """Probe accuracies by modality and step, of every checkpoint up to that of the run."""
    curve, last = {m: {} for m in trained.modalities}, current_step(trained.run)
    earlier = ((step, run) for step, run in restore_each(trained.run, trained.workdir)
               if step < last)
    for step, run in [*earlier, (last, trained.run)]:
        for m, value in probe_run(run).items():
            curve[m][step] = value
    return curve


def probe_run(run: Run) -> dict[str, float]:
    """Accuracy of a linear probe of every encoder of a run."""
    return probe_encoders(all_features(run), run.setup.dataset.splits)


def gap_section(subject: Trained, split: str, references: Sequence[Trained]) -> str:
    """Distances between the modalities' mean features, and their principal plane."""
    del references
    batch = subject.run.setup.dataset.splits[split]
    features = {m: h[batch["present"][m]] for m, h in split_features(
        subject.run.setup, subject.run.state, batch).items() if batch["present"][m].any()}
    distances = modality_gap(features)
    if not distances:
        widths = escape.markdown(", ".join(f"{m} {h.shape[1]}" for m, h in features.items()))
        return (f"No two modalities have features of one width ({widths}), so they lie in different "
                "spaces and no distance between them has a meaning. Encoders get one width by "
                "`--config.encoders.MODALITY.features`.")
    rows = [{"modalities": f"{a}, {b}", "distance": f"{d:.3f}"} for (a, b), d in distances.items()]
    text = ("Distance between the means of the features, each example's scaled to length 1: 0 where "
            f"both lie in one place, 2 at most ({split} split).\n\n"
            + markdown(rows, ["modalities", "distance"]))
    compared = dict.fromkeys(m for pair in distances for m in pair)
    left_out = [m for m in features if m not in compared]
    if left_out:
        text += f"\nWithout {escape.markdown(', '.join(left_out))}, whose features have another width.\n"
    groups = {}
    for m in compared:
        groups.setdefault(features[m].shape[1], {})[m] = features[m]
    planes = [principal_plane(group) for width, group in groups.items() if width > 1]
    plots.save(subject.workdir, "modality_gap", functools.partial(
        analysis_plots.feature_planes, planes, subject.run.setup.dataset.modalities,
        f"Features of {subject.method}"))
    return text + "\n![Features on their two principal axes](modality_gap.png)\n"


def class_section(subject: Trained, split: str, references: Sequence[Trained]) -> str:
    """Accuracy by class of each modality, of their average, of fusion, and what fusion adds."""
    modalities, dataset = subject.modalities, subject.run.setup.dataset
    need_classes(subject.run.setup.task, "--per_class", "leave it out")
    if len(modalities) < 2:
        raise UserError(f"--per_class compares modalities with their fusion, and {subject.workdir} "
                        f"has only {modalities[0]}; name a run of several, and this one as a "
                        "--reference")
    batch = dataset.splits[split]
    own = predict(subject, batch)
    anything = head_rows(own, batch["present"])[main_head(own)]
    alone = unimodal(references)
    logits = {m: predict(alone[m], batch)[m] if m in alone else own[m] for m in modalities}
    single = {m: class_accuracy(z, batch["label"], batch["present"][m]) for m, z in logits.items()}
    columns = single | {"average": class_accuracy(
        average(logits, batch["present"]), batch["label"], anything)}
    for other in references:
        if other.method != "unimodal":
            z = predict(other, batch)
            columns[other.method] = class_accuracy(
                z[main_head(z)], batch["label"], head_rows(z, batch["present"])[main_head(z)])
    fused = class_accuracy(own[main_head(own)], batch["label"], anything)
    columns[f"{subject.method}, {main_head(own)}"] = fused
    gain, beats = fused - sum(single.values()), beats_sum(fused, single)
    best = np.max(list(single.values()), axis=0)
    count = np.bincount(batch["label"], minlength=dataset.num_classes)
    order = np.argsort(-np.nan_to_num(gain, nan=-np.inf), kind="stable")
    rows = [{"class": dataset.class_names[c], "examples": count[c],
             **{name: cell(accuracy[c]) for name, accuracy in columns.items()},
             "over the best": points(fused[c] - best[c]), "over the sum": points(gain[c])}
            for c in order]
    names = ["class", "examples", *columns, "over the best", "over the sum"]
    files.write(subject.workdir / "per_class.csv", csv_text(rows, names))
    plots.save(subject.workdir, "per_class", functools.partial(
        analysis_plots.class_gains, best, fused, beats, dataset.class_names,
        f"{subject.method} by class, {split}"))
    sources = [f"{m}: of {alone[m].workdir}, trained on it alone" if m in alone else
               f"{m}: of the run's own head" for m in modalities]
    shown = rows if len(rows) <= LONGEST_TABLE else rows[:LONGEST_TABLE]
    more = "" if shown == rows else (f" The {len(shown)} classes with the largest gain; all are in "
                                     "[per_class.csv](per_class.csv).")
    listed = escape.markdown(", ".join(dataset.class_names[c] for c in order if beats[c])) or "none"
    return (f"Accuracy by class, in percent ({split} split; {escape.markdown('; '.join(sources))}). "
            f"`average` is of the mean of their probabilities.{more}\n\n{markdown(shown, names)}\n"
            f"Classes on which fusion beats the sum of the modalities ({beats.sum()} of "
            f"{len(beats)}): {listed}.\n\n![Fusion against the best modality by class](per_class.png)\n")


def robustness_section(subject: Trained, split: str, references: Sequence[Trained]) -> str:
    """The headline of every head against noise on a modality, and with modalities missing."""
    del references
    dataset, seed = subject.run.setup.dataset, subject.run.setup.config.data.seed
    batch, noise = dataset.splits[split], deviations(dataset.splits["train"])
    task = subject.run.setup.task
    metric = task.headline

    def read(rows: Batch):
        return predict(subject, rows)

    panels, tables = {}, []
    for m in subject.modalities:
        if m not in dataset.num_tokens:     # noise on token ids has no meaning
            curves = robustness.noise_curves(read, batch, noise, m, seed, task)
            panels[f"noise on {m}"] = robustness.SIGMAS, curves
            tables.append(f"Noise on {escape.markdown(m)}, in standard deviations of the training data:\n\n"
                          + curve_table("noise", robustness.SIGMAS, curves, dataset.modalities, metric))
    if len(subject.modalities) > 1:
        curves = robustness.missing_curves(read, batch, subject.modalities, seed, task)
        panels["missing at random"] = robustness.RATES, curves
        tables.append("Each modality of each example missing with a probability, one always kept; "
                      "the head of a modality is scored where it is there:\n\n"
                      + curve_table("missing", robustness.RATES, curves, dataset.modalities, metric))
        # One program for all of them, which takes as long to compile as many evaluations.
        masked = functools.partial(predict, subject, masks=True)
        without = {m: robustness.dropped(masked, batch, noise, m, task) for m in subject.modalities}
        heads = sort_heads({h for by_head in without.values() for h in by_head}, dataset.modalities)
        tables.append("One modality missing everywhere:\n\n" + markdown(
            [{"without": m} | {h: units.number(metric, a) for h, a in by_head.items()}
             for m, by_head in without.items()], ["without", *heads]))
    if not panels:
        raise UserError(f"--robustness: {subject.workdir} has nothing but the text "
                        f"{subject.modalities[0]}, which takes no noise and cannot be left out")
    plots.save(subject.workdir, "robustness", functools.partial(
        analysis_plots.robustness_curves, panels, dataset.modalities, units.guess(task, dataset, split),
        f"{subject.method} on worse inputs, {split}", metric))
    title = capital(units.unit(metric).title)
    return (f"{title} of every head, {units.explain(metric)} ({split} split). " + "\n".join(tables)
            + f"\n![{title} as inputs get worse](robustness.png)\n")


def utilization_section(subject: Trained, split: str, references: Sequence[Trained]) -> str:
    """Accuracy of each modality's head with and without what the others tell its encoder."""
    del references
    setup, state = subject.run.setup, subject.run.state
    need_classes(setup.task, "--utilization", "leave it out")
    if setup.programs.squeezes is None:
        raise UserError(f"--utilization is for encoders that exchange what they see, and those of "
                        f"{subject.method} do not; name a run of mmtm or its like")
    train, batch = setup.dataset.splits["train"], setup.dataset.splits[split]
    copy = setup.programs.fetch(state)
    means = with_means(copy.batch_stats["exchange"], split_squeezes(setup, state, train), train["present"])
    state = setup.programs.place(copy._replace(batch_stats=copy.batch_stats | {"exchange": means}))
    whole, alone = {}, {}
    for m in subject.modalities:
        rows = select(batch, np.flatnonzero(batch["present"][m]))
        nothing = {k: np.full(len(p), k == m) for k, p in rows["present"].items()}
        for found, given in ((whole, rows), (alone, rows | {"present": nothing})):
            if len(rows["label"]):
                found[m] = np.mean(predict_split(setup, state, given)[m].argmax(-1) == rows["label"])
    rates = utilization(whole, alone)
    rows = [{"head": m, "accuracy": percent(whole[m]), "without the others": percent(alone[m]),
             "utilization": f"{100 * u:+.1f}"} for m, u in rates.items()]
    return ("Accuracy of the head of each modality, in percent, and the same where the means of the "
            "training data stand for what the other modalities tell its encoder. `utilization`: the share "
            f"of the accuracy that is lost, the conditional utilization rate of the others ({split} split). "
            f"Imbalance, the largest less the smallest: {100 * imbalance(rates):.1f}.\n\n"
            + markdown(rows, ["head", "accuracy", "without the others", "utilization"]))


def curve_table(name: str, levels: Sequence[float], curves: robustness.Curves,
                modalities: Sequence[str], metric: str) -> str:
    """Levels as rows, heads as columns."""
    heads = sort_heads(curves, modalities)
    return markdown([{name: f"{level:g}"} | {h: units.number(metric, curves[h][i]) for h in heads}
                     for i, level in enumerate(levels)], [name, *heads])


def cell(accuracy: float) -> str | None:
    """In percent; None if there were no examples."""
    return None if np.isnan(accuracy) else percent(accuracy)


def points(difference: float) -> str | None:
    """A difference of accuracies in percentage points."""
    return None if np.isnan(difference) else f"{100 * difference:+.1f}"


def unimodal(references: Sequence[Trained]) -> dict[str, Trained]:
    """The models among the references that were trained on one modality alone, by modality."""
    return {r.modalities[0]: r for r in references if r.method == "unimodal"}


def predict(trained: Trained, batch: Batch, masks: bool = False) -> dict[str, np.ndarray]:
    return predict_split(trained.run.setup, trained.run.state, batch, masks)


def accuracies(trained: Trained, split: str) -> dict[str, float]:
    """Accuracy of every head."""
    batch = trained.run.setup.dataset.splits[split]
    return robustness.headlines(predict(trained, batch), batch, trained.run.setup.task)


def all_features(run: Run) -> dict[str, dict[str, np.ndarray]]:
    """Encoder outputs [N, s] by split and modality."""
    return {split: split_features(run.setup, run.state, batch)
            for split, batch in run.setup.dataset.splits.items()}


def current_step(run: Run) -> int:
    return int(run.setup.programs.fetch(run.state).step)


ANALYSES: Mapping[str, Callable[[Trained, str, Sequence[Trained]], str]] = {
    "probe": probe_section, "gap": gap_section, "per_class": class_section,
    "robustness": robustness_section, "utilization": utilization_section}
TITLES = {"probe": "Linear probes", "gap": "Modality gap", "per_class": "By class",
          "robustness": "Robustness", "utilization": "Utilization", "contribution": "Contribution"}
