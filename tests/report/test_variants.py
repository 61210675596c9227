import pytest

from jaxmm.config import Config, StreamConfig
from jaxmm.errors import UserError
from jaxmm.methods import method_config
from jaxmm.methods.continual import ERConfig
from jaxmm.report import variants

MODALITIES = ["sound", "image"]


def config_for(method):
    return Config(method=method_config(method), stream=StreamConfig(kind="class"))


def expand(*names, capacities=(), config_for=config_for):
    return variants.expand(names, config_for, capacities, MODALITIES)


def test_parse():
    assert variants.parse("er") == ("er", "", {})
    assert variants.parse("er:sound") == ("er", "sound", {})
    assert variants.parse("samm:a b+lambda_=1e-3+dynamic=false") == (
        "samm", "a b", {"lambda_": "1e-3", "dynamic": "false"})


@pytest.mark.parametrize("name", ["", "er:", ":sound", "er+", "er+balanced", "er+balanced=",
                                  "er+=1", "er++", "er+capacity=1+capacity=2"])
def test_names_that_cannot_be_read(name):
    with pytest.raises(UserError, match="--methods: cannot read .*; expected METHOD, "):
        variants.parse(name)


def test_options_are_read_by_their_type():
    config = method_config("samm")
    for option, value in (("consistency", "false"), ("capacity", "70"), ("beta", "2"),
                          ("alignment", "none")):
        variants.set_option(config, option, value, "--methods")
    assert (config.consistency, config.capacity, config.beta, config.alignment) == (
        False, 70, 2.0, "none")
    assert isinstance(config.beta, float)


@pytest.mark.parametrize("option, value, message", [
    ("consistency", "no", "consistency='no' of samm; expected true or false"),
    ("capacity", "1.5", "capacity='1.5' of samm; expected a whole number"),
    ("beta", "much", "beta='much' of samm; expected a number"),
    ("betta", "1", "samm has no option 'betta'; did you mean beta? Expected one of modalities, fusion, hidden, scale, lambda_, capacity"),
    ("name", "er", "samm has no option 'name'"),
])
def test_bad_options(option, value, message):
    with pytest.raises(UserError) as error:
        variants.set_option(method_config("samm"), option, value, "--methods")
    assert message in str(error.value)


def test_capacities_go_to_methods_with_a_memory_that_name_none():
    found = expand("sgd", "er", "samm+dynamic=false", "er+capacity=7", capacities=[100, 200])
    assert [(v.method, v.buffer, v.folder) for v in found] == [
        ("sgd", None, "sgd"), ("er", 100, "er_100"), ("er", 200, "er_200"),
        ("samm+dynamic=false", 100, "samm+dynamic=false_100"),
        ("samm+dynamic=false", 200, "samm+dynamic=false_200"), ("er", 7, "er_7")]
    assert [v.config.method.capacity for v in found[1:]] == [100, 200, 100, 200, 7]
    assert not found[3].config.method.dynamic
    # Without --capacities it is that of the config, in a folder that can be reused.
    er, = expand("er")
    assert er.folder == f"er_{ERConfig().capacity}"
    with pytest.raises(UserError, match="--capacities=100: none of --methods has a memory"):
        expand("sgd", "mla", capacities=[100])


def test_joint_is_sgd_on_all_tasks_at_once():
    joint, alone, sgd = expand("joint", "joint:image", "sgd")
    assert joint.config.method == sgd.config.method
    assert joint.config.stream.joint and not sgd.config.stream.joint
    assert (alone.folder, alone.config.method.modalities) == ("joint_image", "image")
    with pytest.raises(UserError, match="this config has no stream"):
        expand("joint", config_for=lambda m: Config(method=method_config(m)))


def test_gdumb_is_joint_on_as_many_examples_as_a_memory_holds():
    few, many, er, _ = expand("gdumb:image", "er", capacities=[100, 200])
    assert [(v.folder, v.buffer, v.config.stream.budget, v.config.stream.joint) for v in (few, many)] == [
        ("gdumb_image_100", 100, 100, True), ("gdumb_image_200", 200, 200, True)]
    assert few.config.method.name == "sgd" and few.config.method.modalities == "image"
    assert er.config.stream.budget == 0 and not er.config.stream.joint
    assert [v.buffer for v in expand("gdumb", "gdumb+capacity=7")] == [ERConfig().capacity, 7]
    with pytest.raises(UserError, match="budget='x' of stream; expected a whole number"):
        expand("gdumb+capacity=x")


def test_one_modality():
    er, = expand("er:image")
    assert (er.method, er.modality, er.config.method.modalities) == ("er:image", "image", "image")
    assert er.folder == f"er_image_{ERConfig().capacity}"
    option, = expand("er:image+balanced=true")
    assert option.method == "er:image+balanced=true"
    both = expand("unimodal")
    assert {v.method for v in both} == {"unimodal"}
    assert [(v.folder, v.config.method.modality) for v in both] == [
        ("unimodal_sound", "sound"), ("unimodal_image", "image")]
    assert [v.folder for v in expand("unimodal:image", "unimodal")] == [
        "unimodal_image", "unimodal_sound"]     # none twice


def test_some_modalities():
    er, mla = variants.expand(["er:a&b", "mla:b&c"], config_for, [50], "abc")
    assert (er.method, er.modality, er.folder, er.config.method.modalities) == ("er:a&b", "", "er_a&b_50", "a,b")
    assert (mla.folder, mla.config.method.modalities) == ("mla_b&c", "b,c")
    odd, = variants.expand(["er:R&D"], config_for, [], ["R&D", "sound"])        # the name of one
    assert (odd.modality, odd.config.method.modalities) == ("R&D", "R&D")
    for name in ("er:a&a", "er:a&", "er:&b"):
        with pytest.raises(UserError, match=f"--methods={name}: cannot read '{name[3:]}'; expected .* a&b, each once"):
            variants.expand([name], config_for, [], "abc")


def test_variants_do_not_share_options():
    plain, changed = expand("mla", "mla+projection=none+alpha=0.5",
                            config_for=lambda m, config=config_for("mla"): config)
    assert (plain.config.method.projection, changed.config.method.projection) == ("rls", "none")
    assert changed.config.method.alpha == 0.5
