"""All supervised methods on three data sets, each tuned with the same number of trials on validation data.

    python -m benchmarks.balancing --data=av_digits [--arrays=FILE.npz] [--seeds=5] [--methods=late,mla]

`av_digits` comes with the package; `av_mnist` and `hapt` are arrays: see docs/results.md and configs/hapt.py.
Every method has one trial of each learning rate, four or three; the best on validation data is that of all its seeds, its
teachers included, and test data are used once. Gradients are clipped at norm 1 for all, as `agm` needs it.
`recipe=ensemble` has the budget of a teacher and its student. Finished runs in --workdir are reused, so that the
same command goes on where it was stopped; --output gets the tables and the picture, of the methods named alone.
"""
import argparse
import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

import jax

from configs import arrays, av_digits, hapt
from jaxmm import data
from jaxmm.caches import use_compilation_cache
from jaxmm.config import AugmentConfig, Config, EncoderConfig, StreamConfig, replace
from jaxmm.experiments import recipes, tuning
from jaxmm.experiments.compare import compare_on
from jaxmm.report.variants import RECIPE

METHODS = ("unimodal", "concat", "sum", "late", "film", "gated", "mlp_head", "attention_head", "aux_ce",
           "aux_ce+detach_fusion=true", "modality_dropout", "g_blending", "ogm_ge", "opm", "agm", "smv", "pmr", "relearn",
           "qmf", "lfm", "mmpareto", "tcmax", "cml", "amco", "mbsd", "rubi", "mla", "mla_tcmax",
           "umt", "umt+distance=normalised+warmup_epochs=3", "g2d", "ume", "self_distill_label", "self_distill_feature",
           "finetune", "reconboost", "frozen_linear", *recipes.names())
EXCHANGING = ("mmtm", "mmtm_random", "mmtm_guided")     # between convolutions
EARLY = {"opm": "opm+warmup_epochs=1", "smv": "smv+warmup_epochs=1", "relearn": "relearn+every=1"}
# for few epochs, as they would end before these methods begin
OUTPUTS = ("comparison.csv", "seeds.csv", "tuning.csv", "report.md", "accuracy.png")


class Setting(NamedTuple):
    """What methods are compared on."""
    config: Callable[[str], Config]     # of a method
    epochs: int
    learning_rates: str
    methods: tuple[str, ...] = METHODS


def av_mnist(method: str) -> Config:
    """CNNs of half the width and the augmentation of av_digits."""
    config = arrays.get_config(method)
    config.encoders |= {m: EncoderConfig(name="cnn", width=8) for m in ("audio", "visual")}
    config.augment["audio"] = AugmentConfig(time_mask=4, frequency_mask=4)
    return config


SETTINGS = {
    "av_digits": Setting(av_digits.get_config, 20, "0.01,0.03,0.1,0.3", (*METHODS, *EXCHANGING)),
    "av_mnist": Setting(av_mnist, 4, "0.03,0.1,0.3", (*(EARLY.get(m, m) for m in METHODS), *EXCHANGING)),
    "hapt": Setting(hapt.get_config, 20, "3e-4,1e-3,3e-3,1e-2"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SETTINGS, required=True)
    parser.add_argument("--arrays", default="")
    parser.add_argument("--methods", default="")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/balancing"))
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("benchmarks/balancing"))
    args = parser.parse_args()
    setting, folder = SETTINGS[args.data], args.workdir / args.data

    def config_for(method: str) -> Config:
        if method.startswith(RECIPE):
            return recipes.config_of(method, config_for)
        config = setting.config(method)
        return replace(config, {"data.path": args.arrays, "train.epochs": setting.epochs, "train.checkpoint_epochs": 100,
                                "train.eval_epochs": setting.epochs,
                                "optimizer.decay_epochs": round(0.7 * setting.epochs), "optimizer.clip_norm": 1.0})

    methods = args.methods.split(",") if args.methods else setting.methods
    dataset = data.load(config_for(methods[0]).data)
    command = f"python -m benchmarks.balancing --data={args.data}" + " --arrays=FILE.npz" * bool(args.arrays)
    _, table, _ = compare_on(dataset, StreamConfig(), config_for, methods, args.seeds, folder, command, progress=False,
                             settings=tuning.parse(f"optimizer.learning_rate={setting.learning_rates}"),
                             baseline="concat" if "concat" in methods else "")
    print(table)
    output = args.output / args.data
    output.mkdir(parents=True, exist_ok=True)
    for name in OUTPUTS:
        shutil.copy(folder / name, output / name)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    use_compilation_cache()
    main()
