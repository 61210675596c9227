"""Models with the interface of scikit-learn, trained by the functions that the commands call.

Rows `X` are a dictionary {modality: array [N, ...]}. Where rows lack a modality, `X["present/MODALITY"]`
bool [N] is False for them, as in a file for `jaxmm predict`; to predict, a modality may be absent
altogether. Or `X` is a list with a dictionary for each row, {modality: array [...]}, which has no entry
for what the row lacks: scikit-learn can take parts of a list. `rows` makes it of the other.

Options are those of a config, with "__" for the dot: `optimizer__learning_rate=0.1`,
`encoders__audio__width=64`, `method__alpha=0.5`; `jaxmm list options` has them all. Their defaults are
those of the config `arrays`, of numbers to predict of `arrays:mla,numbers`, and of labels that hold or not
of `arrays:mla,labels`.
"""
import dataclasses
import functools
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from jaxmm import data, files
from jaxmm.batch import Batch, label_array, real_numbers
from jaxmm.caches import use_compilation_cache
from jaxmm.config import AugmentConfig, Config, DataConfig, EncoderConfig
from jaxmm.data import arrays, new_rows
from jaxmm.data.dataset import Dataset, listed
from jaxmm.data.rows import join
from jaxmm.errors import UserError, as_typed, suggest
from jaxmm.files import PathLike
from jaxmm.evaluate import measure as contribution
from jaxmm.experiments import compare as comparing
from jaxmm.experiments import configs, folders, listing, series
from jaxmm.methods import METHODS
from jaxmm.report import comparison, predictions, variants
from jaxmm.report.contribution import Report
from jaxmm.task import not_for_maps
from jaxmm.train import hosts
from jaxmm.train.options import check_counts, from_dict, to_dict
from jaxmm.train.predictions import predict_block
from jaxmm.train.restore import restore
from jaxmm.train.schedule import train
from jaxmm.train.scores import head_rows, main_head
from jaxmm.train.setup import Run

Rows = Mapping[str, ArrayLike] | Sequence[Mapping[str, ArrayLike]]
Labelled = tuple[Rows, ArrayLike]       # X, y

PRESENT = "present/"
DEFAULTS = {task: f"{configs.shipped('arrays')}:mla{labels}" for task, labels in (      # configs with the defaults
    ("classification", ""), ("multilabel", ",labels"), ("regression", ",numbers"))}
CLASSES_FILE = "classes.json"
BY_MODALITY = {"encoders": EncoderConfig, "augment": AugmentConfig}
# Not options here: what is a parameter of its own, and what X and y decide.
OWN = ("method__name", "train__epochs", "train__seeds")
DECIDED = (*OWN, "data__kind", "data__name", "data__path", "data__preprocess", "data__target", "data__workers",
           "data__zoom", "stream__")


class Estimator(BaseEstimator):
    """What `Classifier` and `Regressor` have in common.

    Args:
      method: one of `jaxmm.METHODS`.
      epochs: of training.
      workdir: the run folder, which gets `report.md`: `fit` resumes what it finds there, or uses it as it is
        where it is finished, and refuses it where it is of other options or data. By default a temporary one
        without a report, which is removed with the estimator: a search over options, whose estimators share
        their parameters, needs that.
      verbose: whether to show progress.
      options: see `jaxmm.estimators`.

    Attributes:
      run_: the trained run.
      workdir_: its folder, which `jaxmm.load` reads.

    Raises:
      UserError: an option is unknown.
    """

    def __init__(self, method: str = "mla", *, epochs: int = 20, workdir: PathLike | None = None,
                 verbose: bool = False, **options: Any):
        self.method, self.epochs, self.workdir, self.verbose = method, epochs, workdir, verbose
        self.options = options
        check_names([method], options)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All parameters by name, options among them."""
        return super().get_params(deep=False) | self.options

    def set_params(self, **params: Any) -> Self:
        """Sets parameters by name, options among them."""
        own = super().get_params(deep=False).keys() & params.keys()
        options = self.options | {name: value for name, value in params.items() if name not in own}
        check_names([params.get("method", self.method)], options)
        for name in own:
            setattr(self, name, params[name])
        self.options = options
        return self

    def fit(self, X: Rows, y: ArrayLike, val: Labelled | None = None) -> Self:
        """Trains on rows X with labels y [N].

        Args:
          X: see `jaxmm.estimators`.
          y: of a classifier text, integers or bools [N], or bools [N, K], labels that hold or not; of a
            regressor numbers [N] or [N, K].
          val: (X, y) to validate on; by default a tenth of the rows (`data__val_fraction`), drawn by
            `data__seed`, which are then not trained on.

        Raises:
          UserError: whatever is wrong with the rows or the options, in one line.
          FloatingPointError: the loss is not finite.
        """
        use_compilation_cache()
        regression = isinstance(self, RegressorMixin)
        config = make_config(self.method, self.epochs, self.options, defaults_for(y, regression))
        dataset, classes = make_dataset(config, {"train": (X, y), "val": val}, regression)
        folder = None if self.workdir else _temporary_folder()
        workdir = folders.workdir(folder.name if folder else os.fspath(self.workdir or ""), "")
        run = train(config, workdir, dataset=dataset, progress=self.verbose)
        if classes is not None and hosts.is_main():
            files.write(workdir / CLASSES_FILE, json.dumps(classes.tolist()) + "\n")
        if not folder:
            series.report(run, workdir, dataset)
        self._folder = folder       # removed with it
        return self._take(run, workdir, classes)

    def transform(self, X: Rows) -> dict[str, np.ndarray]:
        """Features [N, s] by modality, NaN where a row lacks it."""
        parts = [{m: np.where(batch["present"][m][:, None], h, np.float32(np.nan))
                  for m, h in features.items()} for batch, _, features in self._outputs(X, features=True)]
        return {m: np.concatenate([part[m] for part in parts]) for m in parts[0]}

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self, "run_"):
            raise UserError("a fitted estimator is not pickled or copied: its run folder is the model; name "
                            "one by workdir, and jaxmm.load it")
        return super().__getstate__()

    def _take(self, run: Run, workdir: pathlib.Path, classes: np.ndarray | None) -> Self:
        """The estimator itself, fitted with a run; `classes` [C] are what y holds of them."""
        self.run_, self.workdir_ = run, workdir
        if not isinstance(self, RegressorMixin):
            self.classes_ = np.array(run.setup.spec.class_names) if classes is None else classes
        return self

    def _batches(self, X: Rows) -> Iterator[Batch]:
        """The rows, checked, by blocks."""
        check_is_fitted(self, "run_")
        setup = self.run_.setup
        inputs, present = as_arrays("X", X)
        for _, batch in new_rows.array_blocks("X", inputs, present, setup.spec, setup.config.train.batch_size):
            yield batch

    def _outputs(self, X: Rows, features: bool = False):
        """(batch, outputs by head, features by modality) of the rows, by blocks."""
        for batch in self._batches(X):
            yield batch, *predict_block(self.run_.setup, self.run_.state, batch, features)

    def _predicted(self, X: Rows) -> dict[str, np.ndarray]:
        """What `predictions.describe` says of the head that stands for the method, [N, ...] by name."""
        parts = []
        for batch, outputs, _ in self._outputs(X):
            head, present = main_head(outputs), batch["present"]
            there = head_rows(outputs, present)[head]
            if not there.all():
                used = listed([m for m in present if m in self.run_.state.params])
                raise UserError(f"X: row {batch['id'][np.argmin(there)]} has no modality that "
                                f"{self.method} was trained on ({used}); leave such rows out")
            found = predictions.describe(self.run_.setup.task, {head: outputs[head]}, present, {}, True)
            parts.append({name.removeprefix(f"{head}/"): x for name, x in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that is removed with the object."""
    return tempfile.TemporaryDirectory(prefix="jaxmm-", ignore_cleanup_errors=True)


class Classifier(ClassifierMixin, Estimator):
    """A classifier of several modalities; with y bool [N, K], of K labels that hold or not.

    Parameters and attributes are those of `Estimator`, and `classes_` [C]: the classes as y has them.
    """

    def predict(self, X: Rows) -> np.ndarray:
        """The classes [N], of the type that y had; of several labels, bool [N, K]."""
        found = self._predicted(X)
        return found["labels"] if "labels" in found else self.classes_[found["class"]]

    def predict_proba(self, X: Rows) -> np.ndarray:
        """Probabilities [N, C] of the classes in the order of `classes_`, or of each label."""
        return self._predicted(X)["probability"]

    def contribution(self, X: Rows, y: ArrayLike, *, baseline: str = "method", value: str = "correct",
                     clusters: int = 0, permutations: int = contribution.PERMUTATIONS) -> Report:
        """What each modality gives to the predictions, over the rows that have all; printed, it is a report.

        Args:
          X: see `jaxmm.estimators`.
          y: their classes [N].
          baseline: what stands for an absent modality in the report: "method" (what the method does without
            it), "zero", "mean" or "permute".
          value: what is divided among modalities: "correct", "prob" or "nll".
          clusters: of features, for the information decomposition; 0: the classes that readouts predict.
          permutations: orders of the modalities that Shapley values are means over where there are more than
            ten; even.

        Raises:
          UserError: see `jaxmm.evaluate.measure.measure`; or the training data are gone.
        """
        split = join(list(self._batches(X)))
        contribution.used(self.run_)        # of classes, which labels are then numbers of
        labels = number("y", as_labels("y", y, False), self.classes_)
        if len(labels) != len(split["label"]):
            raise UserError(f"y has {len(labels)} rows, X {len(split['label'])}; expected as many")
        return Report(*contribution.measure(self.run_, split | {"label": labels.astype(np.int32)},
                                            contribution.Options(baseline, value, clusters, permutations)))


class Regressor(RegressorMixin, Estimator):
    """Predicts numbers from several modalities. Parameters and attributes are those of `Estimator`."""

    def predict(self, X: Rows) -> np.ndarray:
        """Numbers [N], or [N, K] of K > 1."""
        value = self._predicted(X)["value"]
        return value[:, 0] if value.shape[1] == 1 else value


def load(workdir: PathLike, step: int | None = None) -> Classifier | Regressor:
    """The fitted estimator of a run folder, which `fit` or a command made; the data are not needed.

    `classes_` of a run that a command made are the names of its classes, as text. Parameters are those of
    the run, but for what concerns its data and tasks; a clone is not bound to the folder.

    Args:
      workdir: the run folder.
      step: of a checkpoint; by default the model that the run keeps.

    Raises:
      UserError: it is no run folder, or is damaged.
    """
    use_compilation_cache()
    folder = folders.workdir(os.fspath(workdir), "")
    run = restore(folder, step, data=None)
    config = run.setup.config
    not_for_maps(run.setup.task, "jaxmm.load", f"use `{as_typed('evaluate')}`")
    kind = Regressor if run.setup.task.name == "regression" else Classifier
    model = kind(config.method.name, epochs=config.train.epochs, **changed_options(config, run.setup.task.name))
    return model._take(run, folder, read_classes(folder, run.setup.spec.class_names))


def rows(X: Mapping[str, ArrayLike]) -> list[dict[str, np.ndarray]]:
    """A dictionary for each row, of arrays [N, ...] by modality: scikit-learn can take parts of this list.

    It goes wherever `X` goes, such as to `cross_val_score` and `GridSearchCV`. What a row lacks by
    "present/MODALITY" is not in its dictionary.
    """
    inputs, present = as_arrays("X", X)
    inputs = {m: np.asarray(x) for m, x in inputs.items()}
    counts = {m: len(x) for m, x in (inputs | {f"{PRESENT}{m}": x for m, x in present.items()}).items()}
    if len(set(counts.values())) > 1:
        raise UserError(f"X: {', '.join(f'{m} has {n} rows' for m, n in counts.items())}; expected as "
                        "many of each")
    return [{m: x[i] for m, x in inputs.items() if m not in present or present[m][i]}
            for i in range(next(iter(counts.values()), 0))]


class Comparison(list):
    """Rows of a comparison, as `comparison.means` gives them; printed as the table of its report."""

    def __init__(self, found: Iterable[dict[str, Any]], text: str):
        super().__init__(found)
        self.text = text

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


def compare(source: Rows | str, y: ArrayLike | None = None, *, test: Labelled | None = None,
            val: Labelled | None = None, folds: int = 0, groups: ArrayLike | None = None,
            methods: Sequence[str] | None = None, seeds: int = 1, epochs: int | None = None,
            workdir: PathLike | None = None, verbose: bool = False, tune: str = "", tune_seeds: int = 1,
            baseline: str = "", **options: Any) -> Comparison:
    """Trains several methods over several seeds and compares them on test data, as `jaxmm compare` does.

    Args:
      source: rows X, or a config by name or path, as "av_digits", with data of its own.
      y: labels of the rows; floats are numbers to predict.
      test: (X, y) of these to score on.
      val: (X, y) of these; see `Estimator.fit`.
      folds: of a cross-validation, in place of `test` and of `seeds`: rows are divided into so many parts with
        equal shares of the classes, each of which is tested once. 0: none.
      groups: whole numbers or text [N], by row: rows of one group are in the same fold, and not divided
        between training and validation.
      methods: METHOD, METHOD:MODALITY, METHOD+OPTION=VALUE; by default those of `jaxmm compare`.
      seeds: runs of each.
      epochs: of each run; by default those of the config.
      workdir: folder for the runs and their report; by default one that is removed.
      verbose: whether to show progress.
      tune: OPTION=VALUE,VALUE;..., options that are chosen for each method on validation data by the same
        trials, as "optimizer.learning_rate=0.01,0.1"; "": none.
      tune_seeds: trials of each setting.
      baseline: method that the report gives differences to.
      options: see `jaxmm.estimators`; those of a method go to the methods that have them.

    Returns:
      Mean and sample deviation over the seeds, or folds, of every score: dictionaries with method, buffer
      (size of a memory, or None), head, metric, mean, std (None of one seed) and seeds, their number.

    Raises:
      UserError: whatever would stop one of the runs.
      FloatingPointError: all diverged.
    """
    use_compilation_cache()
    own_data = isinstance(source, str)
    given = source if isinstance(source, str) else defaults_for(y, np.asarray(y).dtype.kind == "f")
    methods = list(methods or configs.default_methods(given) or comparing.DEFAULT_METHODS)
    names = [variants.trained(name.partition("+")[0].partition(":")[0]) for name in methods]
    check_names(names, options, given, OWN if own_data else DECIDED)
    config_for = functools.partial(make_config, epochs=epochs, options=options, given=given)
    config = config_for(names[0])
    check_counts(config)
    comparing.check_folds(config, folds, seeds)
    settings = comparing.read_settings(tune, tune_seeds, folds)
    load = _loader(dataclasses.replace(config.data, folds=folds), source, y, test, val, groups)
    shown = f"{repr(source) if own_data else 'X, y, ...'}, {methods=}, {f'{folds=}' if folds else f'{seeds=}'}"
    how: dict[str, Any] = {"command": f"jaxmm.compare({shown}, ...)", "progress": verbose,
                           "baseline": baseline}
    with _temporary_folder() as temporary:
        folder = folders.workdir(temporary if workdir is None else os.fspath(workdir), "")
        results, text, _ = (
            comparing.cross_validate(load, folds, config_for, methods, folder, **how) if folds else
            comparing.compare_on(load(0), config.stream, config_for, methods, seeds, folder, settings=settings,
                                 tune_seeds=tune_seeds, **how))
    return Comparison(comparison.means(comparison.records(results)), text)


def _loader(config: DataConfig, source: Rows | str, y: ArrayLike | None, test: Labelled | None,
            val: Labelled | None, groups: ArrayLike | None) -> Callable[[int], Dataset]:
    """What makes the data set of `compare`, or each of its folds by number.

    Raises:
      UserError: some are given that do not go together, or some are missing.
    """
    if isinstance(source, str):
        if y is not None or test or val or groups is not None:
            raise UserError(f"{source!r} is a config with data of its own; leave out y, test, val and groups")
        return data.load_folds(config) if config.folds else lambda fold: data.load(config)
    if y is None or not (test or config.folds):
        raise UserError("y and test are missing; expected compare(X, y, test=(X_test, y_test)), or "
                        "compare(X, y, folds=5)")
    if config.folds and (test or val):
        raise UserError(f"folds={config.folds} does not go with test and val, which are taken of the rows; leave "
                        "them out, or join them with the rows")
    found, _ = as_file({"train": (source, y), "val": val, "test": test}, np.asarray(y).dtype.kind == "f", groups)
    return lambda fold: dataset_of(found, dataclasses.replace(config, fold=fold))


def defaults_for(y: ArrayLike | None, regression: bool) -> str:
    """The config whose options are the defaults for labels like these."""
    return DEFAULTS["regression" if regression else "multilabel" if np.asarray(y).ndim == 2 else "classification"]


def make_config(method: str, epochs: int | None, options: Mapping[str, Any],
                given: str = DEFAULTS["classification"]) -> Config:
    """The config `given` for a method, with these options as far as the method has them.

    Raises:
      UserError: a value of another type.
    """
    values = to_dict(configs.config_for(configs.Chosen(given, Config(), {}), method))
    own = values["method"]
    for name, value in options.items():
        *sections, option = split_name(name)
        if sections == ["method"] and option not in own:
            continue
        section = functools.reduce(lambda part, key: part.setdefault(key, {}), sections, values)
        section[option] = value.item() if isinstance(value, np.generic) else value
    if epochs is not None:
        values["train"]["epochs"] = epochs.item() if isinstance(epochs, np.generic) else epochs
    return from_dict(values)


def split_name(name: str) -> list[str]:
    """The path of an option in a config: the name of a modality may have "__" in it."""
    section, *middle, option = name.split("__")
    return [section, "__".join(middle), option] if section in BY_MODALITY else [section, *middle, option]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Options in nested dictionaries, by their names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= flatten(value, f"{name}__") if isinstance(value, Mapping) else {name: value}
    return found


def check_names(methods: Iterable[str], options: Iterable[str], given: str = DEFAULTS["classification"],
                without: tuple[str, ...] = DECIDED) -> None:
    """Raises UserError, with the nearest match, for a method, or an option of none of these, that is unknown.

    `without` is what the names of options do not start with.
    """
    known: dict[str, Any] = {}
    for method in methods:
        listing.check("method", method, METHODS)
        known |= flatten(to_dict(make_config(method, None, {}, given)))
    for name in options:
        section, *middle = name.split("__")[:-1] or [""]
        modality = "__".join(middle) if section in BY_MODALITY and middle else "MODALITY"
        names = [*known, *(f"{part}__{modality}__{field.name}" for part, kind in BY_MODALITY.items()
                           for field in dataclasses.fields(kind))]
        names = [n for n in dict.fromkeys(names) if not n.startswith(without)]
        if name not in names or name.startswith(tuple(f"{part}__MODALITY__" for part in BY_MODALITY)):
            raise UserError(f"{name!r} is not an option{suggest(name, names)}")


def changed_options(config: Config, task: str) -> dict[str, Any]:
    """The options of a config, by name, that are not the defaults of its method for this task."""
    default = make_config(config.method.name, None, {}, DEFAULTS[task])
    for part, kind in BY_MODALITY.items():
        getattr(default, part).update({m: kind() for m in getattr(config, part)})
    known = flatten(to_dict(default))
    return {name: value for name, value in flatten(to_dict(config)).items()
            if not name.startswith(DECIDED) and (name not in known or known[name] != value)}


def make_dataset(config: Config, splits: Mapping[str, Labelled | None], regression: bool,
                 ) -> tuple[Dataset, np.ndarray | None]:
    """The data set of splits (X, y), and the classes [C] that their labels are numbers of, if they are.

    Raises:
      UserError: whatever is wrong with them.
    """
    found, classes = as_file(splits, regression)
    return dataset_of(found, config.data), classes


def dataset_of(found: Mapping[str, np.ndarray], config: DataConfig) -> Dataset:
    """The data set of arrays that are named as in a file."""
    return data.finish(arrays.assemble(pathlib.Path("arrays"), found, config, needed=["train"]), config)


def as_file(splits: Mapping[str, Labelled | None], regression: bool, groups: ArrayLike | None = None,
            ) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Splits (X, y) as the arrays of a file for training, and the classes [C] that their labels are numbers of,
    if they are; `groups` [N] are those of the rows of train.

    Raises:
      UserError: whatever is wrong with them.
    """
    given = {split: pair for split, pair in splits.items() if pair is not None}
    for split, pair in given.items():
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise UserError(f"{split} is {type(pair).__name__}; expected a pair (X, y)")
    labels = {split: as_labels(f"y of {split}", y, regression) for split, (_, y) in given.items()}
    found: dict[str, np.ndarray] = {}
    classes = None
    if not regression and labels["train"].ndim == 1:
        classes = np.unique(labels["train"])
        labels = {split: number(f"y of {split}", y, classes) for split, y in labels.items()}
        found["class_names"] = np.array(list(map(str, classes.tolist())))
    for split, (X, _) in given.items():
        inputs, present = as_arrays(f"X of {split}", X)
        found |= {f"{split}/{m}": x for m, x in inputs.items()}
        found |= {f"{split}/{PRESENT}{m}": x for m, x in present.items()}
        found[f"{split}/label"] = labels[split]
    if groups is not None:
        found["train/group"] = group = np.array(np.asarray(groups).tolist())
        if group.ndim != 1:
            raise UserError(f"groups is of shape {group.shape}; expected one for each row, [N]")
    return found, classes


def as_arrays(where: str, X: Rows) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Rows as arrays [N, ...] by modality, and the masks [N] of those that are missing in some.

    Raises:
      UserError: they are no rows of numbers.
    """
    if not isinstance(X, Mapping):
        if not isinstance(X, Sequence) or not X or not all(isinstance(row, Mapping) for row in X):
            raise UserError(f"{where} is {type(X).__name__}; expected {{modality: array [rows, ...]}}, or a "
                            "list with a dictionary for each row, as jaxmm.rows makes it")
        X = stack(where, X)
    if "label" in X:
        raise UserError(f"{where} has a modality 'label'; give the labels as y, or rename it")
    if np.ndim(X.get("group", 0)) == 1:
        raise UserError(f"{where} has a modality 'group' with one number for each row, which a file has for groups "
                        "of rows; jaxmm.compare takes them as groups: leave it out, or rename it")
    found = {name: real_numbers(f"{where}: {name}", np.asarray(x) if hasattr(x, "__array__") and
                                not isinstance(x, np.ndarray) else x) for name, x in X.items()}
    return ({m: x for m, x in found.items() if not m.startswith(PRESENT)},
            {m.removeprefix(PRESENT): x for m, x in found.items() if m.startswith(PRESENT)})


def stack(where: str, X: Sequence[Mapping[str, ArrayLike]]) -> dict[str, np.ndarray]:
    """The dictionary of arrays that a list of rows stands for; what a row lacks is zeros in them."""
    found = {}
    for m in sorted({m for row in X for m in row}):
        there = np.array([m in row for row in X])
        parts = [np.asarray(row[m]) for row in X if m in row]
        forms = sorted({f"{x.dtype} {list(x.shape)}" for x in parts})
        if len(forms) > 1:
            raise UserError(f"{where}: {m} has rows of {' and of '.join(forms[:2])}; expected one type and "
                            "shape")
        found[m] = np.zeros((len(X), *parts[0].shape), parts[0].dtype)
        found[m][there] = parts
        if not there.all():
            found[f"{PRESENT}{m}"] = there
    return found


def as_labels(where: str, y: ArrayLike, regression: bool) -> np.ndarray:
    """Labels as an array of one type: numbers to predict, or what stands for classes.

    Raises:
      UserError: they are of several types, or of one that is not for the task.
    """
    if isinstance(y, np.ma.MaskedArray):
        return label_array(where, y)        # which refuses it
    y = np.asarray(y)
    if y.dtype.kind == "O":
        types = sorted({type(value).__name__ for value in y.ravel().tolist()})
        if len(types) > 1 or types[0] not in ("str", "int", "bool", "float"):
            raise UserError(f"{where} holds values of the types {', '.join(types)}; expected one type: text, "
                            "integers, bools or floats")
        y = np.array(y.tolist())
    if regression:
        if y.dtype.kind not in "iuf":
            raise UserError(f"{where} is {y.dtype}; a Regressor predicts numbers: use Classifier for classes")
        return y.astype(np.float64)
    if y.dtype.kind == "f":
        raise UserError(f"{where} is {y.dtype}; expected classes as text, integers or bools: use Regressor "
                        "to predict numbers, y.astype(int) for classes")
    return y if y.ndim == 1 and y.dtype.kind in "biuU" else label_array(where, y)


def number(where: str, y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The positions of labels [N] among the sorted classes [C].

    Raises:
      UserError: one is not among them.
    """
    unknown = ~np.isin(y, classes)
    if unknown.any():
        row = np.argmax(unknown)
        raise UserError(f"{where} is {str(y[row])!r} in row {row}, which is not a class that is trained on "
                        f"({listed(classes.tolist())}); {unknown.sum()} such rows")
    return np.searchsorted(classes, y)


def read_classes(folder: pathlib.Path, names: Sequence[str]) -> np.ndarray | None:
    """The classes that `fit` left in a run folder, if it made it.

    Raises:
      UserError: they are not those of the run.
    """
    path = folder / CLASSES_FILE
    if not path.exists():
        return None
    classes = files.parse_json(files.read(path))
    if not isinstance(classes, list) or list(map(str, classes)) != list(names):
        raise UserError(f"{path} does not hold the classes of the run ({listed(names)}); restore or remove "
                        "it")
    return np.array(classes)
