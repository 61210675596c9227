import jax
import numpy as np
import pytest

from jaxmm import heads, shapley
from jaxmm.errors import UserError

FEATURES = {"b": np.array([[1.0, 2.0]], np.float32), "a": np.array([[3.0]], np.float32)}


def test_concat_by_hand():
    params = {"kernel": {"a": np.array([[1.0, 0.0]]), "b": np.array([[0.0, 1.0], [1.0, -1.0]])},
              "bias": np.array([2.0, 4.0])}
    logits = heads.concat(2).apply(params, FEATURES)
    np.testing.assert_allclose(logits["a"], [[3 + 1, 0 + 2]])
    np.testing.assert_allclose(logits["b"], [[2 + 1, 1 - 2 + 2]])
    np.testing.assert_allclose(logits["fused"], [[7, 3]])


def test_separate_by_hand():
    params = {"a": {"kernel": np.array([[1.0, 2.0]]), "bias": np.array([1.0, 0.0])},
              "b": {"kernel": np.array([[1.0, 0.0], [0.0, 1.0]]), "bias": np.array([0.0, 5.0])}}
    logits = heads.separate(2).apply(params, FEATURES)
    np.testing.assert_allclose(logits["a"], [[4, 6]])
    np.testing.assert_allclose(logits["b"], [[1, 7]])
    np.testing.assert_allclose(logits["fused"], [[5, 13]])


def test_shared_by_hand():
    params = {"kernel": np.array([[1.0, 0.0], [2.0, -1.0]]), "bias": np.array([1.0, 0.0])}
    features = FEATURES | {"a": np.array([[3.0, 1.0]], np.float32)}
    logits = heads.shared(2).apply(params, features)
    np.testing.assert_allclose(logits["a"], [[6, -1]])
    np.testing.assert_allclose(logits["b"], [[6, -2]])
    np.testing.assert_allclose(logits["fused"], [[12, -3]])
    with pytest.raises(UserError, match="a shared head needs features of one size; found a 2, b 3"):
        heads.shared(2).init(jax.random.key(0), {"a": 2, "b": 3})


def test_cosine_by_hand():
    """a = 3 is along either weight; b = (1, 2) has the cosines 3 / sqrt(10) and 0 with (1, 1) and (2, -1)."""
    params = {"a": np.array([[2.0, -5.0]]), "b": np.array([[1.0, 2.0], [1.0, -1.0]])}
    logits = heads.cosine(2, 10.0).apply(params, FEATURES)
    np.testing.assert_allclose(logits["a"], [[10, -10]], rtol=1e-6)
    np.testing.assert_allclose(logits["b"], [[9.4868, 0]], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits["fused"], [[19.4868, -10]], rtol=1e-5)
    # Neither the size of features nor that of weights counts: no logit passes 2 * 10. Features of 0 say nothing.
    large = {m: 1e6 * h for m, h in FEATURES.items()}
    other = heads.cosine(2, 10.0).apply(params | {"b": 1e3 * params["b"]}, large)
    np.testing.assert_allclose(other["fused"], logits["fused"], rtol=1e-5)
    zero = np.zeros((1, 1), np.float32)
    nothing, pull = jax.vjp(lambda h: heads.cosine(2).apply(params, {"a": h})["a"], zero)
    assert not nothing.any() and not pull(nothing + 1)[0].any()
    with pytest.raises(UserError, match="method.scale=0"):
        heads.cosine(2, 0)


def test_concat_starts_as_one_layer_over_the_whole_width():
    """The slices are of one Glorot-normal kernel of the summed width, and of each other apart."""
    params = heads.concat(30).init(jax.random.key(0), {"b": 120, "a": 50})
    a, b = (params["kernel"][m] for m in "ab")
    assert (a.shape, b.shape) == ((50, 30), (120, 30)) and not params["bias"].any()
    for kernel in (a, b):
        np.testing.assert_allclose(kernel.std(), (2 / (170 + 30)) ** 0.5, rtol=0.05)
    assert abs(np.corrcoef(a.ravel(), b[:50].ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("name", sorted(heads.FUSIONS))
def test_what_a_head_draws_for_a_modality_follows_from_its_name(name):
    """Without "c" between them, and in another order, a and z get what they had, but for the scale."""
    init = heads.FUSIONS[name](3).init
    few = init(jax.random.key(0), {"a": 4, "z": 4} if name in ("film", "gated") else {"z": 4, "a": 4})
    many = init(jax.random.key(0), {"a": 4, "c": 4, "z": 4})
    # Of film and gated the first modality has no slice of the last layer.
    pick = {"concat": lambda p: [p["kernel"]["a"], p["kernel"]["z"]],
            "sum": lambda p: [p["a"]["kernel"], p["z"]["kernel"]],
            "shared": lambda p: [p["kernel"]],
            "cosine": lambda p: [p["a"], p["z"]],
            "film": lambda p: [p["modulation"]["z"]["kernel"], p["out"]["kernel"][-4:]],
            "gated": lambda p: [p["value"]["z"]["kernel"], p["out"]["kernel"][-4:]],
            "mlp": lambda p: [p["hidden"]["kernel"][:4], p["hidden"]["kernel"][-4:]],
            "attention": lambda p: [p["kernel"][:4], p["kernel"][-4:]]}[name]
    for x, y in zip(pick(few), pick(many), strict=True):
        np.testing.assert_allclose(x / np.linalg.norm(x), y / np.linalg.norm(y), rtol=1e-5)


def linear(kernel, bias):
    return {"kernel": np.array(kernel, np.float32), "bias": np.array(bias, np.float32)}


def test_film_by_hand():
    """First b = (1, 2) modulates a = (3): gamma = 1 + 2 = 3, beta = 2 + 1 = 3, h_f = 12."""
    params = {"modulation": {"a": linear([[1, 0], [1, 1]], [0, 1])},
              "out": linear([[1, -1]], [0.5, 0])}
    logits = heads.film(2).apply(params, FEATURES)
    np.testing.assert_allclose(logits["fused"], [[12.5, -12]])
    np.testing.assert_allclose(logits["a"], [[0 * 3 + 1 + 0.5, -1]])     # b = 0: gamma 0, beta 1
    np.testing.assert_allclose(logits["b"], [[0 + 3 + 0.5, -3]])         # a = 0: beta alone


def test_gated_by_hand():
    """sigmoid(0) = 1/2 gates the value 2 a + 1."""
    params = {"gate": linear([[2, 0], [-1, 0]], [0, 0]), "value": {"a": linear([[2, 4]], [1, 0])},
              "out": linear([[1, 0], [0, 1]], [0, 1])}
    logits = heads.gated(2).apply(params, FEATURES)
    np.testing.assert_allclose(logits["fused"], [[7 / 2, 12 / 2 + 1]])
    np.testing.assert_allclose(logits["b"], [[1 / 2, 1]])


def test_three_modalities_concatenate_what_is_modulated():
    features = FEATURES | {"c": np.array([[1.0, 1.0, 1.0]], np.float32)}
    widths = {m: h.shape[1] for m, h in features.items()}
    for name in ("film", "gated"):
        head = heads.FUSIONS[name](2)
        params = head.init(jax.random.key(0), widths)
        logits = head.apply(params, features)
        silent = params | {"out": params["out"] | {"kernel": np.zeros_like(params["out"]["kernel"])}}
        np.testing.assert_array_equal(head.apply(silent, features)["fused"], 0)
        # Every other modality reaches the output through rows of its own.
        for m in ("a", "c"):
            changed = head.apply(params, features | {m: 2 * features[m]})["fused"]
            assert not np.allclose(changed, logits["fused"])


def test_own_heads_replace_the_readouts():
    head = heads.with_unimodal_heads(heads.concat(2), 2)
    params = head.init(jax.random.key(0), {"b": 2, "a": 1})
    logits = head.apply(params, FEATURES)
    np.testing.assert_allclose(logits["a"], FEATURES["a"] @ params["unimodal"]["a"]["kernel"])
    fused = heads.concat(2).apply(params["fused"], FEATURES)["fused"]
    np.testing.assert_array_equal(logits["fused"], fused)


def test_mlp_by_hand():
    """Features in alphabetical order, a = 3 and b = (1, 2): units relu(3 - 2) and relu(-1)."""
    params = {"hidden": linear([[1, 0], [0, -1], [-1, 0]], [0, 0]),
              "out": linear([[2, 1], [5, 5]], [0, 1])}
    logits = heads.mlp(2, 2).apply(params, FEATURES)
    np.testing.assert_allclose(logits["fused"], [[2, 2]])
    np.testing.assert_allclose(logits["a"], [[6, 4]])
    np.testing.assert_allclose(logits["b"], [[0, 1]])
    with pytest.raises(UserError, match="method.hidden=0"):
        heads.mlp(2, 0)


def test_attention_against_numpy():
    rng = np.random.default_rng(0)
    features = {m: rng.normal(size=(4, 3)).astype(np.float32) for m in "cab"}
    head = heads.attention(2)
    params = head.init(jax.random.key(0), {m: 3 for m in features})
    expected = []
    for i in range(4):
        x = np.stack([features[m][i] for m in "abc"])
        scores = np.exp(x @ x.T / np.sqrt(3))
        attended = scores / scores.sum(1, keepdims=True) @ x
        expected.append(attended.reshape(-1) @ np.asarray(params["kernel"]) + params["bias"])
    np.testing.assert_allclose(head.apply(params, features)["fused"], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="a 2, b 3.*encoders"):
        head.init(jax.random.key(0), {"a": 2, "b": 3})


HEADS = heads.FUSIONS | {
    "with_unimodal_heads": lambda size: heads.with_unimodal_heads(heads.concat(size), size)}


def scattered(init, widths):
    """Parameters all of which, biases too, are drawn at random."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), widths))
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_logits_of_subsets_and_their_shapley_values(name):
    """Those of the head on features of which some are replaced, additive or not; phi adds up to z_f."""
    rng = np.random.default_rng(1)
    head = HEADS[name](2)
    assert bool(head.parts) == (name in ("concat", "sum", "shared", "cosine", "with_unimodal_heads"))
    features, others = ({m: rng.normal(size=(4, 3)).astype(np.float32) for m in "abc"} for _ in range(2))
    params = scattered(head.init, dict.fromkeys("abc", 3))
    zeros = {m: np.zeros((1, 3), np.float32) for m in features}
    means = {m: h.mean(0, keepdims=True) for m, h in features.items()}
    for absent, given in ((zeros, None), (means, means), (others, others)):
        game = {}
        for s in shapley.subsets("abc"):
            rows = {m: h if m in s else np.broadcast_to(absent[m], h.shape) for m, h in features.items()}
            game[s] = heads.subset_logits(head, params, features, s, given)
            np.testing.assert_allclose(game[s], head.apply(params, rows)["fused"], rtol=1e-4, atol=1e-5)
    phi = shapley.values(game | {(): 0.0})
    np.testing.assert_allclose(sum(phi.values()), head.apply(params, features)["fused"], rtol=1e-4, atol=1e-5)


def test_the_parts_of_concat_are_its_shapley_values():
    """With v(empty) = 0: the bias is shared equally, as the readouts do."""
    rng = np.random.default_rng(1)
    head, features = heads.concat(2), {m: rng.normal(size=(4, 3)).astype(np.float32) for m in "abc"}
    params = scattered(head.init, dict.fromkeys("abc", 3))
    game = {s: heads.subset_logits(head, params, features, s) for s in shapley.subsets("abc")}
    phi = shapley.values(game | {(): 0.0})
    for m in "abc":
        np.testing.assert_allclose(phi[m], head.apply(params, features)[m], rtol=1e-4, atol=1e-5)


def test_slices_are_rows_of_the_kernel_of_the_whole_layer():
    key = jax.random.key(0)
    for rows, fan_in, fan_out in ((3, 7, 5), (128, 640, 10)):
        whole = heads.linear_init(key, fan_in, fan_out)["kernel"]
        np.testing.assert_array_equal(heads.first_rows(key, rows, fan_in, fan_out), whole[:rows])
