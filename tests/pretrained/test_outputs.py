"""Released encoders against the code of their authors, run on small random networks; see `about` in the files.

They are held in float32. The tolerances are shares of the largest number of an output.
"""
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmm.config import EncoderConfig
from jaxmm.encoders import make_encoder
from jaxmm.encoders.conv3d import Conv3D
from jaxmm.encoders.draws import init_net
from jaxmm.encoders.exchange import lateral_add, seen, with_seen
from jaxmm.encoders.resnet import BasicBlock, Bottleneck, ResNet
from jaxmm.encoders.separable import Separable
from jaxmm.encoders.video import Slow, SlowFast
from jaxmm.pretrained import names

FOLDER = pathlib.Path(__file__).parent
KEY = jax.random.key(0)


CASES = {       # by tower: input, outputs by pool, of the first of which there are gradients, and their name
    "m3ae image": ("image", {"all": "image_all"}, "gradient_image"),
    "m3ae text": ("ids", {"all": "text_all", "mean": "text_mean"}, "gradient_text"),
    "cav_mae audio": ("fbank", {"mean": "mean"}, "gradient"),
    "clip image": ("image", {"first": "image_features"}, "gradient"),
    "clip text": ("ids", {"end": "text_features"}, "gradient"),
    "bert text": ("ids", {"mean": "pooled_mean", "all": "pooled_all"}, "gradient"),
    "vit image": ("image", {"first": "first"}, "gradient"),
    "dinov2 image": ("image", {"first": "first"}, "gradient")}


@functools.cache
def fixture(model):
    with np.load(FOLDER / f"{model}.npz", allow_pickle=False) as file:
        return dict(file)


def under(prefix, found):
    return {key.removeprefix(prefix): x for key, x in found.items() if key.startswith(prefix)}


def inputs(case, name=None):
    """Images have their channels last, but for those of M3AE first in the files."""
    model, _ = case.split()
    x = fixture(model)[f"input/{name or CASES[case][0]}"]
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 and model != "m3ae" else x


def encoder_of(case, x, pool):
    """An encoder for such inputs, and the parameters of the file."""
    network, kind = case.split()
    arrays = under("weights/", fixture(network))
    network = {"dinov2": "vit"}.get(network, network)
    found = names.sizes(arrays, network, kind)
    network = found.pop("name", network)
    encoder = make_encoder(EncoderConfig(network, pool=pool, heads=4, **found), x.ndim - 1,
                           num_tokens=50 if kind == "text" else 0)
    params, _ = jax.eval_shape(encoder.init, KEY, x)
    return encoder, lambda arrays: names.to_tree(arrays, network, kind, {"params": params}, x.shape[1:])["params"]


@functools.cache
def run(case):
    """x -> features by pool and the gradient, compiled once; the parameters; arrays -> parameters."""
    pools = CASES[case][1]
    of = next(iter(pools))
    encoders = {pool: encoder_of(case, inputs(case), pool) for pool in pools}
    load = encoders[of][1]
    params = load(under("weights/", fixture(case.split()[0])))

    def loss(params, x):
        features = {pool: encoder.apply(params, {}, x, train=True)[0] for pool, (encoder, _) in encoders.items()}
        return (features[of] ** 2).sum(), features

    compiled = jax.jit(jax.grad(loss, has_aux=True))
    return lambda x: compiled(params, x), load


def close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def close_where_known(found, expected, tolerance=1e-5):
    """The number of leaves that are compared, which are those that `expected` has numbers of."""
    known = [(f, e) for f, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected)) if e.any()]
    for f, e in known:
        close(f, e, tolerance)
    return len(known)


@pytest.mark.parametrize("case", CASES)
def test_features_and_gradients_are_those_of_the_authors(case):
    model, kind = case.split()
    _, pools, gradient = CASES[case]
    truth = fixture(model)
    apply, load = run(case)
    grads, features = apply(inputs(case))
    for pool, name in pools.items():
        close(features[pool], truth[f"output/{name}"])
    network = {"dinov2": "vit"}.get(model, model)
    weights, expected = under("weights/", truth), under(f"output/{gradient}/", truth)
    used = names.used_names(weights, network, kind) & expected.keys()
    assert used
    expected = load({name: expected[name] if name in used else 0 * array for name, array in weights.items()})
    assert close_where_known(grads, expected) >= len(used)


@pytest.mark.parametrize("case", ["vit image", "dinov2 image"])
def test_learned_positions_fit_images_of_another_size(case):
    x = inputs(case, "other_size")
    encoder, load = encoder_of(case, x, "all")
    found, _ = jax.jit(functools.partial(encoder.apply, train=False))(
        load(under("weights/", fixture(case.split()[0]))), {}, x)
    close(found, fixture(case.split()[0])["output/other_size_tokens"].mean(1))


@pytest.mark.parametrize("case", CASES)
def test_an_example_does_not_depend_on_the_others(case):
    apply, _ = run(case)
    x = inputs(case)
    other = x.copy()
    other[0] = x[1]
    for found, expected in zip(*(apply(x)[1].values() for x in (other, x))):
        np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-5, atol=1e-5)


def test_what_follows_the_end_of_a_text_changes_nothing_where_attention_is_causal():
    apply, _ = run("clip text")
    ids = inputs("clip text")
    end = ids.argmax(axis=1)
    later = np.where(np.arange(ids.shape[1]) > end[:, None], 7, ids)
    assert (later != ids).any()
    np.testing.assert_allclose(apply(later)[1]["end"], apply(ids)[1]["end"], rtol=1e-6)
    earlier = np.where(np.arange(ids.shape[1]) == end[:, None] - 1, 7, ids)
    assert not np.allclose(apply(earlier)[1]["end"], apply(ids)[1]["end"], atol=1e-3)


@pytest.mark.parametrize("model, block, blocks, positions", [     # of the first norm of the last stage
    ("resnet_basic", BasicBlock, (2, 2, 2, 2), 2 * 2 * 3),
    ("resnet_bottleneck", Bottleneck, (1, 2, 1, 1), 2 * 4 * 5)])    # whose stride comes behind it
def test_resnets_are_those_of_torchvision(model, block, blocks, positions):
    truth = fixture(model)
    x = truth["input/image"].transpose(0, 2, 3, 1)
    net = ResNet(block, blocks, 8, stem="standard")
    like = jax.eval_shape(functools.partial(init_net, net, train=False), KEY, x)
    network = "resnet18" if block is BasicBlock else "resnet50"
    weights, stats = under("weights/", truth), under("stats/", truth)
    variables = names.to_tree(weights | stats, network, "image", like)

    @jax.jit
    def evaluated_and_trained(params):
        def loss(params):
            features, updated = net.apply(variables | {"params": params}, x, train=True, mutable="batch_stats")
            return (features ** 2).sum(), (features, updated)

        return net.apply(variables, x, train=False), jax.grad(loss, has_aux=True)(params)

    features, (grads, (trained, updated)) = evaluated_and_trained(variables["params"])
    close(features, truth["output/features"])
    close(trained, truth["output/train_features"], 1e-4)

    new = under("output/train_stats/", truth)
    for name, array in new.items():
        if name.endswith("var"):    # torch's is unbiased
            n = 2 * 32 * 40 if name.startswith("bn1") else positions
            new[name] = array - (array - 0.9 * stats[name]) / n
    expected = names.to_tree(weights | stats | new, network, "image", like)["batch_stats"]
    before, compared = jax.tree.leaves(variables["batch_stats"]), 0
    for old, found, e in zip(before, jax.tree.leaves(updated["batch_stats"]), jax.tree.leaves(expected)):
        if (old != e).any():
            close(found, e)
            compared += 1
    assert compared == len(new)

    gradient = under("output/gradient/", truth)
    expected = names.to_tree({name: gradient.get(name, 0 * array) for name, array in (weights | stats).items()},
                             network, "image", like)["params"]
    assert close_where_known(grads, expected, 3e-4) == len(gradient)


VIDEO = {       # network to read the file by, module, inputs
    "resnet3d18": ("resnet3d18", lambda: ResNet(BasicBlock, (2, 2, 2, 2), 8, stem="video", conv=Conv3D), ["video"]),
    "slow": ("slow50", lambda: Slow((1, 1, 1, 1), 8), ["video"]),
    "slowfast": ("slowfast50", lambda: SlowFast((1, 1, 1, 1), 8, lateral=7), ["slow", "fast"])}


@pytest.mark.parametrize("model", VIDEO)
def test_networks_of_clips_are_those_of_the_authors(model):
    network, make, parts = VIDEO[model]
    truth = fixture(model)
    x = [truth[f"input/{name}"].astype(np.float32).transpose(0, 2, 3, 4, 1) for name in parts]
    x = tuple(x) if len(x) > 1 else x[0]
    net = make()
    like = jax.eval_shape(functools.partial(init_net, net, train=False), KEY, x)
    arrays = {name: array.astype(np.float32) for prefix in ("weights/", "stats/")
              for name, array in under(prefix, truth).items()}
    variables = names.to_tree(arrays, network, "image", like)

    @jax.jit
    def evaluated_and_trained(params):
        def loss(params):
            features, _ = net.apply(variables | {"params": params}, x, train=True, mutable="batch_stats")
            return (features ** 2).sum(), features

        return net.apply(variables, x, train=False), jax.grad(loss, has_aux=True)(params)

    features, (grads, trained) = evaluated_and_trained(variables["params"])
    close(features, truth["output/features"])
    close(trained, truth["output/train_features"], 1e-4)
    gradient = under("output/gradient/", truth)
    expected = names.to_tree({name: gradient.get(name, 0 * array) for name, array in arrays.items()},
                             network, "image", like)["params"]
    assert close_where_known(grads, expected, 3e-4) == len(gradient)


def connections(arrays, like):
    """The parameters and statistics of AVSlowFast's exchange behind res3 and res4, from its released names."""
    found = jax.tree.map(lambda x: x, like)
    for stage in (2, 3):
        (params,), (stats,) = (part[f"stage_{stage}"].values() for part in found)
        for i in range(2):
            name = f"s{stage + 1}_fuse."
            params[f"Conv3D_{i}"]["kernel"] = arrays[f"{name}conv_a2fs_{i}.weight"].transpose(3, 2, 4, 1, 0)
            params[f"BatchNorm_{i}"] = {"scale": arrays[f"{name}bn_a2fs_{i}.weight"],
                                        "bias": arrays[f"{name}bn_a2fs_{i}.bias"]}
            stats[f"BatchNorm_{i}"] = {part: arrays[f"{name}bn_a2fs_{i}.running_{part}"] for part in ("mean", "var")}
    return found


def test_avslowfast_is_that_of_the_authors():
    truth = fixture("avslowfast")
    arrays = {name: array.astype(np.float32) for prefix in ("weights/", "stats/")
              for name, array in under(prefix, truth).items()}
    clip = tuple(truth[f"input/{path}"].astype(np.float32).transpose(0, 2, 3, 4, 1) for path in ("slow", "fast"))
    inputs = {"v": clip, "a": truth["input/audio"].astype(np.float32)[:, 0, 0, :, :, None]}
    nets = {"v": SlowFast((1, 1, 1, 1), 8, lateral=7, after=(2, 3)), "a": Separable((1, 1, 1, 1), 4)}
    known = {"v": ("avslowfast14", "image"), "a": ("separable14", "audio")}
    trees = {}
    for m, net in nets.items():
        like = jax.eval_shape(functools.partial(init_net, net, train=False), KEY, inputs[m])
        trees[m] = names.to_tree(arrays, *known[m], like)
    exchange = lateral_add((2, 3), "v")
    shapes = {2: {"v": (2, 2, 4, 4, 80), "a": (2, 16, 8, 32)}, 3: {"v": (2, 2, 4, 4, 160), "a": (2, 8, 4, 64)}}
    made = {f"stage_{i}": exchange.init(KEY, shape) for i, shape in shapes.items()}
    between = connections(arrays, ({i: p for i, (p, _) in made.items()}, {i: s for i, (_, s) in made.items()}))
    here = {m: np.ones(2, bool) for m in nets}

    def run(params, exchange_params, alone, train):
        """Features [slow, fast, audio], and the exchange's statistics."""
        x, stats = dict(inputs), {}
        for part in (*range(5), -1):
            for m, net in nets.items():
                x[m], _ = net.apply(trees[m] | {"params": params[m]}, x[m], train=train, part=part,
                                    mutable=["batch_stats"])
            if part in exchange.after:
                stage = f"stage_{part}"
                maps, stats[stage] = exchange.apply(
                    exchange_params[stage], between[1][stage], {m: seen(y) for m, y in x.items()}, here,
                    train=train, mean=None, alone={"v": alone})
                x = {m: with_seen(y, maps[m]) for m, y in x.items()}
        return jnp.concatenate([x["v"], x["a"]], -1), stats

    @jax.jit
    def all_of_it(params):
        def loss(params, exchange_params):
            features, _ = run(params, exchange_params, False, True)
            return (features ** 2).sum(), features

        return (run(params, between[0], False, False)[0], run(params, between[0], True, True),
                jax.grad(loss, (0, 1), has_aux=True)(params, between[0]))

    features, (dropped, stats), (grads, trained) = all_of_it({m: tree["params"] for m, tree in trees.items()})
    close(features, truth["output/features"])
    close(trained, truth["output/train_features"], 1e-4)
    close(dropped, truth["output/dropped_features"], 1e-4)
    close(stats["stage_2"]["a"]["BatchNorm_0"]["mean"],
          truth["output/dropped_stats/s3_fuse.bn_a2fs_0.running_mean"])
    g, exchange_g = grads
    expected = under("output/gradient/", truth)
    close(g["a"]["AxisConv_1"]["Conv3D_0"]["kernel"],
          expected.pop("s1.pathway2_stem.conv_f.weight").transpose(4, 2, 3, 1, 0), 3e-4)
    close(g["v"]["slow_1"]["block_0"]["Conv3D_3"]["kernel"],
          expected.pop("s2.pathway0_res0.branch1.weight").transpose(2, 3, 4, 1, 0), 3e-4)
    close(exchange_g["stage_2"]["a"]["Conv3D_1"]["kernel"],
          expected.pop("s3_fuse.conv_a2fs_1.weight").transpose(3, 2, 4, 1, 0), 3e-4)
    assert not expected
