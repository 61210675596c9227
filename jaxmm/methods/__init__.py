"""Methods by name: `METHODS[name](config, model)` builds one."""
from jaxmm.config import method_config
from jaxmm.errors import UserError
from jaxmm.methods import (continual, fusion, g_blending, mla, ogm_ge, qmf, samm, taught)
from jaxmm.methods.common import Method, TrainState
from jaxmm.model import Model

METHODS = {
    "unimodal": fusion.make_unimodal,
    "concat": fusion.make_fused,
    "sum": fusion.make_fused,
    "late": fusion.make_late,
    "film": fusion.make_fused,
    "gated": fusion.make_fused,
    "mlp_head": fusion.make_fused,
    "attention_head": fusion.make_fused,
    "aux_ce": fusion.make_aux_ce,
    "dropout": fusion.make_dropout,
    "modality_dropout": fusion.make_modality_dropout,
    "g_blending": g_blending.make_g_blending,
    "ogm_ge": ogm_ge.make_ogm_ge,
    "qmf": qmf.make_qmf,
    "mla": mla.make_mla,
    "umt": taught.make_umt,
    "ume": taught.make_ume,
    "self_distill_label": taught.make_self_distill_label,
    "self_distill_feature": taught.make_self_distill_feature,
    "finetune": taught.make_finetune,
    "frozen_linear": taught.make_frozen_linear,
    "frozen_linear_on_distilled": taught.make_frozen_linear_on_distilled,
    "sgd": continual.make_sgd,
    "er": continual.make_er,
    "samm": samm.make_samm,
}


def make_method(config, model: Model) -> Method:
    """The method that `config.name` names, on a model without a head.

    Raises:
      UserError: there is no such method, or an option it does not know.
    """
    if config.name not in METHODS:
        raise UserError(f"method {config.name!r} is unknown; expected one of {', '.join(METHODS)}")
    if type(config) is not type(method_config(config.name)):
        raise UserError(f"method.name={config.name}: these are the options of another method; "
                        f"choose the method by --config=FILE.py:{config.name}")
    return METHODS[config.name](config, model)
