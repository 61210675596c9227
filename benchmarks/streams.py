"""All continual methods on the built-in streams, each tuned with the same number of trials on validation data.

    python -m benchmarks.streams --stream=gcil [--capacities=50,100,200] [--tune_capacity=100] [--methods=er,samm]

`seq`, `dom` and `gcil` are configs/seq_av_digits.py and so on, `gcil_long` has long-tailed shares of the classes.
Encoders are dense layers, so that the seeds of a method run in one program. Every method has --tune_seeds trials
of each learning rate with a memory of --tune_capacity; the best by the accuracy on validation data after the last
task is that of all its runs, with all sizes of the memory, and test data are used once. A method with other options
is a row of its own, so that their choice is seen and not tuned. Gradients are clipped at norm 1 for all, as `samm`
and `ewc` need it.
Differences are to `er` with the same seed, which is the same order of tasks, and memory. Finished runs in --workdir
are reused, so that the same command goes on where it was stopped; --output gets the tables and the pictures, of
the methods named alone.

All methods with the defaults took half an hour to an hour of a core on each stream, beside other programs.
"""
import argparse
import pathlib
import shutil

import jax

from jaxmm import data
from jaxmm.caches import use_compilation_cache
from jaxmm.config import Config, EncoderConfig, replace
from jaxmm.experiments import configs, tuning
from jaxmm.experiments.compare import compare_on

STREAMS = {"seq": "seq_av_digits", "dom": "dom_av_digits", "gcil": "gcil_av_digits", "gcil_long": "gcil_av_digits"}
METHODS = ("joint", "gdumb", "sgd", "er", "er+balanced=true", "er+align=true", "derpp", "derpp+beta=0", "er_ace",
           "er_aml", "cls_er", "agem", "lwf", "lwf+align=true", "ewc", "av_cil", "analytic", "analytic+balanced=true",
           "samm", "samm+lambda_=1", "samm+lambda_=1+beta=0", "samm+lambda_=1+consistency=false")
BASELINE = "er"
LEARNING_RATES = "0.1,0.3,1,3"
OUTPUTS = ("comparison.csv", "seeds.csv", "tuning.csv", "report.md")


def config_for(stream: str, method: str) -> Config:
    """That of a method on one of `STREAMS`."""
    config = replace(configs.load(f"{STREAMS[stream]}:{method}"), {
        "stream.long_tailed": stream.endswith("_long"), "optimizer.clip_norm": 1.0, "train.checkpoint_epochs": 100})
    config.encoders |= {m: EncoderConfig(name="mlp") for m in ("audio", "visual")}
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stream", choices=STREAMS, required=True)
    parser.add_argument("--capacities", default="50,100,200")
    parser.add_argument("--tune_capacity", type=int, default=100)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tune_seeds", type=int, default=3)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/streams"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("benchmarks/streams"))
    args = parser.parse_args()
    methods, folder = args.methods.split(","), args.workdir / args.stream
    base = config_for(args.stream, BASELINE)
    _, table, _ = compare_on(
        data.load(base.data), base.stream, lambda method: config_for(args.stream, method), methods, args.seeds,
        folder, f"python -m benchmarks.streams --stream={args.stream}", list(map(int, args.capacities.split(","))),
        progress=False, settings=tuning.parse(f"optimizer.learning_rate={LEARNING_RATES}"),
        tune_seeds=args.tune_seeds, tune_capacity=args.tune_capacity, baseline=BASELINE if BASELINE in methods else "")
    print(table)
    output = args.output / args.stream
    output.mkdir(parents=True, exist_ok=True)
    for path in (*(folder / name for name in OUTPUTS), *folder.glob("*.png")):
        shutil.copy(path, output / path.name)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    use_compilation_cache()
    main()
