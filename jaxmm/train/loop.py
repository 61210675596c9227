"""The training loop: the steps of a group of runs, and what happens between them."""
import math
import sys
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from tqdm import tqdm

from jaxmm.errors import UserError
from jaxmm.methods.common import Progress, TrainState
from jaxmm.signals import Preempted, stop_signals
from jaxmm.train import hosts
from jaxmm.train.checkpoints import REMEDY
from jaxmm.train.group import Group
from jaxmm.train.plan import Chunk
from jaxmm.train.setup import Run, memory_size
from jaxmm.train.writers import MOST

METRICS_EVERY = 32      # steps between fetches of the metrics; longer queues can deadlock on CPU


def run_steps(group: Group, progress: bool = False) -> list[Run | FloatingPointError]:
    """Trains the runs of a group from their current step to the end.

    After each call of the compiled steps come, when due: writing the metrics, the method's `end_epoch`
    and `end_task`, evaluation, and a checkpoint. Within an epoch metrics are read after the next call, so
    that the devices do not wait for it; a loss that is not finite then stops the run one call later.

    Raises:
      WriteError: see `jaxmm.train.schedule.train`.
      Preempted: a signal asked to stop; the state was saved first.
    """
    programs, config = group.setup.programs, group.setup.config.train
    start, total = group.step, group.setup.total_steps
    rows, pending, waiting = group.feed("train"), [], ()
    if progress and start < total:
        each = f"each of {len(group.runs)} runs: " if len(group.runs) > 1 else ""
        tqdm.write(each + describe_state(group.runs[0].state), file=sys.stderr)
    with stop_signals() as stopped, tqdm(total=total, initial=start, unit="step", disable=not progress,
                                         mininterval=0.5) as bar:
        evaluate_first(group)
        group.survey(rows)
        epoch, phase = None, ""
        begin = time.perf_counter()
        for chunk, fed in rows.through(group.chunks()):
            called = time.perf_counter()
            if epoch != (chunk.task, chunk.epoch):
                epoch = chunk.task, chunk.epoch
                phase = programs.phase(Progress(*epoch, group.step, group.extra))
            if group.step == start:
                said = check_memory(programs.memory(group.state, fed, phase), memory_size())
                if progress:
                    tqdm.write(said, file=sys.stderr)
            group.state, metrics = programs.steps(group.state, fed, phase)
            if progress and group.step == start:
                jax.block_until_ready(metrics)
                tqdm.write(f"first call: {time.perf_counter() - called:.1f} s, compilation "
                           "included", file=sys.stderr)
            group.step = chunk.end
            if waiting:
                begin, waiting = show(bar, group, *waiting, begin), ()
            pending.append(metrics)
            due = sum(len(m["loss"]) for m in pending) >= METRICS_EVERY or chunk.ends_epoch
            # Several hosts must stop at the same step, so they check for signals when they fetch metrics.
            stop = stopped() if jax.process_count() == 1 else due and hosts.any_host(stopped())
            if due or stop:
                waiting, pending = (chunk, pending, group.learning_rates()), []
            if waiting and (stop or chunk.ends_epoch):
                begin, waiting = show(bar, group, *waiting, begin), ()
            if chunk.ends_epoch and group.healthy():
                group.end_epoch(chunk.task, rows)
            if chunk.ends_task and group.healthy():
                group.end_task(chunk.task, rows)
            ended = group.step == total
            if chunk.ends_epoch and group.healthy():
                ended = evaluate(group, chunk)
            improved = chunk.ends_epoch and group.improved()    # it has to be there when it is tested
            if stop or ended or improved or chunk.ends_task or (
                    chunk.ends_epoch and (chunk.epoch + 1) % config.checkpoint_epochs == 0):
                group.save(last=stop or ended or improved)
            if ended or not group.healthy():
                break
            if stop and group.step < total:
                raise Preempted(f"stopped by a signal after step {group.step} of {total}; the state is "
                                "saved, and the same command resumes from there")
            if not pending and not waiting:
                begin = time.perf_counter()     # evaluating and saving are not training
    return group.results()


def evaluate_first(group: Group) -> None:
    """Evaluates what is needed before the first step."""
    epochs = group.setup.config.train.epochs
    if group.setup.stream and group.step == 0 and "test" in group.setup.dataset.splits:
        group.evaluate("test", -1, 0)       # what forward transfer is measured against
    if not group.setup.total_steps and not group.runs[0].history:
        group.evaluate("val", 0, epochs)
        group.test(epochs)
        group.save(last=True)


def evaluate(group: Group, chunk: Chunk) -> bool:
    """Evaluates what is due after an epoch; returns whether training is over.

    A stream is evaluated on validation data, and on test data if there are any, at the end of each task, for its
    matrices of accuracies; nothing is selected by them. Otherwise test data is used once, at the end.
    """
    config, epoch, last = group.setup.config.train, chunk.epoch + 1, group.step == group.setup.total_steps
    if group.setup.stream:
        for split in ("val", "test"):
            if chunk.ends_task and split in group.setup.dataset.splits:
                group.evaluate(split, chunk.task, epoch)
        return last
    if last or epoch % config.eval_epochs == 0:
        group.validate(epoch)
        last = last or group.waits_in_vain()
    if last:
        group.test(epoch)
    return last


def look(group: Group, chunk: Chunk, pending: Sequence[Mapping[str, jax.Array]],
         rates: Mapping[int, tuple], begin: float) -> dict[str, str]:
    """Writes the means of the metrics pending since `begin`; returns means over all runs, for display.

    Args:
      group: of the runs.
      chunk: the last one that the metrics are of.
      pending: metrics of a chunk each.
      rates: see `Group.learning_rates`.
      begin: when the first of these steps began.
    """
    pending, rates = jax.device_get((pending, rates))       # in one go, not one array after the other
    values = {name: np.concatenate([m[name].reshape(-1, len(group.runs)) for m in pending])
              for name in pending[0]}
    seconds = time.perf_counter() - begin       # the steps are done once their metrics are here
    rate = len(values["loss"]) * group.setup.config.train.batch_size / seconds
    for i, _ in group.healthy():
        try:
            means = mean_metrics({name: x[:, i] for name, x in values.items()}, chunk.end)
        except FloatingPointError as error:
            group.fail(i, error)
            continue
        group.write(i, {"kind": "train", "step": chunk.end, "epoch": chunk.epoch + 1,
                        "task": chunk.task, "examples_per_second": rate,
                        "learning_rate": math.prod(map(float, rates[i]))} | means)
    healthy, progress = [i for i, _ in group.healthy()], f"{group.setup.task.progress[0]}/"
    shown = {name.removeprefix(progress): mean_of_numbers(x[:, healthy]) for name, x in values.items()
             if healthy and (name == "loss" or name.startswith(progress))}
    return {name: f"{x:.3f}" for name, x in shown.items()} | {"examples/s": f"{rate:.0f}"}


def show(bar: tqdm, group: Group, chunk: Chunk, pending: Sequence[Mapping[str, jax.Array]],
         rates: Mapping[int, tuple], begin: float) -> float:
    """Moves the progress bar to the end of a chunk, see `look`; returns when the metrics were there."""
    means = look(group, chunk, pending, rates, begin)
    many = f"{len(group.runs)} runs, " if len(group.runs) > 1 else ""
    bar.set_description(f"{many}epoch {chunk.epoch + 1}/{group.setup.config.train.epochs}", refresh=False)
    bar.set_postfix(means, refresh=False)
    bar.update(chunk.end - bar.n)
    return time.perf_counter()


def mean_metrics(values: Mapping[str, np.ndarray], step: int) -> dict[str, float]:
    """Means over the last K steps, which end at `step`, of values [K] that are not NaN.

    One that overflows, as the norm of a gradient may where the loss is finite still, is left out.

    Raises:
      FloatingPointError: one of their losses is not finite.
    """
    finite = np.isfinite(values["loss"])
    if not finite.all():
        first = step - len(finite) + int(np.argmin(finite)) + 1
        raise FloatingPointError(
            f"the loss of step {first} is {values['loss'][np.argmin(finite)]}; the last good "
            f"checkpoint is kept; {REMEDY}")
    means = {name: mean_of_numbers(x) for name, x in values.items()}
    return {name: mean for name, mean in means.items() if abs(mean) < MOST}


def mean_of_numbers(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN if all are. (A batch without a modality gives NaN.)"""
    values = values[~np.isnan(values)]
    return float(values.mean(dtype=np.float64)) if values.size else np.nan


def check_memory(needed: int, there: int) -> str:
    """One line with what steps take of the bytes of memory there are.

    Raises:
      UserError: they take more.
    """
    said = f"steps take {needed / 2**20:,.1f} of {there / 2**20:,.0f} MiB of memory, state and data included"
    if needed > there:
        raise UserError(f"{said}; lower train.batch_size (and raise train.accumulate), set encoders.M.remat=true, "
                        "encoders.M.dtype=bfloat16 or encoders.M.frozen=true, or train fewer runs at once")
    return said


def describe_state(state: TrainState) -> str:
    """One line with the number of parameters and the size of the parts of a state."""
    sections = {"params": state.params, "optimizer": state.opt_state,
                "batch statistics": state.batch_stats} | dict(state.extra)
    mib = {name: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(part)) / 2**20
           for name, part in sections.items()}
    count = sum(x.size for x in jax.tree.leaves(state.params))
    parts = ", ".join(f"{name} {size:.1f}" for name, size in mib.items() if size)
    return f"{count:,} parameters; state of {sum(mib.values()):.1f} MiB: {parts}"
