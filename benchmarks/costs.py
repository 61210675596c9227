"""What a training step of a workload spends its time on, by kind of operation.

    python -m benchmarks.costs --workload=samm_small

A table of XLA's operations on this machine, those of one kind added up, as jax.profiler sees them:
on CPU `ynn_fusion` and `dot` are products of matrices and convolutions, `concatenate_*` and `pad_*`
gather what they multiply.
"""
import argparse
import pathlib
import tempfile

import jax

from jaxmm.report.tables import markdown
from jaxmm.experiments.accelerator import operations
from jaxmm.experiments.bench import WORKLOADS, prepare, synthetic


def costs(workload: str, num_calls: int) -> dict[str, tuple[float, float]]:
    """(milliseconds, calls) in a step of every kind of operation."""
    state, call, steps, _ = prepare(*synthetic(workload))
    state = call(call(state))       # compiled, and past the first call, which may be slow
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(num_calls):
                state = call(state)
        return operations(pathlib.Path(folder), steps * num_calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--calls", type=int, default=3, help="of the training program")
    parser.add_argument("--rows", type=int, default=10, help="of the table")
    args = parser.parse_args()
    found = costs(args.workload, args.calls)
    total = sum(milliseconds for milliseconds, _ in found.values())
    print(markdown([{"operation": kind, "ms / step": f"{milliseconds:.1f}",
                     "share": f"{milliseconds / total:.1%}", "calls": f"{calls:.0f}"}
                    for kind, (milliseconds, calls) in list(found.items())[:args.rows]],
                   ["operation", "ms / step", "share", "calls"]))


if __name__ == "__main__":
    main()
