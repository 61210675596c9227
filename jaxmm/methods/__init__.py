"""Methods by name: `METHODS[name](config, components, axis_name=None)` builds one."""
from jaxmm.config import method_config
from jaxmm.errors import UserError
from jaxmm.methods import continual, fusion, mla, samm
from jaxmm.methods.common import Components, Method, Optimizer, TrainState

METHODS = {
    "unimodal": fusion.make_unimodal,
    "concat": fusion.make_concat,
    "sum": fusion.make_sum,
    "late": fusion.make_late,
    "mla": mla.make_mla,
    "sgd": continual.make_sgd,
    "er": continual.make_er,
    "samm": samm.make_samm,
}


def make_method(config, components: Components, *, axis_name: str | None = None) -> Method:
    """The method that `config.name` names.

    Raises:
      UserError: there is no such method, or an option it does not know.
    """
    if config.name not in METHODS:
        raise UserError(f"method {config.name!r} is unknown; expected one of {', '.join(METHODS)}")
    if type(config) is not type(method_config(config.name)):
        raise UserError(f"method.name={config.name}: these are the options of another method; "
                        f"choose the method by --config=FILE.py:{config.name}")
    return METHODS[config.name](config, components, axis_name=axis_name)
