"""The weights that a continual method has of its own, chosen on validation data one after the other.

    python -m benchmarks.weights --stream=gcil [--methods=samm,derpp]

Streams and networks are those of `benchmarks.streams`, with a memory of 100 examples. The first stage of a method
tries learning rates together with its first weight, each later one further weights beside what was chosen before, three
seeds of every setting; test data are not seen. --output gets all trials; what is printed last goes into
`configs/tuned.csv`. Finished trials in --workdir are reused.
"""
import argparse
import pathlib

import jax

from benchmarks.streams import STREAMS, config_for
from jaxmm import data, files
from jaxmm.caches import use_compilation_cache
from jaxmm.config import replace
from jaxmm.experiments import tuning
from jaxmm.experiments.planning import claim
from jaxmm.report import variants
from jaxmm.report.tables import csv_text
from jaxmm.report.tuning import label

RATES = "optimizer.learning_rate=0.1,0.3,1"
STAGES = {
    "er": ("optimizer.learning_rate=0.03,0.1,0.3,1,3",),
    "samm": (f"method.beta=0;{RATES};method.lambda_=0.01,0.1,1", "method.gamma=0.1,0.3,1",
             "method.alignment=logits,features;method.beta=0,1,5,25"),
    "derpp": (f"{RATES};method.alpha=0.1,0.3,1", "method.beta=0.5,1"),
    "er_ace": ("optimizer.learning_rate=0.03,0.1,0.3,1,3",),
    "er_aml": (f"{RATES};method.tau=0.1,0.2",),
    "cls_er": (f"{RATES};method.weight=0.1,0.5,2", "method.alpha=0.99,0.999"),
    "av_cil": (f"{RATES};method.lam_i=0.1,0.5",),
    "lwf": (f"{RATES};method.alpha=0.3,1,3",),
    "ewc": (f"{RATES};method.lam=1,10,100",),
    "analytic": (f"{RATES};method.gamma=0.1,1,10,100",),
}


def choose(stream: str, method: str, workdir: pathlib.Path) -> tuple[dict[str, str], list[dict]]:
    """(options chosen, as text by path, all trials) of a method on a stream."""
    config, chosen, rows = config_for(stream, method), {}, []
    dataset = data.load(config.data)
    dataset = dataset._replace(splits={name: rows for name, rows in dataset.splits.items() if name != "test"})
    for number, stage in enumerate(STAGES[method]):
        settings = tuning.parse(stage)
        changed = replace(config, tuning.typed(config, chosen))
        models = variants.expand([method], lambda name: changed, [], dataset.modalities)
        trials, = tuning.plan(models, settings, 3, dataset, workdir / stream / f"stage_{number}")
        claim(trials)
        choice = tuning.choose(trials, settings, dataset, progress=False)
        rows += [{"method": method, "stage": number, "setting": label(setting), "seed": seed, choice.metric: score}
                 for setting, scores in zip(settings, choice.scores) for seed, score in enumerate(scores)]
        chosen |= settings[choice.best]
    return chosen, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", choices=STREAMS, required=True)
    parser.add_argument("--methods", default=",".join(STAGES))
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/weights"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("benchmarks/streams"))
    args = parser.parse_args()
    rows, lines = [], []
    for method in args.methods.split(","):
        chosen, trials = choose(args.stream, method, args.workdir)
        rows += trials
        options = " ".join(f"{path}={value}" for path, value in chosen.items())
        lines.append(f"{STREAMS[args.stream]},{method},,{options}")
    output = args.output / args.stream
    output.mkdir(parents=True, exist_ok=True)
    files.write(output / "weights.csv", csv_text(rows, list(rows[0])))
    print("\n".join(lines))


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    use_compilation_cache()
    main()
