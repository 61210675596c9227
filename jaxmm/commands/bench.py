"""Times training steps and prints one JSON line per workload.

    jaxmm bench                                        # MLA on av_digits
    jaxmm bench --config=av_digits:concat
    jaxmm bench --workloads=mla_small,concat_features  # synthetic inputs of fixed shapes
    jaxmm bench --workloads=all --output=bench.json
    jaxmm bench --scaling --output=benchmarks/scaling # a folder
    jaxmm bench --accelerator --minutes=10 --profile --output=benchmarks/accelerator

Each workload runs in a process of its own, over rows already in device memory: forward and
backward pass, optimizer, and what the method adds. Milliseconds are the median over calls, divided
by the steps of a call; peak memory is the process's on CPU and the device's elsewhere.

--scaling varies one thing at a time: batch, modalities, classes, examples, seeds in one program, size of
the memory, devices. On CPU the devices are virtual and share the cores. It leaves a table, a plot and
scaling.json with the machine and the versions.

--accelerator is for a GPU or TPU: all fixed workloads, or --workloads, in float32, TF32 and bfloat16,
with batches that grow until the device is full, one run and four at once, beside PyTorch where it is
installed (--torch names another script, as "python3 SCRIPT"). It leaves accelerator.md and
accelerator.json, to which each measurement goes at once: the same command goes on where it was stopped.
"""
from absl import flags

FLAGS = flags.FlagValues()
WORKLOAD_NAMES = flags.DEFINE_list("workloads", [], "Names of fixed workloads, or all; by default "
                                   "the data and method of --config are timed.", flag_values=FLAGS)
SECONDS = flags.DEFINE_float("seconds", 8.0, "Time to measure each workload for, after compiling.", lower_bound=0,
    flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", "", "File to write all results to, as one JSON object; "
                             "for --scaling and --accelerator the folder.", flag_values=FLAGS)
SCALING = flags.DEFINE_bool("scaling", False, "How the time of a step grows.", flag_values=FLAGS)
ACCELERATOR = flags.DEFINE_bool("accelerator", False, "The fixed workloads on a GPU or TPU.",
                                flag_values=FLAGS)
MINUTES = flags.DEFINE_float("minutes", 0.0, "Of --accelerator: when to stop; what says most comes first. "
                             "0: at the end.", lower_bound=0, flag_values=FLAGS)
TORCH = flags.DEFINE_string("torch", "", "Of --accelerator: command of a PyTorch script, run as COMMAND "
                            "WORKLOAD --device cuda --json.", flag_values=FLAGS)
PROFILE = flags.DEFINE_bool("profile", False, "Of --accelerator: write a trace of the largest workload.",
                            flag_values=FLAGS)
CONFIG = "Config file, and after a colon the method: FILE.py:METHOD."


def check_together() -> None:
    """Raises UserError for options that would be ignored beside the others."""
    from jaxmm.errors import UserError
    if SCALING.value and ACCELERATOR.value:
        raise UserError("--scaling and --accelerator are commands of their own; choose one")
    if SCALING.value and WORKLOAD_NAMES.value:
        raise UserError("--scaling has workloads of its own; leave out --workloads")
    for flag in MINUTES, TORCH, PROFILE:
        if FLAGS[flag.name].present and not ACCELERATOR.value:
            raise UserError(f"--{flag.name} is for --accelerator; add that, or leave it out")


def main(chosen, command) -> None:
    from jaxmm.experiments import bench
    bench.check(SECONDS.value, OUTPUT.value, SCALING.value or ACCELERATOR.value)
    check_together()
    if ACCELERATOR.value:
        from jaxmm.experiments.accelerator import accelerator
        seconds = SECONDS.value if FLAGS["seconds"].present else 1.0    # there are some hundred measurements
        print(accelerator(WORKLOAD_NAMES.value, OUTPUT.value or "benchmarks/accelerator", seconds,
                          MINUTES.value, TORCH.value, PROFILE.value, command))
    elif SCALING.value:
        print(bench.scaling(OUTPUT.value or "benchmarks/scaling", SECONDS.value, command))
    else:
        bench.bench(chosen.config, WORKLOAD_NAMES.value, SECONDS.value, OUTPUT.value)
