"""Runs that one program trains, from the same step on: their state, and what is done with all of them."""
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmm.batch import Batch
from jaxmm.data.feeding import Mapped
from jaxmm.methods import TrainState
from jaxmm.train import hosts, plan
from jaxmm.train.opened import Opened
from jaxmm.train.plan import Chunk
from jaxmm.train.predictions import predict_split, score_split, split_features
from jaxmm.train.programs import Feed, stack, unstack
from jaxmm.train.setup import Run
from jaxmm.train.together import join


class Group:
    """The runs of a program, of which those that failed are left out of everything."""

    def __init__(self, runs: Sequence[Opened], devices: Sequence[jax.Device] | None = None):
        self.runs = runs
        # Of the first run, with the programs that train all.
        self.setup = runs[0].setup if len(runs) == 1 else join([run.setup for run in runs], devices)
        self.state = self.setup.programs.place(stack([run.state for run in runs]))
        self.step = runs[0].step
        self.errors: dict[int, FloatingPointError] = {}      # by number of the run

    def healthy(self) -> list[tuple[int, Opened]]:
        """The runs that are still finite, with their numbers."""
        return [(i, run) for i, run in enumerate(self.runs) if i not in self.errors]

    def fail(self, i: int, error: FloatingPointError) -> None:
        """Leaves a run out from now on."""
        self.errors[i] = FloatingPointError(f"{self.runs[i].workdir}: {error}")

    def feed(self, split: str) -> Feed:
        """The rows of a split."""
        data = self.setup.config.data
        return self.setup.programs.feed(self.setup.dataset.splits[split], data.placement, data.workers)

    def chunks(self) -> Sequence[Chunk]:
        """The chunks that are left, index [K, B], and [K, S, B] of several runs, which take other rows."""
        own = [plan.Chunks(run.setup.tasks if self.setup.total_steps else [], run.setup.config.train,
                           self.setup.steps_per_call, self.step) for run in self.runs]
        return own[0] if len(own) == 1 else Mapped(
            lambda number: plan.join([chunks[number] for chunks in own]), range(len(own[0])))

    def write(self, i: int, record: Mapping[str, Any]) -> None:
        """Appends a record to the metrics of a run."""
        hosts.from_main(functools.partial(self.runs[i].write, record))

    def evaluate(self, split: str, task: int, epoch: int) -> None:
        """Scores a split; `epoch` of the stream's `task` are done."""
        logits = predict_split(self.setup, self.state, self.setup.dataset.splits[split])
        for i, run in self.healthy():
            record = {"step": self.step, "epoch": epoch, "task": task, "split": split,
                      **score_split(run.setup, self._own(logits, i), split)}
            run.history.append(record)
            self.write(i, {"kind": "eval"} | record)

    def end_epoch(self) -> None:
        """What the method does after an epoch."""
        if self.setup.programs.end_epoch:
            self.state = self.setup.programs.end_epoch(self.state, self._features_of)

    def end_task(self, task: int, rows: Feed) -> None:
        """What the method does after a task: it visits its rows, in order, and ends it."""
        programs = self.setup.programs
        if programs.visit:
            order = list(plan.visits([run.setup.tasks[task] for run in self.runs],
                                     self.setup.config.train.batch_size))
            for (_, counts), fed in rows.through(order):
                self.state = programs.visit(self.state, fed, counts)
        self.state = programs.end_task(self.state)

    def save(self, last: bool = False) -> None:
        """Saves each run; those whose parameters are not finite fail. With `last` it waits until all is done."""
        copies = unstack(self.setup.programs.fetch(self.state), len(self.runs))
        for i, run in self.healthy():
            try:
                hosts.from_main(functools.partial(run.save, self.step, copies[i], run.history, last=last))
            except FloatingPointError as error:
                self.fail(i, error)

    def results(self) -> list[Run | FloatingPointError]:
        """The runs as they are now, or the errors in their place."""
        return [self.errors.get(i) or Run(run.setup, state, run.history,
                                          run.changed if self.step == self.setup.total_steps else ())
                for i, (run, state) in enumerate(zip(self.runs, self._states()))]

    def _states(self) -> list[TrainState]:
        if len(self.runs) == 1:
            return [self.state]
        copies = unstack(self.setup.programs.fetch(self.state), len(self.runs))
        return [run.setup.programs.place(copy) for run, copy in zip(self.runs, copies)]

    def _features_of(self, split: str, i: int) -> Batch:
        rows = self.runs[i].setup.dataset.splits[split]
        features = self._own(split_features(self.setup, self.state, rows), i)
        return {key: rows[key] for key in ("label", "id", "present")} | {"features": features}

    def _own(self, outputs: Mapping[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
        """Those of run i among what was read for all, [N, S, ...] of several."""
        return {name: x if len(self.runs) == 1 else x[:, i] for name, x in outputs.items()}
