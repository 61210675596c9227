"""Trains one model and leaves a run folder: checkpoints, metrics, a report.

    python -m launch.train                                              # MLA on av_digits
    python -m launch.train --config=configs/av_digits.py:concat --workdir=runs/concat
    python -m launch.train --config=configs/av_digits.py:unimodal --config.method.modality=audio
    python -m launch.train --config=configs/arrays.py:mla --config.data.path=FILE.npz
    python -m launch.train --config=configs/seq_av_digits.py:samm       # a stream of tasks
    python -m launch.train --config=configs/seq_av_digits.py:samm --describe_stream

Every field of jaxmm/config.py is an option: --config.optimizer.learning_rate=0.01. The same
command again resumes the run, or does nothing more when it is finished.

Several runs are trained by one program where that pays, each in a folder of its own below WORKDIR,
which gets their table and plot:

    python -m launch.train --config=configs/arrays.py:mla --config.train.seeds=8
    python -m launch.train --config=configs/arrays.py:mla --sweep=optimizer.learning_rate=1e-3,1e-2

Over several hosts the same command runs on each: as it is on the hosts of a TPU slice (see
launch/tpu_vm.sh), elsewhere with

    --coordinator=HOST:PORT --num_processes=N --process_id=0    # 1, 2... on the others

The batch is split over the devices of all hosts. Process 0 alone reads and writes the run folder.
"""
import sys

from absl import flags

from jaxmm import data, escape
from jaxmm.config import Config
from jaxmm.data.streams import describe, make_stream
from jaxmm.errors import UserError
from jaxmm.train import hosts
from jaxmm.train.schedule import train
from jaxmm.train.options import check_counts
from launch import app, series

WORKDIR = flags.DEFINE_string(
    "workdir", "", "Run folder; runs/DATA_METHOD or runs/DATA_STREAM_METHOD by default.")
DESCRIBE = flags.DEFINE_bool("describe_stream", False,
                             "Show the tasks of the stream as a table, and do nothing else.")
SWEEP = flags.DEFINE_string("sweep", "", "An option and its values: OPTION=VALUE,VALUE.")
COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0 of several.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes, on all hosts.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
EXTEND = flags.DEFINE_bool("extend", False, "Go on for more --config.train.epochs even where the learning "
                           "rate depends on their number.")
INIT_FROM = flags.DEFINE_string("init_from", "", "Run folder whose weights to start from.")
app.define_config("Config file, and after a colon the method: FILE.py:METHOD.")


def main() -> None:
    config = flags.FLAGS.config
    if DESCRIBE.value:
        print(describe_stream(config))
        return
    hosts.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    config.train.init_from = INIT_FROM.value or config.train.init_from
    check_counts(config)
    several = "_sweep" if SWEEP.value else "_seeds" if config.train.seeds > 1 else ""
    workdir = app.workdir_flag(
        WORKDIR.value, f"{app.data_name(config)}_{config.method.name}{several}")
    command = escape.command(["python", "-m", "launch.train", *sys.argv[1:]])
    if EXTEND.value and several:
        raise UserError("--extend is for one run; give it with --workdir=FOLDER of each of several")
    if SWEEP.value:
        path, values = series.parse_sweep(SWEEP.value, config)
        table = series.train_sweep(config, workdir, path, values, command)
    elif several:
        table = series.train_seeds(config, workdir, command)
    else:
        table = series.report(train(config, workdir, extend=EXTEND.value), workdir)
    if hosts.is_main():
        print(table)


def describe_stream(config: Config) -> str:
    """The tasks of the config's stream as a Markdown table.

    Raises:
      UserError: it has no stream, or one that cannot be made.
    """
    if not config.stream.kind:
        raise UserError("--describe_stream: this config has no stream of tasks; set one, such as "
                        "--config.stream.kind=class --config.stream.num_tasks=5")
    check_counts(config)
    _, stream = make_stream(config.stream, data.load(config.data))
    return describe(stream, stream.class_names)


if __name__ == "__main__":
    app.run(main)
