"""Methods that imagine the modalities an example lacks, in training those that they hide themselves.

They are baselines of MLA (arXiv 2311.10707, table 2), which gives no equation of them; where their papers are
silent, the code of GCNet decides. What is missing is read neither as input nor as target: in each step an
example is given some of the modalities that it has (see `hide`), and what is imagined is among these. In
evaluation it is given all of them, and for the head of a modality that one alone.
"""
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxmm.batch import Batch
from jaxmm.config import MethodConfig, scalar
from jaxmm.errors import check_at_least, check_choice, check_probability
from jaxmm.heads import Features, Head, common_width, concatenate, linear, linear_init, with_readouts
from jaxmm.keys import named_key
from jaxmm.losses.discrepancy import central_moment_discrepancy
from jaxmm.losses.distillation import mean_squared_error
from jaxmm.methods.common import (Method, TrainState, check_several, finish_step, flatten, gradients, init_state,
                                  make_features, make_predict, own_key, step_key)
from jaxmm.methods.fusion import FusedConfig, drop_features
from jaxmm.methods.taught import feature_error
from jaxmm.model import Model

HIDDEN = 128            # units of the layers of classifiers, and of decoders of inputs
Layers = list[dict[str, chex.Array]]


@dataclass
class ImaginationConfig(MethodConfig):
    """What the methods that imagine modalities share."""
    hide: float = scalar(0.5)       # probability in [0, 1) that a step hides a modality of an example; one
                                    # is always given
    targets: str = "present"        # what is imagined: modalities that are "present", or by "oracle" missing
                                    # ones, whose values data.missing_rate leaves in the data: a leak, to
                                    # compare with published numbers
    dropout: float = scalar(0.5)    # probability in [0, 1) of dropping a hidden unit of the classifier
    blocks: int = 1                 # autoencoders in a cascade


@dataclass
class AutoencoderConfig(ImaginationConfig):
    """Reconstructs all modalities of an example from those that it is given."""
    weight: float = scalar(1.0)     # of the reconstruction, >= 0
    skip: bool = False              # each autoencoder predicts what those before it leave over
    transition: bool = False        # two layers behind the last autoencoder


@dataclass
class MMINConfig(ImaginationConfig):
    """Imagines features of hidden modalities, and from them those given (MMIN, Zhao et al., 2021)."""
    name: str = "mmin"
    blocks: int = 5
    forward: float = scalar(4.0)    # weight of the features imagined, >= 0
    backward: float = scalar(2.0)   # weight of the way back, >= 0
    teachers: str = ""              # see TaughtConfig


@dataclass
class IFMMINConfig(ImaginationConfig):
    """Imagines features with what modalities have in common (IF-MMIN, arXiv 2210.15359)."""
    name: str = "if_mmin"
    blocks: int = 5
    forward: float = scalar(1.0)    # weight of the features imagined, >= 0
    invariance: float = scalar(100.0)   # weight of the common features, >= 0
    student: bool = True            # off: the first phase, in which the teacher of the second is trained
    teachers: str = ""              # see TaughtConfig


def make_autoencoder(config: AutoencoderConfig, model: Model) -> Method:
    """`ae` and `cra`: CE(C(zhat), y) + w mean_{i, m in P_i} MSE(R_m(zhat), x_m).

    P_i are the modalities of example i, zhat is the cascade's output for the features given, C the
    classifier, R_m a network with two hidden layers, and x_m the input, normalised and flattened. With
    `targets` "oracle" the mean is over the modalities that are missing.

    Raises:
      UserError: an option out of range, one modality, or token ids, which cannot be reconstructed.

    References:
      Bengio et al., "Greedy layer-wise training of deep networks", NeurIPS 2006.
      Tran et al., "Missing modalities imputation via cascaded residual autoencoder", CVPR 2017.
    """
    check_options(config, model)
    check_at_least("method.weight", config.weight, 0)

    def init_head(key, widths, sizes):
        size = sum(widths.values())
        return {"cascade": init_cascade(named_key(key, "cascade"), size, config.blocks, (256, 128),
                                        config.transition),
                "classifier": init_layers(named_key(key, "classifier"), size, HIDDEN, HIDDEN,
                                          model.task.size),
                "decoders": {m: init_layers(named_key(key, f"decoder/{m}"), size, HIDDEN, HIDDEN, d)
                             for m, d in sizes.items()}}

    def imagine(params, features):
        return cascade(params["cascade"], concatenate(features), skip=config.skip)[0]

    def fuse(params, features):
        return mlp(params["classifier"], imagine(params, features))

    model = model._replace(head=Head(init_head, with_readouts(fuse)))
    encoders = without_head(model)

    def init(key, batch):
        sizes = input_sizes(config.name, model.transform(None, batch)["inputs"])
        head = model.head._replace(init=functools.partial(init_head, sizes=sizes))
        return init_state(model._replace(head=head), key, batch)

    def step(state, batch):
        given, whole = hide_some(config, model, state, batch)
        counted = hidden_of(given, whole) if config.targets == "oracle" else whole["present"]
        drop = make_drop(config, state, batch)

        def loss_fn(params):
            out, head = encoders.run(params, state.batch_stats, given, train=True), params["head"]
            zhat = imagine(head, out.features)
            logits = mlp(head["classifier"], zhat, drop=drop)
            errors = [mean_squared_error(mlp(layers, zhat), whole["inputs"][m].reshape(len(zhat), -1))
                      for m, layers in head["decoders"].items()]
            terms = {"fused": model.mean(model.task.loss(logits, batch["label"])),
                     "reconstruction": config.weight * model.mean(
                         jnp.concatenate(errors), jnp.concatenate([counted[m] for m in head["decoders"]]))}
            return terms, out._replace(outputs={"fused": logits})

        return finish_step(model, state, given, *gradients(model, state.params, loss_fn))

    return Method(init, step, make_predict(model), make_features(model))


def make_mmin(config: MMINConfig, model: Model) -> Method:
    """CE(C(c), y) + a mean_{i: D_i} MSE(zhat, t) + b MSE(z', sg(z)), where zhat, c = F(z) and z' = B(zhat).

    z are the features h_m of the modalities given, 0 for the others. F and B are cascades, and the classifier
    C sees the latent units c of F. t_m is, for the modalities D_i that are hidden from example i, the feature
    of the teacher (`concat` on the same data, from which the encoders start), and 0 for those given: what is
    imagined is what is not there. An MSE is over the modalities that an example has; with `targets` "oracle"
    those that are missing are hidden, and count too.

    Raises:
      UserError: an option out of range, or one modality.

    References:
      Zhao, Li and Jin, "Missing modality imagination network for emotion recognition with uncertain
      missing modalities", ACL 2021. Five autoencoders and the weights are those of GCNet's baseline.
    """
    check_at_least("method.backward", config.backward, 0)
    return make_student(config, model, {"concat": FusedConfig("concat")})


def make_if_mmin(config: IFMMINConfig, model: Model) -> Method:
    """CE(C(c), y) + a mean_{i: D_i} MSE(zhat, t) + b MSE(H', H): `mmin` with features V(h_m) of its own.

    V is one network for all modalities, H' = [V(h_1); ...; V(h_M)], and H is that of the teacher, from all
    modalities an example has. There is no way back. The input of each autoencoder in F is the output of the
    one before it plus H', instead of the sum of all outputs. The teacher has learned CE(C([h; H]), y) plus
    the mean over pairs of modalities of the central moment discrepancy of V(h_m) and V(h_n). As in the
    released code, H' has V(0) for what is not given, so there its error teaches the biases of V alone.

    Raises:
      UserError: an option out of range, one modality, or encoders of different widths.

    References:
      Zuo et al., "Exploiting modality-invariant feature for robust multimodal emotion recognition with
      missing modalities", ICASSP 2023, arXiv 2210.15359.
    """
    check_at_least("method.invariance", config.invariance, 0)
    if not config.student:
        return make_invariant(config, model)
    return make_student(config, model, {"if_mmin+student=false": IFMMINConfig(student=False)}, invariant=True)


def make_student(config: MMINConfig | IFMMINConfig, model: Model, teachers: Mapping[str, MethodConfig], *,
                 invariant: bool = False) -> Method:
    """The second phase of `mmin` or, if `invariant`, of `if_mmin`."""
    check_options(config, model)
    check_at_least("method.forward", config.forward, 0)
    widths_of_blocks = (256, 128, 64)

    def init_head(key, widths):
        size = sum(widths.values())
        own = {"invariant": init_invariant(key, widths)} if invariant else {
            "backward": init_cascade(named_key(key, "backward"), size, config.blocks, widths_of_blocks)}
        return own | {
            "forward": init_cascade(named_key(key, "forward"), size, config.blocks, widths_of_blocks),
            "classifier": init_layers(named_key(key, "classifier"), config.blocks * widths_of_blocks[-1],
                                      HIDDEN, HIDDEN, model.task.size)}

    def imagine(params, features):
        """(zhat, latent units, features that modalities have in common or None)"""
        z = concatenate(features)
        if not invariant:
            return *cascade(params["forward"], z, skip=True), None
        common = in_common(params["invariant"], features)
        return *cascade(params["forward"], z, skip=False, shift=concatenate(common)), common

    def fuse(params, features):
        return mlp(params["classifier"], imagine(params, features)[1])

    model = model._replace(head=Head(init_head, with_readouts(fuse)))
    encoders = without_head(model)

    def inherited(params):
        """The parameters that the student has from its teacher, and the teacher keeps."""
        return {m: params[m] for m in model.encoders} | {
            "head": {"invariant": params["head"]["invariant"]} if invariant else {}}

    def init(key, batch):
        state = init_state(model, key, batch)
        return state._replace(extra={"teacher": (inherited(state.params), state.batch_stats)})

    def teach(state, models):
        (teacher,) = models.values()
        known = inherited(teacher.params)
        return state._replace(params=state.params | known | {"head": state.params["head"] | known["head"]},
                              batch_stats=teacher.batch_stats,
                              extra={"teacher": (known, teacher.batch_stats)})

    def step(state, batch):
        given, whole = hide_some(config, model, state, batch)
        hidden, counted, drop = hidden_of(given, whole), whole["present"], make_drop(config, state, batch)
        frozen, _ = state.extra["teacher"]
        taught = encoders.run(*state.extra["teacher"], whole, train=False).features
        target = {m: jnp.where(given["present"][m][:, None], 0.0, h) for m, h in taught.items()}

        def loss_fn(params):
            out, head = encoders.run(params, state.batch_stats, given, train=True), params["head"]
            zhat, latents, common = imagine(head, out.features)
            logits = mlp(head["classifier"], latents, drop=drop)
            terms = {"fused": model.mean(model.task.loss(logits, batch["label"])),
                     "forward": config.forward * model.mean(
                         feature_error(split(zhat, target), target, counted), any_of(hidden))}
            if invariant:
                error = feature_error(common, in_common(frozen["head"]["invariant"], taught), counted)
                terms["invariance"] = config.invariance * model.mean(error)
            else:
                back, _ = cascade(head["backward"], zhat, skip=True)
                start = jax.lax.stop_gradient(out.features)
                terms["backward"] = config.backward * model.mean(
                    feature_error(split(back, start), start, counted))
            return terms, out._replace(outputs={"fused": logits})

        return finish_step(model, state, given, *gradients(model, state.params, loss_fn))

    return Method(init, step, make_predict(model), make_features(model), teachers=teachers, teach=teach)


def make_invariant(config: IFMMINConfig, model: Model) -> Method:
    """The first phase of `if_mmin`, see `make_if_mmin`: on all modalities that an example has."""
    check_options(config, model)

    def init_head(key, widths):
        return {"invariant": init_invariant(key, widths), "classifier": init_layers(
            named_key(key, "classifier"), 2 * sum(widths.values()), HIDDEN, HIDDEN, model.task.size)}

    def forward(params, features, **how):
        common = in_common(params["invariant"], features)
        both = jnp.concatenate([concatenate(features), concatenate(common)], axis=-1)
        return mlp(params["classifier"], both, **how), common

    model = model._replace(head=Head(init_head, with_readouts(
        lambda params, features: forward(params, features)[0])))
    encoders = without_head(model)

    def step(state, batch):
        batch = model.transform(step_key(state), batch)
        drop = make_drop(config, state, batch)

        def loss_fn(params):
            out = encoders.run(params, state.batch_stats, batch, train=True)
            logits, common = forward(params["head"], out.features, drop=drop)
            distances = [central_moment_discrepancy(common[m], common[n], batch["present"][m],
                                                    batch["present"][n], model.sum)
                         for m, n in itertools.combinations(sorted(common), 2)]
            return {"fused": model.mean(model.task.loss(logits, batch["label"])),
                    "discrepancy": sum(distances) / len(distances)}, out._replace(outputs={"fused": logits})

        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn))

    return Method(lambda key, batch: init_state(model, key, batch), step, make_predict(model),
                  make_features(model))


def check_options(config: ImaginationConfig, model: Model) -> None:
    """Raises UserError for an option out of range, or one modality."""
    check_probability("method.hide", config.hide)
    check_probability("method.dropout", config.dropout)
    check_choice("method.targets", config.targets, ("present", "oracle"))
    check_at_least("method.blocks", config.blocks, 1)
    check_several(model, f"{config.name} imagines modalities from others")


def input_sizes(name: str, inputs: Mapping[str, chex.Array]) -> dict[str, int]:
    """The number of values of an example, by modality, of inputs [B, ...]; UserError for token ids."""
    return {m: flatten(x, f"{name} reconstructs the values of its inputs, and those of {m} are token ids; "
                          "choose mmin, or give embeddings of the text").shape[1] for m, x in inputs.items()}


def without_head(model: Model) -> Model:
    """The model whose forward pass ends with the features."""
    return model._replace(head=model.head._replace(apply=lambda params, features: {}))


def hide(key: chex.PRNGKey, ids: chex.Array, present: Mapping[str, chex.Array],
         probability: chex.Numeric) -> dict[str, chex.Array]:
    """Which modalities of the examples are given, bool [B] by modality; the others present are hidden.

    Each is hidden with this probability. An example that would be given nothing keeps one of its
    modalities, drawn with equal probability; one that has none gets none. As in `jaxmm.data.missing.drop`,
    but by step: the draws depend on the key, the modality's name and the example's id.

    Args:
      key: of the step and of what it is drawn for, see `jaxmm.methods.common.own_key`.
      ids: int [B].
      present: bool [B] by modality.
      probability: in [0, 1].
    """
    def draw(m):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(named_key(key, m), ids)
        return jax.vmap(lambda k: jax.random.uniform(k, (2,)))(keys)

    names = sorted(present)
    had = jnp.stack([present[m] for m in names])                                    # [M, B]
    drawn, turn = jnp.moveaxis(jnp.stack([draw(m) for m in names]), -1, 0)
    kept = had & (drawn >= probability)
    spared = jnp.where(had, turn, -1.0).argmax(0) == jnp.arange(len(names))[:, None]
    return dict(zip(names, kept | had & spared & ~kept.any(0)))


def hide_some(config: ImaginationConfig, model: Model, state: TrainState, batch: Batch
              ) -> tuple[Batch, Batch]:
    """The transformed batch of a step as it is given, and as it has what may be imagined.

    They differ in their masks. By "oracle" the first has what is present, the second what is missing too.
    """
    key, given = step_key(state), batch["present"]
    if config.targets == "oracle":
        batch = batch | {"present": {m: jnp.ones_like(p) for m, p in given.items()}}
    else:
        given = hide(named_key(own_key(key), "hide"), batch["id"], given, config.hide)
    whole = model.transform(key, batch)
    return whole | {"present": given}, whole


def hidden_of(given: Batch, whole: Batch) -> dict[str, chex.Array]:
    """bool [B] by modality: what the first batch lacks of the second."""
    return {m: present & ~given["present"][m] for m, present in whole["present"].items()}


def any_of(masks: Mapping[str, chex.Array]) -> chex.Array:
    """bool [B]: whether one of the masks [B] holds."""
    return functools.reduce(jnp.logical_or, masks.values())


def split(z: chex.Array, features: Features) -> dict[str, chex.Array]:
    """The inverse of `heads.concatenate`: z [B, sum of widths] in parts as wide as the features [B, s]."""
    names = sorted(features)
    ends = np.cumsum([features[m].shape[-1] for m in names])
    return dict(zip(names, jnp.split(z, ends[:-1], axis=-1)))


def init_layers(key: chex.PRNGKey, *sizes: int) -> Layers:
    """Linear layers between vectors of these sizes."""
    keys = jax.random.split(key, len(sizes) - 1)
    return [linear_init(k, a, b) for k, a, b in zip(keys, sizes, sizes[1:])]


def mlp(layers: Layers, x: chex.Array, activation: Callable = jax.nn.relu,
        drop: Callable = lambda name, units: units) -> chex.Array:
    """The linear layers on x [B, n], with an activation between them and then `drop`, which maps (name, units
    [B, u]); x itself if there are none."""
    for i, layer in enumerate(layers):
        x = linear(layer, drop(f"layer_{i - 1}", activation(x)) if i else x)
    return x


def make_drop(config, state: TrainState, batch: Batch) -> Callable:
    """The dropout (name, x [B, ...]) -> x of this step; it depends on the ids of the examples, not their places."""
    key = named_key(own_key(step_key(state)), "dropout")
    return lambda name, x: drop_features(config.dropout, key, {name: x}, batch)[name]


def init_cascade(key: chex.PRNGKey, size: int, blocks: int, widths: Sequence[int], transition: bool = True,
                 ) -> dict:
    """A cascade of autoencoders for vectors of this size: layers of these widths to the latent units."""
    sizes = (size, *widths)
    return {"encoders": [init_layers(named_key(key, f"encoder/{b}"), *sizes) for b in range(blocks)],
            "decoders": [init_layers(named_key(key, f"decoder/{b}"), *sizes[::-1]) for b in range(blocks)],
            "transition": init_layers(named_key(key, "transition"), *(size,) * 3) if transition else []}


def cascade(params: Mapping, z: chex.Array, *, skip: bool, shift: chex.Numeric = 0.0
            ) -> tuple[chex.Array, chex.Array]:
    """(T(u_B), [l_1; ...; l_B]): u_0 = z, l_b = E_b(u_{b-1} + shift), u_b = D_b(l_b) [+ u_{b-1} if `skip`].

    E_b and D_b are the parts of autoencoder b, with LeakyReLU and ReLU between their layers, and T is two
    layers with a ReLU between, or nothing.

    Args:
      params: see `init_cascade`.
      z: [B, n].
      skip: whether each autoencoder adds to what those before it have put out.
      shift: [B, n] or 0, added to the input of each.

    Returns:
      [B, n] and [B, blocks * latent units].
    """
    u, latents = z, []
    for encoder, decoder in zip(params["encoders"], params["decoders"]):
        latents.append(mlp(encoder, u + shift, jax.nn.leaky_relu))
        out = mlp(decoder, latents[-1])
        u = u + out if skip else out
    return mlp(params["transition"], u), jnp.concatenate(latents, axis=-1)


def init_invariant(key: chex.PRNGKey, widths: Mapping[str, int]) -> Layers:
    """The network V of `in_common`; UserError for features of several widths."""
    size = common_width(widths, "if_mmin has one network for all modalities, so encoders need")
    return init_layers(named_key(key, "invariant"), size, size, size)


def in_common(layers: Layers, features: Features) -> dict[str, chex.Array]:
    """V(h_m) [B, s] by modality: two layers, each with a LeakyReLU."""
    return {m: jax.nn.leaky_relu(mlp(layers, h, jax.nn.leaky_relu)) for m, h in features.items()}
