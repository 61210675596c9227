"""Runs that one program trains, all at the same step: their state and the operations on all of them."""
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmm.batch import Batch, Logits, batch_size, take
from jaxmm.data.feeding import Mapped, place_training
from jaxmm.methods import METHODS
from jaxmm.methods.common import TrainState
from jaxmm.train import experts, hosts, plan
from jaxmm.train.opened import Opened, kept_model
from jaxmm.train.optimizers import PLATEAU, update_plateau
from jaxmm.train.plan import Chunk
from jaxmm.train.predictions import predict_split, read_rows, score_split
from jaxmm.train.programs import Feed, stack, unstack
from jaxmm.train.restore import kept_step
from jaxmm.train.scores import judged, waits_in_vain
from jaxmm.train.setup import Run, Setup, is_finished
from jaxmm.train.together import join


class Group:
    """The runs of one program; runs that failed are left out of everything."""

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
        """Marks a run as failed; it is left out from now on."""
        cure = METHODS[self.setup.config.method.name].cure
        self.errors[i] = FloatingPointError(f"{self.runs[i].workdir}: {error}" + f", or with {cure}" * bool(cure))

    def feed(self, split: str) -> Feed:
        """The rows of a split."""
        data, rows = self.setup.config.data, self.setup.dataset.splits[split]
        return self.setup.programs.feed(rows, place_training(rows, data.placement), data.workers)

    def chunks(self) -> Sequence[Chunk]:
        """The remaining chunks, with index [K, B], or [K, S, B] for several runs, whose rows differ."""
        done = not self.setup.total_steps or is_finished(self.setup, self.runs[0].history)
        own = [plan.Chunks([] if done else run.setup.tasks, run.setup.config.train,
                           self.setup.steps_per_call, self.step) for run in self.runs]
        return own[0] if len(own) == 1 else Mapped(
            lambda number: plan.join([chunks[number] for chunks in own]), range(len(own[0])))

    def write(self, i: int, record: Mapping[str, Any]) -> None:
        """Appends a record to the metrics of a run."""
        hosts.from_main(functools.partial(self.runs[i].write, record))

    def learning_rates(self) -> dict[int, tuple]:
        """The learning rate of the last step by number of the run, as two factors.

        They may still be computed; those of the state are not, as the next step takes its buffers.
        """
        factors = [1.0] * len(self.runs)
        if self.setup.config.optimizer.schedule == PLATEAU:
            factors = jax.device_get(self._of_runs(self.state.opt_state[PLATEAU]["rate"]))
        return {i: (run.setup.learning_rate(self.step - 1), factors[i]) for i, run in self.healthy()}

    def evaluate(self, split: str, task: int, epoch: int) -> None:
        """Scores a split after `epoch` epochs of the stream's `task`."""
        logits = predict_split(self.setup, self.state, self.setup.dataset.splits[split])
        if split == "val":
            logits |= self._fit_experts(logits)
        for i, _ in self.healthy():
            self._record(i, logits, self.step, task, epoch, split)

    def validate(self, epoch: int) -> None:
        """Scores the validation split, and updates the schedule "plateau" by it."""
        self.evaluate("val", 0, epoch)
        if self.setup.config.optimizer.schedule != PLATEAU:
            return
        copies = self._copies()
        for i, run in self.healthy():
            score, _ = judged(run.history, self.setup.config.train.score, self.setup.task)[-1]
            opt_state = copies[i].opt_state | {PLATEAU: update_plateau(
                copies[i].opt_state[PLATEAU], score, run.setup.config.optimizer)}
            copies[i] = copies[i]._replace(opt_state=opt_state)
        self.state = self.setup.programs.place(stack(copies))

    def test(self, epoch: int) -> None:
        """Scores the models that are kept on test data, if there are any, once, at the end of training."""
        if "test" not in self.setup.dataset.splits:
            return
        if self.setup.config.train.keep == "last":      # those that are in place
            self.evaluate("test", 0, epoch)
            return
        kept = self._kept()
        state = self.setup.programs.place(stack([state for _, state in kept]))
        logits = predict_split(self.setup, state, self.setup.dataset.splits["test"])
        for i, run in self.healthy():
            step, _ = kept[i]
            epochs = [r["epoch"] for r in run.history if r["step"] == step]
            self._record(i, logits, step, 0, epochs[0] if epochs else epoch, "test")

    def improved(self) -> bool:
        """Whether the model is the best so far of a run that keeps it."""
        return self.setup.config.train.keep == "best" and any(
            run.history and kept_step(run.setup, run.history, -1) == self.step for _, run in self.healthy())

    def waits_in_vain(self) -> bool:
        """Whether the run's patience is exhausted."""
        return waits_in_vain(self.runs[0].history, self.setup.config.train, self.setup.task)

    def extra(self) -> Any:
        """One copy of what the method has in the state of its own."""
        return self.setup.programs.fetch(self.state.extra)

    def survey(self, rows: Feed) -> None:
        """What the method does before the first step: it looks at the rows of the first task, in order."""
        if self.step == 0:
            self._visit(self.setup.programs.survey, 0, rows)

    def end_epoch(self, task: int, train: Feed) -> None:
        """What the method does after an epoch of a task, of whose rows it may ask for the features."""
        programs = self.setup.programs
        known: dict[tuple[str, bytes], dict[str, np.ndarray]] = {}      # of all runs, which may share rows

        def features_of(split: str, share: float, i: int) -> Batch:
            setup = self.runs[i].setup
            rows = share_of(rows_of(setup, split, task), share)
            at = split, rows.tobytes()
            if at not in known:
                feed = train if split == "train" else self.feed(split)
                known[at] = read_rows(self.setup, self.state, programs.features, feed, rows)
            batch = setup.dataset.splits[split]
            return take({key: batch[key] for key in ("label", "id", "present")}, rows) | {
                "features": self._own(known[at], i)}

        if programs.end_epoch:
            self.state = programs.end_epoch(self.state, features_of)

    def end_task(self, task: int, rows: Feed) -> None:
        """What the method does after a task: it visits its rows, in order, and ends it."""
        self._visit(self.setup.programs.visit, task, rows)
        self.state = self.setup.programs.end_task(self.state)

    def save(self, last: bool = False) -> None:
        """Saves each run; a run whose parameters are not finite fails.

        With `last` it waits until all is written.
        """
        copies = self._copies()
        for i, run in self.healthy():
            spare = kept_step(run.setup, run.history, self.step)
            try:
                hosts.from_main(functools.partial(run.save, self.step, copies[i], run.history, last=last,
                                                  spare=spare))
            except FloatingPointError as error:
                self.fail(i, error)

    def results(self) -> list[Run | FloatingPointError]:
        """The runs with the models that they keep, or the errors in their place."""
        if len(self.runs) == 1 and self.setup.config.train.keep == "last":
            states = [self.state]
        else:
            states = [run.setup.programs.place(state) for run, (_, state) in zip(self.runs, self._kept())]
        return [self.errors.get(i) or Run(run.setup, state, run.history, run.changed if is_finished(
            run.setup, run.history) else ()) for i, (run, state) in enumerate(zip(self.runs, states))]

    def _copies(self) -> list[TrainState]:
        """One copy of the state of each run."""
        return self._of_runs(self.state)

    def _of_runs(self, tree) -> list:
        """What each run has of a part of the state."""
        return unstack(self.setup.programs.fetch(tree), len(self.runs))

    def _kept(self) -> list[tuple[int, TrainState]]:
        """(step, one copy) of the model that each run keeps; for failed runs the current state."""
        return [(self.step, state) if i in self.errors else
                kept_model(run._replace(step=self.step, state=state))
                for i, (run, state) in enumerate(zip(self.runs, self._copies()))]

    def _fit_experts(self, logits: Logits) -> dict[str, np.ndarray]:
        """Fits the experts of the state, if it has any, to the outputs on validation data; theirs there."""
        found, val = self._of_runs(self.state.experts), self.setup.dataset.splits["val"]
        if not found[0]:
            return {}
        for i, _ in self.healthy():
            found[i] = experts.fit(self._own(logits, i), val, found[i], self.setup.config.train.experts)
        self.state = self.state._replace(experts=self.setup.programs.place(stack(found)))
        fused = [experts.fuse(self._own(logits, i), own, val["present"]) for i, own in enumerate(found)]
        return {head: np.asarray(fused[0][head]) if len(fused) == 1 else
                np.stack([own[head] for own in fused], axis=1) for head in fused[0]}

    def _record(self, i: int, logits, step: int, task: int, epoch: int, split: str) -> None:
        run = self.runs[i]
        record = {"step": step, "epoch": epoch, "task": task, "split": split,
                  **score_split(run.setup, self._own(logits, i), split)}
        run.history.append(record)
        self.write(i, {"kind": "eval"} | record)

    def _visit(self, visit, task: int, rows: Feed) -> None:
        """The state after one pass of `visit`, if there is one, over the rows of a task."""
        if visit:
            order = list(plan.visits([run.setup.tasks[task] for run in self.runs],
                                     self.setup.config.train.batch_size))
            for (_, counts), fed in rows.through(order):
                self.state = visit(self.state, fed, counts)

    def _own(self, outputs: Mapping[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
        """The outputs of run i, taken from those of all runs ([N, S, ...] if there are several)."""
        return {name: x if len(self.runs) == 1 else x[:, i] for name, x in outputs.items()}


def rows_of(setup: Setup, split: str, task: int) -> np.ndarray:
    """The rows of a split that belong to a task that is learned."""
    if split == "train":
        return setup.tasks[task]
    if setup.stream and not setup.config.stream.joint:
        return setup.stream.tasks[task].indices[split]
    return np.arange(batch_size(setup.dataset.splits[split]))


def share_of(rows: np.ndarray, share: float) -> np.ndarray:
    """A share of the rows, at least one, drawn without regard to what is in them or to any seed."""
    count = max(round(share * len(rows)), 1)
    return rows if count >= len(rows) else np.sort(np.random.default_rng(0).permutation(rows)[:count])
