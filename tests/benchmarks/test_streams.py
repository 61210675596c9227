import pytest

from benchmarks import streams
from jaxmm.config import replace
from jaxmm.report import variants


def test_every_method_is_named_once_and_has_its_options():
    """Methods with a memory in three sizes, with the options of their names."""
    found = variants.expand(streams.METHODS, lambda method: streams.config_for("gcil_long", method), [50, 100, 200],
                            ["audio", "visual"])
    sizes = {}
    for variant in found:
        sizes.setdefault(variant.method, []).append(variant.buffer)
    assert list(sizes) == list(streams.METHODS)
    for method, buffers in sizes.items():
        alone = method.partition("+")[0] in ("joint", "sgd", "lwf", "ewc", "analytic")
        assert buffers == ([None] if alone else [50, 100, 200]), method


@pytest.mark.parametrize("stream, kind, long_tailed", [
    ("seq", "class", False), ("dom", "domain", False), ("gcil", "generalized", False), ("gcil_long", "generalized", True)])
def test_streams_differ_in_the_stream_alone(stream, kind, long_tailed):
    config, other = streams.config_for(stream, "er"), streams.config_for("seq", "er")
    assert (config.stream.kind, config.stream.long_tailed) == (kind, long_tailed)
    assert {encoder.name for encoder in config.encoders.values()} == {"mlp"}
    assert replace(config, {"stream": other.stream}) == other
