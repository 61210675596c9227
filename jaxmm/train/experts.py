"""The head "experts", a product of calibrated predictions, of the runs of any method.

Its numbers are part of the state, so that they are saved, restored and exported with the model. They are fitted
each time that validation data are scored, whose own score of this head is a little too good therefore.
"""
from collections.abc import Mapping, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm import metrics
from jaxmm.batch import Batch, Logits
from jaxmm.config import Config
from jaxmm.data.dataset import Dataset, say
from jaxmm.errors import UserError, check_choice
from jaxmm.heads.fusion import product_of_experts
from jaxmm.methods.common import Method
from jaxmm.state import experts
from jaxmm.state.experts import Experts
from jaxmm.task import Task, need_classes

HEAD = "experts"
KINDS = ("", "equal", "fitted", "all")


def check(config: Config, task: Task) -> None:
    """Raises UserError unless a run can have this head, if it is to have it."""
    kind = config.train.experts
    check_choice("train.experts", kind, KINDS)
    if not kind:
        return
    need_classes(task, "a product of predictions", "leave out --config.train.experts")
    if config.stream.kind:
        raise UserError(f"train.experts={kind}: its prior is of classes that a stream does not know before its end; "
                        "leave it out, or choose a config without a stream")


def log_prior(config: Config, task: Task, dataset: Dataset) -> np.ndarray:
    """log of the shares [C] of the classes that a run learns: those of its training data, or equal ones if its
    classes are weighted to be so."""
    if config.train.class_weights or not dataset.splits:    # without data a run is restored
        return np.full(task.size, -np.log(task.size))
    return metrics.log_prior(dataset.splits["train"]["label"], task.size)


def with_experts(method: Method, kind: str, prior: chex.Array, modalities: Sequence[str]) -> Method:
    """The method with this head; as it is, which is said, if it has no heads of single modalities."""

    def heads(state, batch):
        outputs = jax.eval_shape(method.predict, state, batch)
        return [m for m in modalities if m in outputs] + ["fused"] * (kind == "all" and "fused" in outputs)

    def init(key, batch):
        state = method.init(key, batch)
        found = heads(state, batch)
        if not set(found) & set(modalities):
            say("train.experts: the method has no heads of single modalities, and so no head experts")
            return state
        return state._replace(experts=experts.init(found, prior))

    def predict(state, batch):
        outputs = method.predict(state, batch)
        return outputs | fuse(outputs, state.experts, batch["present"])

    return method._replace(init=init, predict=predict)


def fuse(outputs: Logits, found: Experts, present: Mapping[str, chex.Array]) -> dict[str, chex.Array]:
    """The outputs [B, C] of this head from those of the others; {} if the state has no experts."""
    if not found:
        return {}
    taken = {h: outputs[h] for h in found.weight}
    return {HEAD: product_of_experts(taken, found.temperature, found.weight, found.log_prior,
                                     takes_part(taken, present))}


def fit(outputs: Logits, split: Batch, found: Experts, kind: str) -> Experts:
    """The experts, fitted to the outputs [N, C] of all heads on validation data."""
    taken = {h: outputs[h] for h in found.weight}
    there = {h: np.asarray(p) for h, p in takes_part(taken, split["present"]).items()}
    return experts.fit(found, taken, split["label"], there, weighted=kind != "equal")


def cross_fitted(outputs: Logits, split: Batch, found: Experts, kind: str) -> np.ndarray:
    """The outputs [N, C] of this head on validation data, each half of it by what was fitted to the other one."""
    labels = split["label"]
    fused = np.empty((len(labels), len(found.log_prior)), np.float32)
    order = np.random.default_rng(0).permutation(len(labels))
    for rows, others in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        def part(chosen):
            return ({h: z[chosen] for h, z in outputs.items()},
                    {"label": labels[chosen], "present": {m: p[chosen] for m, p in split["present"].items()}})
        own, (known, rest) = part(rows), part(others)
        fused[rows] = fuse(own[0], fit(known, rest, found, kind), own[1]["present"])[HEAD]
    return fused


def takes_part(heads: Mapping[str, chex.Array], present: Mapping[str, chex.Array]) -> dict[str, chex.Array]:
    """bool [B] by head: a modality where it is present, the fused head where any of the heads' modalities is."""
    own = {m: jnp.asarray(present[m]) for m in present if m in heads}
    return own | {h: jnp.stack([*own.values()]).any(0) for h in heads if h not in own}
