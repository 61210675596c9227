"""What a training step of a workload spends its time on, by kind of operation.

    python -m benchmarks.costs --workload=samm_small

A table of XLA's operations on this machine, those of one kind added up, as jax.profiler sees them:
on CPU `ynn_fusion` and `dot` are products of matrices and convolutions, `concatenate_*` and `pad_*`
gather what they multiply.
"""
import argparse
import collections
import gzip
import json
import pathlib
import re
import tempfile

import jax

from jaxmm.report.tables import markdown
from jaxmm.experiments.bench import WORKLOADS, prepare, synthetic


def costs(workload: str, num_calls: int) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds in a step, and calls, of every kind of operation."""
    state, call, steps, _ = prepare(*synthetic(workload))
    state = call(call(state))       # compiled, and past the first call, which may be slow
    steps *= num_calls
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(num_calls):
                state = call(state)
        trace, = pathlib.Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    milliseconds, calls = collections.Counter(), collections.Counter()
    for event in events:
        operation = event.get("args", {}).get("hlo_op")
        if operation and event["ph"] == "X":
            kind = re.sub(r"[.\d]+$", "", operation)
            milliseconds[kind] += event["dur"] / 1e3 / steps
            calls[kind] += 1 / steps
    return milliseconds, calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=WORKLOADS, required=True)
    parser.add_argument("--calls", type=int, default=3, help="of the training program")
    parser.add_argument("--rows", type=int, default=10, help="of the table")
    args = parser.parse_args()
    milliseconds, calls = costs(args.workload, args.calls)
    total = sum(milliseconds.values())
    print(markdown([{"operation": kind, "ms / step": f"{time:.1f}",
                     "share": f"{time / total:.1%}", "calls": f"{calls[kind]:.0f}"}
                    for kind, time in milliseconds.most_common(args.rows)],
                   ["operation", "ms / step", "share", "calls"]))


if __name__ == "__main__":
    main()
