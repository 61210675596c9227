"""Times training steps and prints one JSON line per workload.

    jaxmm bench                                        # MLA on av_digits
    jaxmm bench --config=av_digits:concat
    jaxmm bench --workloads=mla_small,concat_features  # synthetic inputs of fixed shapes
    jaxmm bench --workloads=all --output=bench.json
    jaxmm bench --scaling --output=benchmarks/scaling # a folder

Each workload runs in a process of its own, over rows already in device memory: forward and
backward pass, optimizer, and what the method adds. Milliseconds are the median over calls, divided
by the steps of a call; peak memory is the process's on CPU and the device's elsewhere.

--scaling varies one thing at a time: batch, modalities, seeds in one program, size of the memory,
devices. On CPU the devices are virtual and share the cores. It leaves a table, a plot and
scaling.json with the machine and the versions.
"""
from absl import flags

FLAGS = flags.FlagValues()
WORKLOAD_NAMES = flags.DEFINE_list("workloads", [], "Names of fixed workloads, or all; by default "
                                   "the data and method of --config are timed.", flag_values=FLAGS)
SECONDS = flags.DEFINE_float("seconds", 8.0, "Time to measure each workload for, after compiling.", lower_bound=0,
    flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "", "File to write all results to, as one JSON object; "
                             "for --scaling the folder.", flag_values=FLAGS)
SCALING = flags.DEFINE_bool("scaling", False, "How the time of a step grows.", flag_values=FLAGS)
CONFIG = "Config file, and after a colon the method: FILE.py:METHOD."


def main(chosen, command) -> None:
    from jaxmm.experiments import bench
    bench.check(SECONDS.value, OUTPUT.value, SCALING.value)
    if SCALING.value:
        print(bench.scaling(OUTPUT.value or "benchmarks/scaling", SECONDS.value, command))
    else:
        bench.bench(chosen.config, WORKLOAD_NAMES.value, SECONDS.value, OUTPUT.value)
