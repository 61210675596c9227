"""Encoders: one modality's examples -> features, as pure functions."""
import functools
from collections.abc import Callable
from typing import NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from jaxmm.config import EncoderConfig
from jaxmm.encoders.conv import LOWERINGS
from jaxmm.encoders.conv3d import Conv3D
from jaxmm.encoders.draws import init_net
from jaxmm.encoders.networks import CNN, MLP, Flatten
from jaxmm.encoders.resnet import STEMS, BasicBlock, Bottleneck, NonBottleneck1D, ResNet
from jaxmm.encoders.separable import Separable
from jaxmm.encoders.transformer import POOLS, STYLES, Bag, Transformer, num_heads
from jaxmm.encoders.video import BETA, Slow, SlowFast
from jaxmm.errors import UserError, check_above, check_at_least, check_choice, suggest

DTYPES = ("float32", "bfloat16")

compiled_init = jax.jit(init_net, static_argnames=("net", "train"))     # once for all networks that are alike


class Encoder(NamedTuple):
    """A network as pure functions over its parameters and batch statistics.

    `init(key, x) -> params, batch_stats`, the latter {} for a network without batch norm.

    `apply(params, batch_stats, x, *, train, mask=None) -> features [B, s] float32, batch_stats`:
    in training, batch norm uses the statistics of the rows in `mask` bool [B] (all by default)
    and moves the running ones; otherwise it uses the running ones and returns them as they are.

    `stages` and `pool` compute the same in parts: each stage is `(params, batch_stats, x, *, train,
    mask=None) -> x, batch_stats` with x [B, ..., C], and `pool` turns the last x into features.
    Networks that are not chains have no stages, and `pool` is `apply`.
    """
    init: Callable
    apply: Callable
    stages: tuple[Callable, ...]
    pool: Callable


class Network(NamedTuple):
    """A kind of network: how it is made, and which examples it takes."""
    make: Callable[[EncoderConfig, int, str | None], nn.Module]    # (options, num_tokens, axis_name)
    ranks: tuple[int, ...] = ()     # of ONE example that is not a text
    texts: bool = False             # whether it takes texts
    convolves: bool = False
    layered: bool = False           # whether its layers can be rematerialised
    attends: bool = False           # whether it is a transformer
    clips: bool = False             # whether it sees motion: frames of an example go through it together


def _mlp(c: EncoderConfig, num_tokens: int, axis_name: str | None) -> nn.Module:
    width = c.width or 128
    return MLP((width,) * (c.depth - 1) + (c.features or width,))


def _resnet(block: type[nn.Module], blocks: tuple[int, ...], stem: str = "") -> Network:
    return Network(lambda c, num_tokens, axis_name: ResNet(
        block, blocks, c.width or 64, c.features, stem or c.stem, lowering=c.conv, axis_name=axis_name,
        remat=c.remat), (2, 3, 4), convolves=True, layered=True)


def _video(make: Callable[[EncoderConfig, dict], nn.Module]) -> Network:
    return Network(lambda c, num_tokens, axis_name: make(c, {
        "width": c.width or 64, "features": c.features, "lowering": c.conv, "axis_name": axis_name,
        "remat": c.remat}), (4,), convolves=True, layered=True, clips=True)


def _separable(blocks: tuple[int, ...]) -> Network:
    return Network(lambda c, num_tokens, axis_name: Separable(
        blocks, c.width or 32, c.features, c.conv, axis_name, c.remat), (2, 3), convolves=True, layered=True)


def _slowfast(blocks: tuple[int, ...], lateral: int, after: tuple[int, ...] = (0, 1, 2, 3)) -> Network:
    def make(c: EncoderConfig, options: dict) -> nn.Module:
        if options["width"] % BETA:
            raise UserError(f"encoder width={c.width}; {c.name!r} needs a multiple of {BETA}")
        return SlowFast(blocks, lateral=lateral, after=after, **options)

    return _video(make)


def _transformer(name: str, ranks: tuple[int, ...] = (), texts: bool = False) -> Network:
    def make(c: EncoderConfig, num_tokens: int, axis_name: str | None) -> nn.Module:
        style = STYLES[name, bool(num_tokens)]
        width = c.width or style.width
        heads = c.heads or num_heads(width)
        pool = c.pool or style.pool
        check_choice("encoder pool", pool, POOLS if num_tokens else POOLS[:-1])
        if width % heads:
            raise UserError(f"encoder heads={heads} does not divide its width of {width}")
        if style.sincos and width % (parts := 2 if num_tokens else 4):
            raise UserError(f"encoder width={width}; {name!r} needs a multiple of {parts}")
        return Transformer(style._replace(pool=pool), width, c.depth, heads, c.features, c.patch,
                           num_tokens, c.dtype, c.remat)

    return Network(make, ranks, texts, layered=True, attends=True)


NETWORKS = {
    "mlp": Network(_mlp, (1, 2, 3, 4)),
    "cnn": Network(lambda c, num_tokens, axis_name: CNN(
        c.width or 16, c.depth, c.features or 64, c.conv, axis_name, c.remat),
        (2, 3, 4), convolves=True, layered=True),
    "resnet18": _resnet(BasicBlock, (2, 2, 2, 2)),
    "resnet34": _resnet(BasicBlock, (3, 4, 6, 3)),
    "resnet50": _resnet(Bottleneck, (3, 4, 6, 3)),
    "esanet18": _resnet(NonBottleneck1D, (2, 2, 2, 2), "standard"),
    "esanet34": _resnet(NonBottleneck1D, (3, 4, 6, 3), "standard"),
    "resnet3d18": _video(lambda c, options: ResNet(
        BasicBlock, (2, 2, 2, 2), stem="video", conv=Conv3D, **options)),
    "slow14": _video(lambda c, options: Slow((1, 1, 1, 1), **options)),
    "slow50": _video(lambda c, options: Slow((3, 4, 6, 3), **options)),
    "slow101": _video(lambda c, options: Slow((3, 4, 23, 3), **options)),
    "slowfast14": _slowfast((1, 1, 1, 1), lateral=7),
    "slowfast50": _slowfast((3, 4, 6, 3), lateral=7),
    "slowfast101": _slowfast((3, 4, 23, 3), lateral=5),
    "avslowfast14": _slowfast((1, 1, 1, 1), lateral=7, after=(2, 3)),
    "avslowfast50": _slowfast((3, 4, 6, 3), lateral=7, after=(2, 3)),
    "avslowfast101": _slowfast((3, 4, 23, 3), lateral=7, after=(2, 3)),
    "separable14": _separable((1, 1, 1, 1)),
    "separable50": _separable((3, 4, 6, 3)),
    "separable101": _separable((3, 4, 23, 3)),
    "bag": Network(lambda c, num_tokens, axis_name: Bag(
        num_tokens, c.width or 128, c.features or 128, c.dtype), texts=True),
    "transformer": _transformer("transformer", (2, 3, 4), texts=True),
    "m3ae": _transformer("m3ae", (2, 3, 4), texts=True),
    "cav_mae": _transformer("cav_mae", (2, 3)),
    "clip": _transformer("clip", (2, 3, 4), texts=True),
    "bert": _transformer("bert", texts=True),
    "vit": _transformer("vit", (2, 3, 4)),
    "mae": _transformer("mae", (2, 3, 4)),
    "dinov2": _transformer("dinov2", (2, 3, 4)),
    "identity": Network(lambda c, num_tokens, axis_name: Flatten(), (1, 2, 3, 4)),
}


def network_name(config: EncoderConfig, rank: int, num_tokens: int = 0) -> str:
    """The key of `NETWORKS` that a config names; see `make_encoder`."""
    auto = "bag" if num_tokens else "mlp" if rank == 1 else "cnn"
    return auto if config.name == "auto" else config.name


def make_encoder(config: EncoderConfig, rank: int, *, num_tokens: int = 0,
                 axis_name: str | None = None) -> Encoder:
    """The encoder of one modality.

    Args:
      config: which network; see `EncoderConfig`. "auto" is "bag" for texts, "mlp" for vectors and
        "cnn" otherwise.
      rank: of ONE example: 1 vector, 2 [H, W], 3 [H, W, C], 4 [T, H, W, C]. Unless the network is one
        of clips, the T frames go through it as images of their own, and their features are averaged.
      num_tokens: for texts, token ids int32 [L] lie below it; 0 for other modalities.
      axis_name: device axis over which the statistics of batch norm are taken.

    Raises:
      UserError: an unknown name or option, or a network that does not take this rank.
    """
    name = network_name(config, rank, num_tokens)
    _check("text encoder" if num_tokens else "encoder", name, ("auto", *(
        k for k, network in NETWORKS.items() if (network.texts if num_tokens else network.ranks))))
    network = NETWORKS[name]
    _check("conv", config.conv, LOWERINGS)
    _check("stem", config.stem, STEMS)
    _check("dtype", config.dtype, DTYPES)
    if not num_tokens and rank not in network.ranks:
        raise UserError(f"encoder {name!r}: found examples of rank {rank}, expected one of "
                        f"{network.ranks}; choose another encoder or reshape the examples")
    for option, least in (("depth", 1), ("width", 0), ("features", 0), ("patch", 0), ("heads", 0)):
        check_at_least(f"encoder {option}", getattr(config, option), least)
    for option in ("heads", "pool"):
        if getattr(config, option) and not network.attends:
            raise UserError(f"encoder {option}: {name!r} has none; it is for "
                            f"{', '.join(k for k, n in NETWORKS.items() if n.attends)}")
    check_above("encoder rate", config.rate, 0)
    if config.remat and not network.layered:
        raise UserError(f"encoder remat: {name!r} keeps little to compute again; it is for "
                        f"{', '.join(k for k, n in NETWORKS.items() if n.layered)}")
    net = network.make(config, num_tokens, axis_name)
    dtype = "int32" if num_tokens else config.dtype
    folds = rank == 4 and not network.clips     # frames into the batch

    def enter(x, mask):
        """The examples as the network takes them, [B, ...] or frames [B, T, H, W, C]."""
        chex.assert_rank(x, rank + 1)
        if mask is not None:
            chex.assert_shape(mask, (x.shape[0],))
            chex.assert_type(mask, bool)
        return (x[..., None] if rank == 2 else x).astype(dtype)

    def run(params, batch_stats, x, *, train, mask=None, **part):
        """A part of the network, or all of it."""
        if folds:
            lead = x.shape[:2]
            mask = mask if mask is None else jnp.repeat(mask, x.shape[1])
            x = x.reshape(-1, *x.shape[2:])
        y, updated = net.apply({"params": params, "batch_stats": batch_stats}, x, train=train,
                               mask=mask, mutable=["batch_stats"], **part)
        return y.reshape(*lead, *y.shape[1:]) if folds else y, updated.get("batch_stats", {})

    def init(key, x):
        images = enter(x, None)
        images = images.reshape(-1, *images.shape[2:]) if folds else images
        variables = compiled_init(net, key, images, train=False)
        return variables.get("params", {}), variables.get("batch_stats", {})

    def finish(y):
        features = y.astype(jnp.float32)
        return features.mean(axis=1) if folds else features

    def apply(params, batch_stats, x, *, train, mask=None):
        y, batch_stats = run(params, batch_stats, enter(x, mask), train=train, mask=mask)
        return finish(y), batch_stats

    def stage(i, params, batch_stats, x, *, train, mask=None):
        x = enter(x, mask) if i == 0 else x
        return run(params, batch_stats, x, train=train, mask=mask, part=i)

    def pool(params, batch_stats, x, *, train, mask=None):
        y, batch_stats = run(params, batch_stats, x, train=train, mask=mask, part=-1)
        return finish(y), batch_stats

    count = getattr(net, "num_stages", 0)
    encoder = Encoder(init, apply, tuple(functools.partial(stage, i) for i in range(count)),
                      pool if count else apply)
    return frozen(encoder) if config.frozen else encoder


def frozen(encoder: Encoder) -> Encoder:
    """The encoder as a constant: no gradient in its parameters, and batch norm always uses the running
    statistics, and leaves them as they are. Gradients still reach its input."""
    def still(fn):
        def call(params, batch_stats, x, *, train, mask=None):
            del train
            return fn(jax.lax.stop_gradient(params), batch_stats, x, train=False, mask=mask)
        return call

    return encoder._replace(apply=still(encoder.apply), pool=still(encoder.pool),
                            stages=tuple(map(still, encoder.stages)))


def _check(option: str, found: str, choices) -> None:
    if found not in choices:
        raise UserError(f"{option}: found {found!r}{suggest(found, choices)}")
