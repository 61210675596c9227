r"""Predicts rows without labels with a trained model; only its run folder is needed.

    jaxmm predict --workdir=runs/mine --data=NEW.npz --output=predictions.csv
    jaxmm predict --workdir=runs/mine --data=NEW.npz --output=predictions.npz \
        --probabilities --embeddings=features.npz
    jaxmm predict --workdir=runs/cremad --data=data/cremad --split=test --output=test.csv
    jaxmm predict --workdir=runs/table_mla --data=NEW.csv --output=predictions.csv

NEW.npz holds an array [rows, ...] for each modality, under its name, in the form of the training data.
Modalities may be absent, in all rows or where `present/MODALITY` (bool) is False. `id` [rows] names the
rows; without it they are numbered. A file in the form for training, or a folder that `jaxmm prepare`
made, has rows by split. NEW.csv is a table of files as `jaxmm prepare --dataset=table` takes it, for
runs on such a table: without labels, and a row or a whole column of a modality may be empty or absent.

The output has one line per row, with `id` and, for every head, the predicted class and the entropy in
nats (multilabel: the labels that hold; regression: the values), its weight in the fusion at test time if
there is one, and on request all probabilities. A head is empty where the row lacks its modality. The
file is written as a whole, or not at all.
"""
from absl import flags

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string("workdir", "", "Run folder.", flag_values=FLAGS)
DATA = flags.DEFINE_string("data", "", "The rows: FILE.npz, FILE.csv (a table of files), or a folder that `jaxmm prepare` "
                           "made.",
    flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "", "File to write: .csv or .npz.", flag_values=FLAGS)
SPLIT = flags.DEFINE_string("split", "", "Which split, where the data have several.", flag_values=FLAGS)
STEP = flags.DEFINE_integer("step", None, "Checkpoint to use; the last by default.", flag_values=FLAGS)
PROBABILITIES = flags.DEFINE_bool("probabilities", False, "Also write the probability of every class.",
    flag_values=FLAGS)
EMBEDDINGS = flags.DEFINE_string("embeddings", "", "File.npz for the features, by modality.",
    flag_values=FLAGS)


def main() -> None:
    from jaxmm import escape, files
    from jaxmm.errors import UserError
    from jaxmm.experiments import folders
    from jaxmm.experiments.predict import check_outputs, predict
    from jaxmm.train.restore import restore
    for option, value in (("workdir", WORKDIR.value), ("data", DATA.value), ("output", OUTPUT.value)):
        if not value:
            raise UserError(f"--{option} is missing; see --help")
    output, embeddings = (files.expand(v) if v else None
                          for v in (OUTPUT.value, EMBEDDINGS.value))
    check_outputs(files.expand(DATA.value), output, embeddings)
    run = restore(folders.workdir(WORKDIR.value, ""), STEP.value, data=None)
    print(escape.printable(predict(run, DATA.value, SPLIT.value, output, embeddings,
                                   PROBABILITIES.value)))
