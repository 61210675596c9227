"""Says which method to train on your data: by short runs of several, on validation data.

    jaxmm advise
    jaxmm advise --config=arrays --config.data.path=FILE.npz --seeds=5 --budget=0.5
    jaxmm advise --methods=recipe=default,concat,mla

Trains recipes (`jaxmm list recipes`) and methods for a part of their epochs, without a look at test data, and
compares them by seeds and validation rows. The advice is the simplest one that the best of them is not
significantly ahead of. WORKDIR gets the runs, as in `jaxmm compare`, `advice.md` with the table, and `next.json`:
the config to train next.

    jaxmm advise --rule

says whether to distil from unimodal models (UMT) or to average them (UME), by the rule of their paper. It trains
one model for each modality, then heads on their frozen encoders, a linear one and one with a hidden layer, and
compares these on validation data with the average of the unimodal predictions. A linear head uses what modalities
add to each other, a hidden layer also what only their combination tells.
"""
from absl import flags

FLAGS = flags.FlagValues()
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each, with the seeds config.train.seed + 0, 1...",
    flag_values=FLAGS)
METHODS = flags.DEFINE_list("methods", None, "Methods to choose from, as in `jaxmm compare`, from simple to costly; "
                            "by default recipes and methods that fit the data.", flag_values=FLAGS)
BUDGET = flags.DEFINE_float("budget", 0.3, "Share of the epochs of each method that it is tried for.",
    flag_values=FLAGS)
RULE = flags.DEFINE_bool("rule", False, "Only choose between UMT and UME, by the rule of their paper and whole runs.",
    flag_values=FLAGS)
WORKDIR = flags.DEFINE_string("workdir", "", "Folder; runs/advise_DATA by default.", flag_values=FLAGS)
CONFIG = "Config file; the method is what is asked."


def main(chosen, command) -> None:
    from jaxmm.experiments import advise
    print(advise.advise(chosen, SEEDS.value, WORKDIR.value, command, METHODS.value, BUDGET.value, RULE.value))
