"""Trains one model and leaves a run folder: checkpoints, metrics, a report.

    jaxmm train                                              # MLA on av_digits
    jaxmm train --config=av_digits:concat --workdir=runs/concat
    jaxmm train --config=av_digits:unimodal --config.method.modality=audio
    jaxmm train --config=arrays:mla --config.data.path=FILE.npz
    jaxmm train --config=seq_av_digits:samm       # a stream of tasks
    jaxmm train --config=seq_av_digits:samm --describe_stream

Every field of jaxmm/config.py is an option: --config.optimizer.learning_rate=0.01. The same
command again resumes the run, or does nothing more when it is finished.

Several runs are trained by one program where that is faster, each in its own folder below WORKDIR,
which gets their table and plot:

    jaxmm train --config=arrays:mla --config.train.seeds=8
    jaxmm train --config=arrays:mla --sweep=optimizer.learning_rate=1e-3,1e-2

Over several hosts the same command runs on each: as it is on the hosts of a TPU slice (see
launch/tpu_vm.sh), elsewhere with

    --coordinator=HOST:PORT --num_processes=N --process_id=0    # 1, 2... on the others

The batch is split over the devices of all hosts. Process 0 alone reads and writes the run folder.
"""
from absl import flags

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string(
    "workdir", "", "Run folder; runs/DATA_METHOD or runs/DATA_STREAM_METHOD by default.", flag_values=FLAGS)
DESCRIBE = flags.DEFINE_bool("describe_stream", False,
                             "Show the tasks of the stream as a table, and do nothing else.",
    flag_values=FLAGS)
SWEEP = flags.DEFINE_string("sweep", "", "An option and its values: OPTION=VALUE,VALUE.", flag_values=FLAGS)
COORDINATOR = flags.DEFINE_string("coordinator", "", "HOST:PORT of process 0 of several.", flag_values=FLAGS)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes, on all hosts.",
    flag_values=FLAGS)
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", flag_values=FLAGS)
EXTEND = flags.DEFINE_bool("extend", False, "Continue for more --config.train.epochs even if the learning "
                           "rate depends on their number.", flag_values=FLAGS)
INIT_FROM = flags.DEFINE_string("init_from", "", "Run folder whose weights to start from.", flag_values=FLAGS)
CONFIG = "Config file, and after a colon the method: FILE.py:METHOD."


def main(chosen, command) -> None:
    from jaxmm.experiments import series
    from jaxmm.train import hosts
    if DESCRIBE.value:
        print(series.describe_stream(chosen.config))
        return
    hosts.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    chosen.config.train.init_from = INIT_FROM.value or chosen.config.train.init_from
    table = series.run(chosen.config, WORKDIR.value, SWEEP.value, command, extend=EXTEND.value)
    if hosts.is_main():
        print(table)
