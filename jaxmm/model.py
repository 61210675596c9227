"""The model that a method trains: encoders and a head, its forward pass, and the global batch."""
import functools
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from jaxmm.batch import Batch, Logits
from jaxmm.encoders import Encoder
from jaxmm.encoders.decoder import Decoder
from jaxmm.encoders.exchange import Exchange, seen, with_seen
from jaxmm.errors import UserError, suggest
from jaxmm.heads import Features, Head
from jaxmm.losses import weighted_mean
from jaxmm.task import Task


class Optimizer(NamedTuple):
    """Updates by parameter group; groups that are not in `grads` keep their parameters and state."""
    init: Callable[[Mapping[str, Any]], dict[str, Any]]
    update: Callable[..., tuple[dict[str, Any], dict[str, Any]]]
    # (grads, opt_state, params, step, scale, due)


class Output(NamedTuple):
    """A forward pass through encoders and head."""
    features: Features              # [B, s] by modality
    taps: dict[str, tuple[chex.Array, ...]]     # by modality: the output of each stage
    outputs: Logits                 # [B, K] by head; [B, h, w, K] with a decoder
    batch_stats: dict[str, Any]     # new, by modality


class Model(NamedTuple):
    """What a method is built from, besides its own options. The method adds the head and an exchange.

    A batch may be spread over devices. `mean`, `sum` and `gather` are over the global batch, the
    same on every device and differentiable, so methods do not deal with devices.
    """
    encoders: dict[str, Encoder]    # by modality
    task: Task                      # what the heads put out
    transform: Callable[[chex.PRNGKey | None, Batch], Batch]  # normalises; augments if it gets a key
    optimizer: Optimizer
    epoch: Callable[[chex.Array], Any]      # step -> its place in its task: `train.plan.Epoch`
    batch_size: int                 # of the global batch
    num_examples: int               # of the training split; ids lie below it
    gradient_norm: bool = False     # whether steps measure it
    axis_name: str | None = None    # of the devices, if the step is mapped over several
    head: Head | None = None
    exchange: Exchange | None = None    # between the stages of the encoders
    decoder: Decoder | None = None      # between the stages and a head that predicts at every place
    fuse: Callable | None = None    # (outputs by modality, present) -> [B, K], in place of the head's "fused"

    def run(self, params: Mapping[str, Any], batch_stats: Mapping[str, Any], batch: Batch, *,
            train: bool | Collection[str], only: Collection[str] | None = None,
            perturb: Callable | None = None, alone: Mapping[str, chex.Array] | None = None) -> Output:
        """The forward pass on a transformed batch.

        Args:
          params: by parameter group.
          batch_stats: by modality, of the exchange and of the decoder.
          batch: as `transform` returns it; features of missing modalities are zero.
          train: whether batch norm uses the statistics of the batch and moves the running ones; or
            the names of the parameter groups for which it does (modalities, "exchange", "decoder").
          only: modalities to encode; all by default. The batch statistics of the others stay.
          perturb: features -> features, applied between encoders and head.
          alone: bool [] by modality: whether it gets no information from the others, see `Exchange`.
        """
        x, taps, updated = self.encode(params, batch_stats, batch, train=train, only=only, alone=alone)
        features = {}
        for m in x:
            h, updated[m] = self.encoders[m].pool(params[m], updated[m], x[m], **self._options(m, batch, train))
            features[m] = jnp.where(batch["present"][m][:, None], h, 0.0)
        read = perturb(features) if perturb else features
        if self.decoder:
            read, updated["decoder"] = self.decoder.apply(
                params["decoder"], updated["decoder"], taps, train=trains(train, "decoder"), mask=self.anything(batch))
        assert self.head        # which the factory of the method has set
        outputs = self.head.apply(params["head"], read)
        if self.fuse:
            outputs |= {"fused": self.fuse({m: outputs[m] for m in features}, batch["present"])}
        return Output(features, taps, outputs, updated)

    def encode(self, params: Mapping[str, Any], batch_stats: Mapping[str, Any], batch: Batch, *,
               train: bool | Collection[str], only: Collection[str] | None = None,
               alone: Mapping[str, chex.Array] | None = None) -> tuple[dict, dict, dict[str, Any]]:
        """The part of `run` before pools, decoder and head: what goes into the pools, taps, batch statistics."""
        names = list(self.encoders if only is None else only)
        x, updated = {m: batch["inputs"][m] for m in names}, dict(batch_stats)
        taps = {m: () for m in names}
        for i in range(max(len(self.encoders[m].stages) for m in names)):
            for m in names:
                if i < len(self.encoders[m].stages):
                    x[m], updated[m] = self.encoders[m].stages[i](
                        params[m], updated[m], x[m], **self._options(m, batch, train))
            if self.exchange and i in self.exchange.after:
                stage = f"stage_{i}"
                maps, stats = self.exchange.apply(
                    params["exchange"][stage], updated["exchange"][stage], {m: seen(y) for m, y in x.items()},
                    batch["present"], train=trains(train, "exchange"), mean=self.mean, alone=alone)
                x = {m: with_seen(y, maps[m]) for m, y in x.items()}
                updated["exchange"] = updated["exchange"] | {stage: stats}
            taps = {m: taps[m] + ((x[m],) if i < len(self.encoders[m].stages) else ())
                    for m in names}
        return x, taps, updated

    def _options(self, m: str, batch: Batch, train: bool | Collection[str]) -> dict[str, Any]:
        return {"train": trains(train, m), "mask": batch["present"][m]}

    def anything(self, batch: Batch) -> chex.Array:
        """bool [B]: whether a row has any of the modalities that the model encodes."""
        return functools.reduce(operator.or_, [batch["present"][m] for m in self.encoders])

    def mean(self, values: chex.Array, present: chex.Array | None = None) -> chex.Array:
        """Mean of `values` [B] over the examples `present` bool [B] (all by default).

        It is 0, with zero gradient, if there is none.
        """
        return weighted_mean(values, present, self.sum)

    def sum(self, tree: Any) -> Any:
        """Sum over the devices of a tree of arrays."""
        return tree if self.axis_name is None else jax.lax.psum(tree, self.axis_name)

    def average(self, tree: Any) -> Any:
        """Mean over the devices of a tree of arrays."""
        return tree if self.axis_name is None else jax.lax.pmean(tree, self.axis_name)

    def first_row(self, rows: int) -> int | chex.Array:
        """The position in the global batch of the first of this device's `rows` rows."""
        return 0 if self.axis_name is None else jax.lax.axis_index(self.axis_name) * rows

    def gather(self, tree: Any) -> Any:
        """The rows of all devices, for losses that compare examples with each other."""
        if self.axis_name is None:
            return tree
        return jax.lax.all_gather(tree, self.axis_name, tiled=True)


def trains(train: bool | Collection[str], group: str) -> bool:
    """Whether a parameter group is in training, see `Model.run`."""
    return train if isinstance(train, bool) else group in train


def names_of(text: str) -> list[str]:
    """The names in a text, which separates them by commas."""
    return [name.strip() for name in text.split(",")] if text else []


def select_modalities(model: Model, names: str, option: str) -> Model:
    """The model with only the modalities in `names`, separated by commas in any order; with all if it is empty.

    Raises:
      UserError: a name that is not a modality of the data; `option` is where it was given.
    """
    chosen = names_of(names) or list(model.encoders)
    for m in chosen:
        if m not in model.encoders:
            raise UserError(f"{option}={names!r}: {m!r} is not a modality of the data"
                            f"{suggest(m, model.encoders)} (--config.{option}=...)")

    def transform(key, batch):
        batch = model.transform(key, batch)
        return batch | {part: {m: batch[part][m] for m in chosen} for part in ("inputs", "present")}

    return model._replace(encoders={m: e for m, e in model.encoders.items() if m in chosen}, transform=transform)
