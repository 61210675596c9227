"""MLA, whose last epochs train all modalities at once by TCMax, under the same head: a recipe without a paper."""
from dataclasses import dataclass

from jaxmm.config import MethodConfig
from jaxmm.errors import check_share
from jaxmm.methods.common import Method
from jaxmm.methods.mla import MLAConfig, make_mla
from jaxmm.methods.tcmax import TCMaxConfig, make_tcmax
from jaxmm.model import Model


@dataclass
class MLATCMaxConfig(MethodConfig):
    """One modality at a time, then all of them, under one head."""
    name: str = "mla_tcmax"
    joint: float = 0.2              # share of the epochs, in [0, 1], that end the run with tcmax


def make_mla_tcmax(config: MLATCMaxConfig, model: Model) -> Method:
    """The steps of `mla` without projection, then in the last epochs those of `tcmax`, under one shared head.

    Both train the same parameters, and the state of the optimizer goes on. Predictions are those of `tcmax`: the
    sum of the logits.

    Raises:
      UserError: encoders of different widths, a share outside [0, 1], or what `tcmax` does not take.
    """
    check_share("method.joint", config.joint)
    alternating = make_mla(MLAConfig(projection="none", dynamic_fusion=False), model)
    joint = make_tcmax(TCMaxConfig(), model)

    def phase(at):
        epochs = model.epoch(at.step).epochs
        return "tcmax" if at.epoch >= round((1 - config.joint) * epochs) else "mla"

    return joint._replace(step={"mla": alternating.step, "tcmax": joint.step}, phase=phase)
