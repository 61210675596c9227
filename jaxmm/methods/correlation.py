"""Methods that look for what modalities have in common: CCA, DCCA and DCCAE.

A run without labels finds projections in which the modalities correlate. Then a linear head is trained on
these projections, and nothing else. They are baselines of MLA (arXiv 2311.10707, table 2).
"""
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm import heads
from jaxmm.batch import Batch
from jaxmm.config import MethodConfig
from jaxmm.data.dataset import say
from jaxmm.errors import UserError, check_above, check_at_least, check_choice
from jaxmm.keys import named_key
from jaxmm.losses import correlation
from jaxmm.losses.distillation import mean_squared_error
from jaxmm.methods.common import (Method, check_several, finish_step, flatten, gradients, head_progress, init_state,
                                  on_inputs, step_key)
from jaxmm.methods.imagination import mlp
from jaxmm.methods.taught import name_of
from jaxmm.model import Model, Output

ENOUGH = 20     # rows for each number of a view; with fewer, correlations of noise look large


@dataclass
class CCAConfig(MethodConfig):
    """Canonical correlations of each pair of modalities, and a linear head (Hotelling, 1936)."""
    name: str = "cca"
    k: int = 10                     # components of each pair of modalities, >= 1
    r: float = 1e-3                 # added to the variances, > 0; those of inputs are 1
    impute: str = "mean"            # covariances with the "mean" in place of what is missing, or those of
                                    # the rows that have both modalities ("pairs")
    labels: bool = True             # train the head, on what a run without labels found; off: that run
    teachers: str = ""              # folder of the run without labels, see TaughtConfig


@dataclass
class DCCAConfig(CCAConfig):
    """Encoders trained to correlate, and a linear head on them (DCCA, Andrew et al., 2013)."""
    name: str = "dcca"
    weight: float = 0.0             # of reconstructing the inputs, >= 0; 0: they are not


@dataclass
class DCCAEConfig(DCCAConfig):
    """DCCA whose encoders also keep what reconstructs their inputs (DCCAE, arXiv 1602.01024)."""
    name: str = "dccae"
    weight: float = 1e-3            # of reconstructing the inputs, >= 0; 0: they are not, as in dcca


def make_cca(config: CCAConfig, model: Model) -> Method:
    """Canonical correlation analysis of each pair of modalities, then l(z_f, y) of a linear head.

    There are no encoders: it works on the flattened inputs, normalised and not augmented. Modality m has the
    features concat_{n != m} (x_m - mu_m) A_mn, [B, (M - 1) k], 0 where it is missing.

    The run without labels adds up moments over all its steps, as an epoch leaves out its last, incomplete
    batch, and solves them at its end. Until then the projections are 0.

    Raises:
      UserError: fewer than two modalities, or an option out of range; from `init`, a text, or inputs of
        fewer than k numbers.
    """
    check_options(config, model)
    width = (len(model.encoders) - 1) * config.k
    model = on_inputs(model, no_text)._replace(head=head_on(model, width))

    def moments(views, present):
        return by_pair(views, lambda m, n: correlation.moments(
            views[m], views[n], present[m], present[n], config.impute))

    def init(key, batch):
        state = init_with(model, key, batch, empty)
        if config.labels:
            return state
        layers = state.params["projection"]
        nothing = moments({m: jnp.zeros((1, len(layers[m]["kernel"]))) for m in layers},
                          {m: jnp.zeros(1, bool) for m in layers})
        return state._replace(extra={"moments": jax.tree.map(jnp.zeros_like, nothing)})

    def empty(key, widths):
        del key
        for m, size in widths.items():
            if size < config.k:
                raise UserError(f"method.k={config.k}: inputs of {m} have {size} numbers, and no more "
                                f"components; set --config.method.k={min(widths.values())} or less")
        return {"projection": {m: {"kernel": jnp.zeros((size, width)), "bias": jnp.zeros(width)}
                               for m, size in widths.items()}}

    def correlate(state, batch):
        batch = model.transform(None, batch)
        out = run(model, state.params, state.batch_stats, batch, train=False)
        new = model.sum(moments(out.features, batch["present"]))
        extra = {"moments": jax.tree.map(jnp.add, state.extra["moments"], new)}
        metrics = {"loss": jnp.zeros(())} | head_progress(model, out.outputs, batch)
        return state._replace(extra=extra, step=state.step + 1), metrics

    def solve(state):
        layers = {m: [] for m in model.encoders}
        for m, others in state.extra["moments"].items():
            for n, sums in others.items():
                found = correlation.covariances(sums)
                _, a, b = correlation.directions(found, config.r, config.k)
                for name, mean, kernel in ((m, found.mean_x, a), (n, found.mean_y, b)):
                    layers[name].append((kernel, -jnp.matmul(mean, kernel, precision="highest")))
        projection = {m: dict(zip(("kernel", "bias"), (jnp.concatenate(x, axis=-1) for x in zip(*parts))))
                      for m, parts in layers.items()}
        return state._replace(params=state.params | {"projection": projection})

    return make_phases(config, model, init, correlate, solve)


def make_dcca(config: DCCAConfig, model: Model) -> Method:
    """Deep CCA: encoders and layers g_m = h_m W_m + b_m in R^k that are trained to correlate.

    The run without labels has the loss

        - sum_{m<n} sum_j rho_j(g_m, g_n) + weight sum_m MSE(dec_m(g_m), x_m)

    with the correlations over the global batch. The error (DCCAE) is a mean over the numbers of the flattened
    input, and over the examples that have it. A decoder has ReLU layers of the width of h_m, as many as the
    encoder has stages, and a linear one. Then everything is frozen but the head, for l(z_f, y). The papers
    have two views; with more, each modality has a network of its own.

    Raises:
      UserError: fewer than two modalities, an option out of range, or a batch of fewer than k rows; from
        `init`, a text that would be reconstructed.
    """
    check_options(config, model)
    check_at_least("method.weight", config.weight, 0)
    if model.batch_size < config.k:
        raise UserError(f"train.batch_size={model.batch_size}: {config.name} correlates the rows of a batch; "
                        f"expected at least method.k={config.k}, and better {ENOUGH} times that")
    model = model._replace(head=head_on(model, config.k))
    reconstructs = config.weight > 0 and not config.labels
    pairs = list(itertools.combinations(sorted(model.encoders), 2))
    # All pairs at once: their views are of one width, and compiling takes long.
    pair_loss = jax.vmap(functools.partial(correlation.correlation_loss, r=config.r, impute=config.impute,
                                           reduce=model.sum))

    def init(key, batch):
        inputs = model.transform(None, batch)["inputs"] if reconstructs else {}
        sizes = {m: flatten(x, no_text(m)).shape[1] for m, x in inputs.items()}
        return init_with(model, key, batch, lambda key, widths: layers(key, widths, sizes))

    def layers(key, widths, sizes):
        made = {"projection": {m: heads.linear_init(named_key(key, f"projection/{m}"), width, config.k)
                               for m, width in widths.items()}}
        if reconstructs:
            made["decoder"] = {m: chain_init(named_key(key, f"decoder/{m}"), [
                config.k, *[widths[m]] * len(model.encoders[m].stages), size]) for m, size in sizes.items()}
        return made

    def correlate(state, batch):
        batch = model.transform(step_key(state), batch)
        present = batch["present"]

        def loss_fn(params):
            out = run(model, params, state.batch_stats, batch, train=True)
            g = project(params, out.features, present)
            terms = {"correlation": pair_loss(*(jnp.stack([views[pair[i]] for pair in pairs])
                                                for views in (g, present) for i in (0, 1))).sum()}
            if reconstructs:
                errors = {m: mean_squared_error(chain(params["decoder"][m], g[m]),
                                                flatten(batch["inputs"][m], no_text(m))) for m in g}
                terms["reconstruction"] = config.weight * sum(
                    model.mean(error, present[m]) for m, error in errors.items())
            return terms, out

        learned = [group for group in state.params if group != "head"]
        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn, learned))

    return make_phases(config, model, init, correlate)


def make_phases(config: CCAConfig, model: Model, init, correlate, solve=None) -> Method:
    """The run without labels or, with `config.labels`, that of the head, whose teacher it is.

    Args:
      config: of the run.
      model: with a head on the projections.
      init: (key, batch) -> state of the run.
      correlate: step of the run without labels.
      solve: what makes the projections of the last state of the run without labels, if steps do not.
    """

    def read_out(state, batch):
        batch = model.transform(step_key(state), batch)

        def loss_fn(params):
            out = run(model, params, state.batch_stats, batch, train=())
            return model.mean(model.task.loss(out.outputs["fused"], batch["label"])), out

        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn, ("head",)))

    def teach(state, models):
        (found,) = models.values()
        found = solve(found) if solve else found        # also of a run that stopped before its end
        params = {group: found.params[group] for group in state.params if group != "head"}
        return state._replace(params=state.params | params, batch_stats=found.batch_stats)

    def predict(state, batch):
        return run(model, state.params, state.batch_stats, model.transform(None, batch), train=False).outputs

    def features(state, batch):
        batch = model.transform(None, batch)
        out = run(model, state.params, state.batch_stats, batch, train=False)
        return project(state.params, out.features, batch["present"])

    if not config.labels:
        return Method(init, correlate, predict, features, end_task=solve, from_features=False)
    unlabelled = dataclasses.replace(config, labels=False, teachers="")
    return Method(init, read_out, predict, features, teachers={name_of(unlabelled): unlabelled}, teach=teach,
                  from_features=False)


def run(model: Model, params, batch_stats, batch: Batch, *, train: bool | Collection[str]) -> Output:
    """The forward pass, with projections between encoders and head; its features are before them."""
    return model.run(params, batch_stats, batch, train=train,
                     perturb=lambda features: project(params, features, batch["present"]))


def project(params, features: heads.Features, present: Mapping[str, chex.Array]) -> heads.Features:
    """The projections of features, both [B, s] by modality, 0 where the modality is missing."""
    return {m: jnp.where(present[m][:, None], heads.linear(params["projection"][m], h), 0.0)
            for m, h in features.items()}


def by_pair(names: Collection[str], fn: Callable[[str, str], Any]) -> dict[str, dict[str, Any]]:
    """fn(m, n) as [m][n], for each pair of names in alphabetical order."""
    found: dict[str, dict[str, Any]] = {}
    for m, n in itertools.combinations(sorted(names), 2):
        found.setdefault(m, {})[n] = fn(m, n)
    return found


def init_with(model: Model, key, batch: Batch, groups: Callable):
    """The first state, with the parameter groups that `groups` makes of (key, widths) too."""
    state = init_state(model, key, batch, groups)
    params = state.params | state.extra
    return state._replace(params=params, opt_state=model.optimizer.init(params), extra=())


def head_on(model: Model, width: int) -> heads.Head:
    """A linear layer on features of this width of all modalities, whatever encoders put out."""
    head = heads.concat(model.task.size)
    return head._replace(init=lambda key, widths: head.init(key, dict.fromkeys(widths, width)))


def no_text(m: str) -> str:
    """What is said of a modality m of token ids."""
    return (f"{m} is a text, and its token ids are no quantities: cca has no use for them, nor has the "
            "reconstruction of dccae; use dcca, or leave the modality out")


def chain_init(key, widths: Sequence[int]) -> dict[str, Any]:
    """Linear layers from each of the widths to the next."""
    return {f"layer_{i}": heads.linear_init(named_key(key, f"layer_{i}"), *pair)
            for i, pair in enumerate(itertools.pairwise(widths))}


def chain(params, x: chex.Array) -> chex.Array:
    """Linear layers with ReLU between them."""
    return mlp([params[f"layer_{i}"] for i in range(len(params))], x)


def check_options(config: CCAConfig, model: Model) -> None:
    """Raises UserError for an option out of range, or fewer than two modalities."""
    check_several(model, f"{config.name} correlates modalities")
    check_at_least("method.k", config.k, 1)
    check_above("method.r", config.r, 0)
    check_choice("method.impute", config.impute, correlation.IMPUTE)


def check_rows(config: CCAConfig, where: str, train: Batch, batch_size: int) -> None:
    """Warns, in a run without labels, of too few rows with two modalities for views as wide as theirs.

    In CCA the views are the inputs, and rows those of the data; in DCCA they have k numbers, and rows are those
    of a batch. With `r` as large as the variances of the inputs noise hardly counts.

    Raises:
      UserError: fewer rows with a modality than components.
    """
    present = {m: np.asarray(train["present"][m]) for m in sorted(train["present"])}
    for m, has in present.items():
        if has.sum() < config.k:
            raise UserError(f"method.k={config.k}: {where} has {has.sum()} training rows with {m}, and no more "
                            f"components; lower --config.method.k")
    if config.labels:
        return
    rows = len(train["label"])
    both = {pair: int(np.logical_and(*(present[m] for m in pair)).sum())
            for pair in itertools.combinations(present, 2)}
    if isinstance(config, DCCAConfig):
        pair = min(both, key=lambda pair: both[pair])
        count = both[pair] * batch_size // rows
        if count < ENOUGH * config.k:
            say(f"{config.name}: a batch has about {count} rows with both {' and '.join(pair)}; below {ENOUGH} x "
                f"method.k = {ENOUGH * config.k}, correlations of noise look large; raise "
                "--config.train.batch_size or lower --config.method.k")
        return
    sizes = {pair: max(math.prod(train["inputs"][m].shape[1:]) for m in pair) for pair in both}
    pair = min(both, key=lambda pair: both[pair] / sizes[pair])
    if both[pair] < ENOUGH * sizes[pair] and config.r < 1:
        say(f"{config.name}: {where} has {both[pair]} rows with both {' and '.join(pair)}, of up to {sizes[pair]} "
            f"numbers each; below {ENOUGH} rows for each number, correlations of noise look large with "
            f"method.r={config.r:g}; choose it on validation, as by --methods=cca+r=1,cca+r=10,cca+r=100")
