"""CPM-Net: a code of each example, from which all its modalities are decoded (Zhang et al., 2019).

It is a baseline of MLA (arXiv 2311.10707, table 2).
"""
import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmm import heads
from jaxmm.config import MethodConfig
from jaxmm.errors import check_above, check_at_least, check_choice
from jaxmm.keys import named_key
from jaxmm.methods.common import (Method, check_several, finish_step, first_of_each, gradients, init_state,
                                  on_inputs, step_key)
from jaxmm.methods.imagination import mlp
from jaxmm.methods.taught import name_of
from jaxmm.model import Model, Output
from jaxmm.state import codes as codes_lib
from jaxmm.task import need_classes

NOBODY = -1e9       # logit of a class without a training example
TEST_RATE = 1e-2    # of Adam, where decoders are not linear

Layers = Sequence[Mapping[str, chex.Array]]


@dataclass
class CPMNetConfig(MethodConfig):
    """Free codes of the examples, decoded into every modality (CPM-Net, Zhang et al., 2019)."""
    name: str = "cpm_net"
    size: int = 128                 # numbers of a code
    hidden: int = 0                 # units of a ReLU layer in the decoders; 0: they are linear
    weight: float = 1.0             # of the classification of codes, >= 0
    margin: str = "paper"           # by which the own class must lead: 1, or as "released" none for examples
                                    # that are classified right
    code_rate: float = 1e-2         # learning rate of the codes, > 0; that of the decoders is the optimizer's
    eps: float = 1e-3               # of eps |c|^2 where codes are solved in evaluation, > 0
    test_steps: int = 300           # of Adam that solve a code in evaluation, with `hidden`
    retune: bool = True             # train the decoders on, on the codes of a run without this; off: that run
    teachers: str = ""              # folder of the run without retuning, see TaughtConfig


def make_cpm_net(config: CPMNetConfig, model: Model) -> Method:
    """Codes c_i in R^K of the training examples and decoders f_m, then decoders alone ("retune").

        l_r(i) = sum_{m in P_i} |f_m(c_i) - x_mi|^2                                       (eq. 5)
        l_c(i) = max_y max(0, 1[y != y_i] + F_y(i) - F_{y_i}(i)),                         (eq. 7)
        F_y(i) = c_i . mean {c_j: y_j = y, j != i}

    P_i are the modalities of example i. A step moves the decoders along mean l_r, then the codes of its
    batch, and no others, along l_r + weight l_c with the means of classes as constants (algorithm 1). The
    second run moves the decoders along mean l_r on (section 2.3); the released code leaves it out.

    There are no encoders: x_mi are the flattened inputs, normalised. In evaluation a code is the minimum of
    sum_m |f_m(c) - x_m|^2 + eps |c|^2 over the modalities that an example has (for the head of a modality
    over that one), in closed form for linear decoders, and the logits are z_y = c . mean {c_j: y_j = y}.
    They are inner products, not calibrated. Features are the codes from one modality.

    Raises:
      UserError: an option out of range, fewer than two modalities, or a task that is not a classification;
        from `init`, token ids.

    References:
      Zhang et al., "CPM-Nets: cross partial multi-view networks", NeurIPS 2019.
      Zhang et al., "Deep partial multi-view learning", TPAMI 2022, arXiv 2011.06170.
    """
    check_options(config, model)
    model = on_inputs(model, lambda m: (
        f"{config.name} works on the inputs themselves, and those of {m} are token ids, which are no quantities; "
        "give embeddings of the text, or choose another method"))
    model = model._replace(head=heads.Head(init_decoders(config), lambda decoders, features: {}))

    def init(key, batch):
        return init_state(model, key, batch, lambda key, widths: {
            "codes": codes_lib.init(key, model.num_examples, config.size)})

    def read(state, batch, key=None):
        """The inputs [B, d] by modality of a transformed batch; 0 where they are missing."""
        batch = model.transform(key, batch)
        return model.run(state.params, state.batch_stats, batch, train=False).features, batch["present"]

    def descend(state, loss_fn):
        """The losses and the state after a step of the decoders, for terms [B] by name of the parameters."""

        def loss(params):
            return {name: model.mean(values) for name, values in loss_fn(params["head"]).items()}, (
                Output({}, {}, {}, state.batch_stats))

        return gradients(model, state.params, loss, ("head",))

    def retune(state, batch):
        inputs, present = read(state, batch, step_key(state))
        rows = state.extra["codes"].codes[batch["id"]]
        return finish_step(model, state, batch, *descend(state, lambda decoders: {
            "reconstruction": reconstruction_error(decoders, rows, inputs, present)}))

    def learn(state, batch):
        inputs, present = read(state, batch, step_key(state))
        ids, labels = batch["id"], batch["label"]
        table = codes_lib.see(state.extra["codes"], ids, labels, axis_name=model.axis_name)
        rows, sums = table.codes[ids], codes_lib.class_sums(table, model.task.size)

        def terms(decoders, rows):
            scores = similarities(rows, labels, *sums)
            return {"reconstruction": reconstruction_error(decoders, rows, inputs, present),
                    "classification": config.weight * classification_loss(scores, labels, config.margin)}

        losses, out, grads = descend(state, lambda decoders: terms(decoders, rows))
        state, metrics = finish_step(model, state, batch, losses, out, grads)
        grads = jax.grad(lambda rows: sum(map(jnp.sum, terms(state.params["head"], rows).values())))(rows)
        table = codes_lib.update(table, ids, grads, first_of_each(model, ids), config.code_rate,
                                 axis_name=model.axis_name)
        return state._replace(extra={"codes": table}), metrics

    def ready(state):
        if "ready" in state.extra:
            return state
        found = {"classes": codes_lib.class_sums(state.extra["codes"], model.task.size)}
        if not config.hidden:
            found["factors"] = factor(state.params["head"], config.eps)
        return state._replace(extra=state.extra | {"ready": found})

    def solved(state, batch):
        """The codes [B, K] by head, for a state that is ready."""
        inputs, present = read(state, batch)
        decoders, known = state.params["head"], state.extra["ready"]
        masks = {m: {m: jnp.ones_like(present[m])} for m in inputs} | {"fused": present}
        if not config.hidden:
            return {head: solve_linear(decoders, known["factors"], inputs, mask) for head, mask in masks.items()}
        sums, counts = known["classes"]
        start = sums.sum(0) / jnp.maximum(counts.sum(), 1)
        return {head: solve_by_steps(decoders, inputs, mask, config.eps, start, config.test_steps)
                for head, mask in masks.items()}

    def predict(state, batch):
        state = ready(state)
        sums, counts = state.extra["ready"]["classes"]
        means = sums / jnp.maximum(counts, 1)[:, None]
        return {head: jnp.where(counts > 0, codes @ means.T, NOBODY)
                for head, codes in solved(state, batch).items()}

    def features(state, batch):
        found = solved(ready(state), batch)
        return {m: jnp.where(batch["present"][m][:, None], found[m], 0.0) for m in model.encoders}

    def teach(state, models):
        (found,) = models.values()
        return state._replace(params=found.params, extra=found.extra)

    if not config.retune:
        return Method(init, learn, predict, features, ready=ready, from_features=False)
    first = dataclasses.replace(config, retune=False, teachers="")
    return Method(init, retune, predict, features, ready=ready, teachers={name_of(first): first}, teach=teach,
                  from_features=False)


def init_decoders(config: CPMNetConfig) -> Callable:
    """(key, sizes of the inputs by modality) -> layers of the decoders by modality."""
    sizes = [config.size] + [config.hidden] * bool(config.hidden)

    def init(key, widths):
        def layers(m, *sizes):
            return [heads.linear_init(named_key(key, f"{m}/{i}"), *pair)
                    for i, pair in enumerate(itertools.pairwise(sizes))]

        return {m: layers(m, *sizes, width) for m, width in widths.items()}

    return init


def reconstruction_error(decoders: Mapping[str, Layers], codes: chex.Array, inputs: Mapping[str, chex.Array],
                         present: Mapping[str, chex.Array]) -> chex.Array:
    """sum_m |f_m(c) - x_m|^2 [B] over the modalities in `present`, bool [B] each (eq. 5)."""
    return sum(jnp.sum(jnp.where(mask[:, None], mlp(decoders[m], codes) - inputs[m], 0.0) ** 2, axis=-1)
               for m, mask in present.items())


def similarities(codes: chex.Array, labels: chex.Array, sums: chex.Array, counts: chex.Array) -> chex.Array:
    """c_i . mean {c_j: y_j = y, j != i} [B, C] for each class y; the means are constants.

    It is 0 for a class of which example i is the only one, and NOBODY for a class without examples.

    Args:
      codes: [B, K], which are among those in the sums.
      labels: int [B].
      sums: [C, K], of all codes by class.
      counts: [C], of these.
    """
    sums, alone = jax.lax.stop_gradient((sums, codes))
    scores = jnp.where(counts > 0, codes @ (sums / jnp.maximum(counts, 1)[:, None]).T, NOBODY)
    others = (sums[labels] - alone) / jnp.maximum(counts[labels] - 1, 1)[:, None]
    own = jnp.arange(len(counts)) == labels[:, None]
    return jnp.where(own, jnp.sum(codes * others, axis=-1, keepdims=True), scores)


def classification_loss(scores: chex.Array, labels: chex.Array, margin: str = "paper") -> chex.Array:
    """max_y max(0, 1[y != y_i] + F_y - F_{y_i}) [B] of scores F [B, C] (eq. 7).

    With the margin "released" the 1 is there only where another class than y_i has the largest score.
    """
    wrong = jnp.arange(scores.shape[-1]) != labels[:, None]
    true = jnp.take_along_axis(scores, labels[:, None], axis=-1)
    if margin == "released":
        wrong &= (scores.argmax(-1) != labels)[:, None]
    return jax.nn.relu(jnp.max(wrong + scores - true, axis=-1))


def patterns_of(decoders: Mapping[str, Layers]) -> np.ndarray:
    """Which modalities, in alphabetical order, an example may have: bool [2^M - 1, M]."""
    return np.array(list(itertools.product([False, True], repeat=len(decoders)))[1:])


def factor(decoders: Mapping[str, Layers], eps: float) -> tuple[chex.Array, chex.Array]:
    """For each of `patterns_of`, V [K, K] and s [K] by which V diag(s) V^T inverts sum_m W_m W_m^T + eps I.

    By eigenvalues, of which those below the rounding of the products count as 0 and have no part in codes:
    divided by a small eps it would be noise, and a Cholesky factor NaN.
    """
    kernels = [decoders[m][0]["kernel"] for m in sorted(decoders)]
    gram = jnp.stack([kernel @ kernel.T for kernel in kernels])

    def invert(pattern):
        values, vectors = jnp.linalg.eigh(jnp.tensordot(pattern.astype(jnp.float32), gram, 1))
        rounding = len(values) * jnp.finfo(jnp.float32).eps * values[-1]
        return vectors, jnp.where(values > rounding, 1 / (values + eps), 0.0)

    return jax.lax.map(invert, patterns_of(decoders))


def solve_linear(decoders: Mapping[str, Layers], factors: tuple[chex.Array, chex.Array],
                 inputs: Mapping[str, chex.Array], present: Mapping[str, chex.Array]) -> chex.Array:
    """argmin_c sum_m |f_m(c) - x_m|^2 + eps |c|^2 [B, K] for linear decoders, over the modalities in `present`.

    It solves (sum_m W_m W_m^T + eps I) c = sum_m W_m (x_m - b_m), by what `factor` makes of decoders and eps.
    """
    layers, names = {m: decoders[m][0] for m in present}, sorted(decoders)
    nothing = jnp.zeros_like(next(iter(present.values())))
    mask = jnp.stack([present.get(m, nothing) for m in names], axis=-1)
    target = sum(jnp.where(there[:, None], (inputs[m] - layers[m]["bias"]) @ layers[m]["kernel"].T, 0.0)
                 for m, there in present.items())

    def solve(codes, of):
        pattern, vectors, scale = of
        found = (target @ vectors * scale) @ vectors.T
        return jnp.where((mask == pattern).all(-1, keepdims=True), found, codes), None

    patterns = patterns_of(decoders)
    able = ~patterns[:, [m not in present for m in names]].any(axis=1)
    return jax.lax.scan(solve, jnp.zeros_like(target), (patterns[able], *(x[able] for x in factors)))[0]


def solve_by_steps(decoders: Mapping[str, Layers], inputs: Mapping[str, chex.Array],
                   present: Mapping[str, chex.Array], eps: float, start: chex.Array, steps: int) -> chex.Array:
    """The same by steps of Adam from the code `start` [K], for any decoders."""
    rows = next(iter(present.values())).shape[0]
    tx = optax.adam(TEST_RATE)

    def loss(codes):
        return jnp.sum(reconstruction_error(decoders, codes, inputs, present)) + eps * jnp.sum(codes ** 2)

    def step(carry, _):
        codes, opt_state = carry
        updates, opt_state = tx.update(jax.grad(loss)(codes), opt_state)
        return (optax.apply_updates(codes, updates), opt_state), None

    codes = jnp.broadcast_to(start, (rows, len(start)))
    return jax.lax.scan(step, (codes, tx.init(codes)), length=steps)[0][0]


def check_options(config: CPMNetConfig, model: Model) -> None:
    """Raises UserError for an option out of range, one modality, or another task than a classification."""
    check_several(model, f"{config.name} has codes of several modalities")
    need_classes(model.task, "the classification of codes", "use ae or cra")
    check_choice("method.margin", config.margin, ("paper", "released"))
    for option, least in (("size", 1), ("hidden", 0), ("weight", 0), ("test_steps", 1)):
        check_at_least(f"method.{option}", getattr(config, option), least)
    for option in ("code_rate", "eps"):
        check_above(f"method.{option}", getattr(config, option), 0)
