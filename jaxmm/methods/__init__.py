"""Methods by name, with their options: a method is one file and one line here."""
import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxmm.batch import Batch
from jaxmm.config import MethodConfig
from jaxmm.errors import UserError
from jaxmm.methods import (continual, derpp, fusion, g_blending, lwf, mla, mmtm, ogm_ge, qmf, rebalance,
                           rubi, samm, taught)
from jaxmm.methods.common import Method, TrainState
from jaxmm.model import Model, names_of


class Entry(NamedTuple):
    options: MethodConfig       # by default, with the method's name
    make: Callable[[MethodConfig, Model], Method]   # (options, model without a head)
    pairs: bool = True          # it learns what modalities say together, of one modality's rows nothing


METHODS = {entry.options.name: entry for entry in (
    Entry(fusion.UnimodalConfig(), fusion.make_unimodal, pairs=False),
    Entry(fusion.FusedConfig("concat", "concat"), fusion.make_fused),
    Entry(fusion.FusedConfig("sum", "sum"), fusion.make_fused),
    Entry(MethodConfig("late"), fusion.make_late, pairs=False),
    Entry(fusion.FusedConfig("film", "film"), fusion.make_fused),
    Entry(fusion.FusedConfig("gated", "gated"), fusion.make_fused),
    Entry(fusion.FusedConfig("mlp_head", "mlp"), fusion.make_fused),
    Entry(fusion.FusedConfig("attention_head", "attention"), fusion.make_fused),
    Entry(fusion.FusedConfig("aux_ce"), fusion.make_aux_ce),
    Entry(fusion.DropoutConfig(), fusion.make_dropout),
    Entry(fusion.DropoutConfig("modality_dropout"), fusion.make_modality_dropout),
    Entry(g_blending.GBlendingConfig(), g_blending.make_g_blending),
    Entry(ogm_ge.OGMConfig(), ogm_ge.make_ogm_ge),
    Entry(qmf.QMFConfig(), qmf.make_qmf),
    Entry(mmtm.MMTMConfig(), mmtm.make_mmtm),
    Entry(rebalance.RebalanceConfig(), rebalance.make_mmtm_random),
    Entry(rebalance.GuidedConfig(), rebalance.make_mmtm_guided),
    Entry(rubi.RUBiConfig(), rubi.make_rubi),
    Entry(mla.MLAConfig(), mla.make_mla, pairs=False),
    Entry(taught.UMTConfig(), taught.make_umt),
    Entry(taught.UMEConfig(), taught.make_ume, pairs=False),
    Entry(taught.SelfDistillConfig(), taught.make_self_distill_label),
    Entry(taught.SelfDistillConfig("self_distill_feature", weight=50.0),
          taught.make_self_distill_feature),
    Entry(taught.FinetuneConfig(), taught.make_finetune),
    Entry(taught.TaughtConfig("frozen_linear"), taught.make_frozen_linear),
    Entry(taught.TaughtConfig("frozen_linear_on_distilled"),
          taught.make_frozen_linear_on_distilled),
    Entry(continual.SGDConfig(), continual.make_sgd),
    Entry(continual.ERConfig(), continual.make_er),
    Entry(samm.SAMMConfig(), samm.make_samm),
    Entry(derpp.DERConfig(), derpp.make_derpp),
    Entry(lwf.LwFConfig(), lwf.make_lwf),
)}


def method_config(name: str) -> MethodConfig:
    """The default options of the method called `name`."""
    return copy.copy(METHODS[name].options) if name in METHODS else MethodConfig(name)


def used_modalities(options: MethodConfig, modalities: Sequence[str]) -> tuple[str, ...]:
    """Those of the data's modalities that a method with these options learns from."""
    named = names_of(getattr(options, "modality", "") or getattr(options, "modalities", ""))
    return tuple(m for m in modalities if m in named) or tuple(modalities)


def check_pairs(options: MethodConfig, where: str, train: Batch) -> None:
    """Raises UserError where a method needs rows with two modalities of its own, and there is none."""
    used = used_modalities(options, list(train["present"]))
    if (options.name in METHODS and METHODS[options.name].pairs and len(used) > 1
            and not (np.sum([train["present"][m] for m in used], axis=0) > 1).any()):
        able = ", ".join(name for name, entry in METHODS.items() if not entry.pairs)
        raise UserError(f"{options.name} learns from rows that have two modalities or more, and no "
                        f"training row of {where} has two of {', '.join(used)}; choose one of {able}")


def make_method(options: MethodConfig, model: Model) -> Method:
    """The method that `options.name` names, on a model without a head.

    Raises:
      UserError: there is no such method, or these are the options of another one.
    """
    if options.name not in METHODS:
        raise UserError(f"method {options.name!r} is unknown; expected one of {', '.join(METHODS)}")
    entry = METHODS[options.name]
    if type(options) is not type(entry.options):
        raise UserError(f"method.name={options.name}: these are the options of another method; "
                        f"choose the method by --config=FILE.py:{options.name}")
    return entry.make(options, model)
