"""Says whether to distil from unimodal models (UMT) or to average them (UME), on your data.

    jaxmm advise
    jaxmm advise --config=arrays --config.data.path=FILE.npz --seeds=5

Trains one model for each modality, then heads on their frozen encoders, a linear one and one with a
hidden layer, and compares these on validation data with the average of the unimodal predictions.
A linear head uses what modalities add to each other, a hidden layer also what only their combination
tells. WORKDIR gets the runs, as in `jaxmm compare`, `advice.md`, and `next.json`: the config to train
next.
"""
from absl import flags

FLAGS = flags.FlagValues()
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each, with the seeds config.train.seed + 0, 1...",
    flag_values=FLAGS)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder; runs/advise_DATA by default.", flag_values=FLAGS)
CONFIG = "Config file; the method is what is asked."


def main(chosen, command) -> None:
    from jaxmm.experiments import advise
    print(advise.advise(chosen, SEEDS.value, WORKDIR.value, command))
