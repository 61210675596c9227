"""Trains one model and leaves a run folder: checkpoints, metrics, a report.

    python -m launch.train                                              # MLA on av_digits
    python -m launch.train --config=configs/av_digits.py:concat --workdir=runs/concat
    python -m launch.train --config=configs/av_digits.py:unimodal --config.method.modality=audio
    python -m launch.train --config=configs/arrays.py:mla --config.data.path=FILE.npz

Every field of jaxmm/config.py is an option: --config.optimizer.learning_rate=0.01. The same
command again resumes the run, or does nothing more when it is finished.
"""
from absl import flags

from jaxmm.report import run_report
from jaxmm.train.loop import train
from launch import app

WORKDIR = flags.DEFINE_string("workdir", "", "Run folder; runs/DATA_METHOD by default.")
app.define_config("Config file, and after a colon the method: FILE.py:METHOD.")


def main() -> None:
    config = flags.FLAGS.config
    workdir = app.workdir_flag(WORKDIR.value, f"{config.data.name}_{config.method.name}")
    run = train(config, workdir)
    print(run_report.write(run, workdir))


if __name__ == "__main__":
    app.run(main)
