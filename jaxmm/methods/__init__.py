"""Methods by name, with their options: a method is one file and one line here."""
import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxmm.batch import Batch, is_unpaired
from jaxmm.config import MethodConfig
from jaxmm.data.dataset import say
from jaxmm.errors import UserError, suggest
from jaxmm.methods import (agem, agm, amco, analytic, av_cil, avslowfast, cls_er, cml, continual,
                           correlation, cpm_net, derpp, er_ace, er_aml, ewc, fusion, g2d, g_blending,
                           imagination, lfm, lwf, mbsd, mla, mla_tcmax, mmpareto, mmtm, ogm_ge, opm, pmr,
                           qmf, rebalance, reconboost, relearn, rubi, samm, segment, smv, tate, taught, tcmax)
from jaxmm.methods.common import Method
from jaxmm.model import Model, names_of, select_modalities
from jaxmm.task import DENSE


class Entry(NamedTuple):
    options: MethodConfig       # the default options, which hold the method's name
    make: Callable[[Any, Model], Method]    # (options of that type, model without a head)
    about: str                  # what it does, in a line
    source: str                 # paper
    pairs: bool = True          # needs rows with two modalities; rows with one alone teach it nothing
    check: Callable[[Any, str, Batch, int], None] | None = None
    # (options, name of the data, training split, batch size): raises or warns of what does not suit it
    encodes: bool = True        # has encoders; if not it works on the inputs, whatever config.encoders says
    cure: str = ""              # options of its own that keep a loss finite which is not
    complete: bool = False      # its teachers may have learned from modalities that its own rows lack
    of_length: bool = False     # what it does in an epoch depends on how many there are
    dense: bool = False         # predicts a class for every pixel: for segmentations, and for them alone
    starts: str = ""            # option that says after how many epochs it does what sets it apart


MLA, UMT = "MLA, arXiv 2311.10707", "UMT, arXiv 2305.01233"
SAMM = "SAMM, arXiv 2405.02766"

METHODS = {entry.options.name: entry for entry in (
    Entry(fusion.UnimodalConfig(), fusion.make_unimodal,
          "one modality alone", UMT, pairs=False),
    Entry(fusion.FusedConfig("concat", fusion="concat"), fusion.make_fused,
          "joint training of a linear head on concatenated features", MLA),
    Entry(fusion.FusedConfig("sum", fusion="sum"), fusion.make_fused,
          "joint training; linear heads of each modality, summed", MLA),
    Entry(MethodConfig("late"), fusion.make_late,
          "a model of each modality with its own loss; predictions averaged", MLA, pairs=False),
    Entry(fusion.FusedConfig("film", fusion="film"), fusion.make_fused,
          "one modality's features scaled and shifted by another's", "FiLM, arXiv 1709.07871"),
    Entry(fusion.FusedConfig("gated", fusion="gated"), fusion.make_fused,
          "one modality's features gated by another's", "Kiela et al., arXiv 1802.02892"),
    Entry(fusion.FusedConfig("mlp_head", fusion="mlp"), fusion.make_fused,
          "joint training of a head with a hidden layer", UMT),
    Entry(fusion.FusedConfig("attention_head", fusion="attention"), fusion.make_fused,
          "joint training of a head that attends over modalities", UMT),
    Entry(fusion.AuxCEConfig(), fusion.make_aux_ce,
          "concat with an additional loss for each modality", UMT),
    Entry(avslowfast.LateralDropoutConfig(), avslowfast.make_dropout,
          "concat that drops features of modalities; as AVSlowFast, also adds between encoders", UMT),
    Entry(fusion.DropoutConfig("modality_dropout"), fusion.make_modality_dropout,
          "concat that drops whole modalities in training", UMT),
    Entry(g_blending.GBlendingConfig(), g_blending.make_g_blending,
          "losses weighted by how much each generalises", "Gradient Blending, arXiv 1905.12681"),
    Entry(ogm_ge.OGMConfig(), ogm_ge.make_ogm_ge,
          "slows the gradient of the modality that is ahead, with noise", "OGM-GE, arXiv 2203.15332"),
    Entry(opm.OPMConfig(), opm.make_opm,
          "drops the features of the modality that is ahead", "OPM, arXiv 2410.11582",
          starts="warmup_epochs"),
    Entry(agm.AGMConfig(), agm.make_agm,
          "scales the gradient of each modality's Shapley share of the logits", "AGM, arXiv 2308.07686"),
    Entry(smv.SMVConfig(), smv.make_smv,
          "repeats examples for the modality that contributes little to them", "SMV, arXiv 2309.06255",
          starts="warmup_epochs"),
    Entry(pmr.PMRConfig(), pmr.make_pmr,
          "draws features of slow modalities to prototypes of their classes", "PMR, Fan et al., CVPR 2023"),
    Entry(relearn.RelearnConfig(), relearn.make_relearn,
          "draws encoders back to their start by how much they overfit", "D&R, Wei et al., ECCV 2024",
          of_length=True, starts="every"),      # it does not after the last epoch
    Entry(qmf.QMFConfig(), qmf.make_qmf,
          "late fusion weighted by energy, confidence tied to history", "QMF, arXiv 2306.02050"),
    Entry(lfm.LFMConfig(), lfm.make_lfm,
          "aligns the modalities first and fits the labels later", "LFM, NeurIPS 2024", of_length=True),
    Entry(mmpareto.MMParetoConfig(), mmpareto.make_mmpareto,
          "aux_ce whose encoders follow a direction that harms neither loss", "MMPareto, arXiv 2405.17730"),
    Entry(tcmax.TCMaxConfig(), tcmax.make_tcmax,
          "maximises a bound on what modalities and label tell about each other", "TCMax, arXiv 2602.13015"),
    Entry(cml.CMLConfig(), cml.make_cml,
          "concat whose confidence must not grow when modalities are taken away", "CML, arXiv 2306.01265"),
    Entry(amco.AMCoConfig(), amco.make_amco,
          "masks features of the modality that the prediction depends on", "AMCo, Zhou et al., ICASSP 2023"),
    Entry(mbsd.MBSDConfig(), mbsd.make_mbsd,
          "aux_ce whose modalities imitate the one that does better on an example",
          "BalanceBenchmark, arXiv 2502.10816"),
    Entry(mmtm.MMTMConfig(), mmtm.make_mmtm,
          "encoders exchange information between their stages", "MMTM, arXiv 1911.08670"),
    Entry(rebalance.RebalanceConfig(), rebalance.make_mmtm_random,
          "mmtm with re-balancing steps of a modality drawn at random", "arXiv 2202.05306", starts="warmup_epochs"),
    Entry(rebalance.GuidedConfig(), rebalance.make_mmtm_guided,
          "mmtm with re-balancing steps of the modality that learns slowly", "arXiv 2202.05306", starts="warmup_epochs"),
    Entry(rubi.RUBiConfig(), rubi.make_rubi,
          "mmtm whose loss is masked by the prediction of one modality", "RUBi, arXiv 1906.10169"),
    Entry(segment.SegmentConfig(), segment.make_segment,
          "a class for every pixel: encoders that exchange between their stages, and a decoder",
          "ESANet, arXiv 2011.06961", dense=True),
    Entry(segment.UMTSegmentConfig(), segment.make_umt_segment,
          "segment that imitates maps of teachers of one modality", UMT, cure=taught.CURE, dense=True),
    Entry(mla.MLAConfig(), mla.make_mla,
          "one modality at a time through a shared head with projected gradient", MLA, pairs=False),
    Entry(mla_tcmax.MLATCMaxConfig(), mla_tcmax.make_mla_tcmax,
          "mla whose last epochs train all modalities at once, as tcmax",
          "MLA, arXiv 2311.10707; TCMax, arXiv 2602.13015", of_length=True),
    Entry(taught.UMTConfig(), taught.make_umt,
          "joint training that imitates features of unimodal teachers", UMT, cure=taught.CURE),
    Entry(g2d.G2DConfig(), g2d.make_g2d,
          "imitates unimodal teachers, the weaker modalities first", "G2D, arXiv 2506.21514", of_length=True),
    Entry(taught.UMEConfig(), taught.make_ume,
          "average of the predictions of unimodal models", UMT, pairs=False),
    Entry(taught.SelfDistillConfig(), taught.make_self_distill_label,
          "joint training that imitates labels of a trained twin", UMT),
    Entry(taught.SelfDistillConfig("self_distill_feature", weight=50.0), taught.make_self_distill_feature,
          "joint training that imitates features of a trained twin", UMT, cure=taught.CURE),
    Entry(taught.FinetuneConfig(), taught.make_finetune,
          "joint training that starts from unimodal encoders", UMT),
    Entry(reconboost.ReconBoostConfig(), reconboost.make_reconboost,
          "trains one modality a stage on what the others get wrong", "ReconBoost, arXiv 2405.09321"),
    Entry(taught.TaughtConfig("frozen_linear"), taught.make_frozen_linear,
          "a head on frozen unimodal encoders", UMT),
    Entry(taught.ImitatingConfig("frozen_linear_on_distilled"), taught.make_frozen_linear_on_distilled,
          "a head on frozen encoders that UMT distilled", UMT),
    Entry(cpm_net.CPMNetConfig(), cpm_net.make_cpm_net,
          "a code of each example, decoded into every modality", "CPM-Net, arXiv 2011.06170", pairs=False,
          encodes=False),
    Entry(tate.TATEConfig(), tate.make_tate,
          "a Transformer on modalities with tags of what is missing", "TATE, arXiv 2204.13707", complete=True),
    Entry(correlation.CCAConfig(), correlation.make_cca,
          "a linear head on canonical correlations of the inputs", "Hotelling, Biometrika 1936",
          check=correlation.check_rows, encodes=False),
    Entry(correlation.DCCAConfig(), correlation.make_dcca,
          "a linear head on frozen encoders that were trained to correlate", "DCCA, Andrew et al., ICML 2013",
          check=correlation.check_rows),
    Entry(correlation.DCCAEConfig(), correlation.make_dcca,
          "dcca whose encoders were also trained to reconstruct their inputs", "DCCAE, arXiv 1602.01024",
          check=correlation.check_rows),
    Entry(continual.SGDConfig(), continual.make_sgd,
          "fine-tuning on each task in turn, without a memory", SAMM),
    Entry(continual.ERConfig(), continual.make_er,
          "replay of a memory of examples", SAMM),
    Entry(samm.SAMMConfig(), samm.make_samm,
          "replay, alignment between modalities, consistency, dynamic fusion", SAMM),
    Entry(derpp.DERConfig(), derpp.make_derpp,
          "replay of examples and of the outputs stored with them", "DER++, arXiv 2004.07211"),
    Entry(er_ace.ERACEConfig(), er_ace.make_er_ace,
          "replay; new examples compete with the classes of their batch alone", "ER-ACE, arXiv 2104.05025"),
    Entry(er_aml.ERAMLConfig(), er_aml.make_er_aml,
          "replay; new examples are compared with others, and the head learns from the memory",
          "ER-AML, arXiv 2104.05025"),
    Entry(cls_er.CLSERConfig(), cls_er.make_cls_er,
          "replay; imitates a fast and a slow average of the network, and predicts by the slow one",
          "CLS-ER, arXiv 2201.12604"),
    Entry(agem.AGEMConfig(), agem.make_agem,
          "steps that do not raise the loss of a replayed batch", "A-GEM, arXiv 1812.00420"),
    Entry(av_cil.AVCILConfig(), av_cil.make_av_cil,
          "replay; old and new classes apart, old groups distilled, modalities contrasted",
          "AV-CIL, arXiv 2308.11073"),
    Entry(lwf.LwFConfig(), lwf.make_lwf,
          "imitates the network as it was before the task", "LwF, arXiv 1606.09282"),
    Entry(ewc.EWCConfig(), ewc.make_ewc,
          "holds the weights that earlier tasks need", "online EWC, arXiv 1805.06370"),
    Entry(analytic.AnalyticConfig(), analytic.make_analytic,
          "ridge regression on encoders that are frozen after the first task", "ACIL, arXiv 2205.14922"),
    Entry(imagination.AutoencoderConfig("ae"), imagination.make_autoencoder,
          "reconstructs modalities that it hides from itself", "Bengio et al., NeurIPS 2006"),
    Entry(imagination.AutoencoderConfig("cra", blocks=3, skip=True, transition=True),
          imagination.make_autoencoder,
          "ae as a cascade, each of which predicts what is left over", "CRA, Tran et al., CVPR 2017"),
    Entry(imagination.MMINConfig(), imagination.make_mmin,
          "imagines features of modalities that it hides from itself", "MMIN, Zhao et al., ACL 2021",
          complete=True),
    Entry(imagination.IFMMINConfig(), imagination.make_if_mmin,
          "mmin with features that modalities have in common", "IF-MMIN, arXiv 2210.15359", complete=True),
)}


def method_config(name: str) -> MethodConfig:
    """The default options of the method called `name`."""
    return copy.copy(METHODS[name].options) if name in METHODS else MethodConfig(name)


def used_modalities(options: MethodConfig, modalities: Sequence[str]) -> tuple[str, ...]:
    """The modalities of the data that a method with these options learns from."""
    named = names_of(getattr(options, "modality", "") or getattr(options, "modalities", ""))
    return tuple(m for m in modalities if m in named) or tuple(modalities)


def check_pairs(options: MethodConfig, where: str, train: Batch) -> None:
    """Raises UserError if a method needs rows with two of its modalities, and no row has two."""
    used = used_modalities(options, list(train["present"]))
    if (options.name in METHODS and METHODS[options.name].pairs
            and is_unpaired({m: train["present"][m] for m in used})):
        able = ", ".join(name for name, entry in METHODS.items() if not entry.pairs)
        raise UserError(f"{options.name} learns from rows that have two modalities or more, and no "
                        f"training row of {where} has two of {', '.join(used)}; choose one of {able}")


def check_rows(options: MethodConfig, where: str, train: Batch, batch_size: int) -> None:
    """Raises UserError, or warns, if the training rows of `where` do not suit a method with these options."""
    check = METHODS[options.name].check if options.name in METHODS else None
    if check:
        check(options, where, train, batch_size)


def say_idle(options: MethodConfig, epochs: int) -> None:
    """Warns of what has no effect: options that are not as by default, as another one keeps them from it, and a
    method that would begin after the last of these epochs."""
    default = METHODS[options.name].options if options.name in METHODS else None
    if type(options) is not type(default):
        return      # `make_method` refuses them
    starts = METHODS[options.name].starts
    if starts and getattr(options, starts) >= epochs:
        say(f"{options.name} begins after {getattr(options, starts)} epochs, and this run has {epochs}: it is "
            f"trained without what sets it apart; set method.{starts} to less, or train.epochs to more")
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        for other, needed in field.metadata.get("needs", {}).items():
            needed = needed if isinstance(needed, tuple) else (needed,)
            if (found := getattr(options, other)) not in needed and value != getattr(default, field.name):
                say(f"method.{field.name}={value} has no effect with method.{other}={found}; it is for "
                    f"method.{other}={' or '.join(map(str, needed))}")


def make_method(options: MethodConfig, model: Model) -> Method:
    """The method called `options.name`, built from a model without a head and, of that, the modalities named.

    Raises:
      UserError: there is no such method, the options belong to another one, it is of other tasks, or they name
        a part of the modalities and the method starts from a model of all of them.
    """
    if options.name not in METHODS:
        raise UserError(f"method {options.name!r} is unknown{suggest(options.name, METHODS)}")
    entry = METHODS[options.name]
    if type(options) is not type(entry.options):
        raise UserError(f"method.name={options.name}: these are the options of another method; "
                        f"choose the method by --config=FILE.py:{options.name}")
    if entry.dense != (model.task.name == DENSE):
        fit = ", ".join(name for name, other in METHODS.items() if other.dense != entry.dense)
        raise UserError(f"{options.name} predicts {'a class for every pixel' if entry.dense else 'for whole examples'}, "
                        f"and the task is {model.task.name}; choose another method"
                        + (f": {fit}" if not entry.dense else ", or data with a map of classes for each image"))
    if not options.modalities:
        return entry.make(options, model)
    method = entry.make(options, select_modalities(model, options.modalities, "method.modalities"))
    own = set(names_of(options.modalities))
    for teacher, theirs in method.teachers.items():
        needed = set(names_of(getattr(theirs, "modality", "") or theirs.modalities))
        if not needed or not needed <= own:
            raise UserError(f"method.modalities={options.modalities}: {options.name} starts from {teacher}, a model "
                            "of all modalities; leave it out, or choose another method")
    return method
