"""Plain ways of training: one modality alone, and the fusion baselines (MLA, table 1).

They differ in head and loss only; `jaxmm.methods.common.make_joint` is the rest.
"""
from jaxmm import heads
from jaxmm.config import MethodConfig, UnimodalConfig
from jaxmm.errors import check_choice
from jaxmm.evaluate.fusion import mean_logits
from jaxmm.losses.classification import cross_entropy
from jaxmm.methods.common import Components, Method, make_joint, select_modalities


def fused_cross_entropy(axis_name: str | None):
    """loss_fn: CE(z_f, y)."""
    return lambda logits, batch: cross_entropy(logits["fused"], batch["label"],
                                               axis_name=axis_name)


def make_unimodal(config: UnimodalConfig, components: Components, *,
                  axis_name: str | None = None) -> Method:
    """One encoder and its linear head, trained on the examples that have the modality.

    Raises:
      UserError: `config.modality` is no modality of the data.
    """
    m = config.modality
    check_choice("method.modality", m, components.encoders)
    components = select_modalities(components, m, "method.modality")

    def loss_fn(logits, batch):
        return cross_entropy(logits[m], batch["label"], batch["present"][m], axis_name)

    return make_joint(components, heads.separate(components.num_classes), loss_fn,
                      axis_name=axis_name)


def make_concat(config: MethodConfig, components: Components, *,
                axis_name: str | None = None) -> Method:
    """CE of one linear layer on the concatenated features."""
    del config
    return make_joint(components, heads.concat(components.num_classes),
                      fused_cross_entropy(axis_name), axis_name=axis_name)


def make_sum(config: MethodConfig, components: Components, *,
             axis_name: str | None = None) -> Method:
    """CE of the sum of one linear layer per modality."""
    del config
    return make_joint(components, heads.separate(components.num_classes),
                      fused_cross_entropy(axis_name), axis_name=axis_name)


def make_late(config: MethodConfig, components: Components, *,
              axis_name: str | None = None) -> Method:
    """One linear layer and one CE per modality, no interaction; fused is the mean of the logits."""
    del config

    def loss_fn(logits, batch):
        return sum(cross_entropy(logits[m], batch["label"], batch["present"][m], axis_name)
                   for m in components.encoders)

    return make_joint(components, heads.separate(components.num_classes), loss_fn,
                      fuse=mean_logits, axis_name=axis_name)
