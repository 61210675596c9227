"""MMTM: late fusion of encoders that exchange information, trained as by Wu et al. (2022)."""
from dataclasses import dataclass

from jaxmm import heads
from jaxmm.config import MethodConfig
from jaxmm.encoders import exchange
from jaxmm.errors import UserError, check_at_least
from jaxmm.heads.fusion import mean_logits
from jaxmm.methods.common import Method, TrainState, check_several, make_joint
from jaxmm.methods.fusion import late_loss
from jaxmm.model import Model


@dataclass
class MMTMConfig(MethodConfig):
    """Late fusion of encoders with multimodal transfer modules between their stages."""
    name: str = "mmtm"
    stages: int = 0                 # the last N stages, each followed by an exchange; 0: all


def make_mmtm(config: MMTMConfig, model: Model) -> Method:
    """`late` with an exchange after each of the last stages: sum_m CE(z_m, y), fused by the mean.

    Raises:
      UserError: see `exchanging_model`.

    References:
      Joze et al., "MMTM: multimodal transfer module for CNN fusion", CVPR 2020.
    """
    model = exchanging_model(config, model)
    return make_joint(model, late_loss(model))._replace(squeezes=make_squeezes(model), from_features=False)


def exchanging_model(config: MMTMConfig, model: Model) -> Model:
    """The model of `late`, with an exchange after each of the last stages.

    Raises:
      UserError: fewer than two modalities, encoders without stages or with different numbers of
        them, or more stages asked for than they have.
    """
    check_at_least("method.stages", config.stages, 0)
    counts = {m: len(encoder.stages) for m, encoder in model.encoders.items()}
    check_several(model, f"{config.name} exchanges between modalities")
    count, stages = min(counts.values()), config.stages or max(counts.values())
    if not count or max(counts.values()) > count or stages > count:
        found = ", ".join(f"{m} {n}" for m, n in counts.items())
        raise UserError(f"{config.name} exchanges behind the last {stages} stages, so encoders need "
                        f"equally many, and no fewer; found {found}; set --config.encoders."
                        "MODALITY.name and depth, or --config.method.stages")
    return model._replace(head=heads.separate(model.task.size), fuse=mean_logits,
                          exchange=exchange.mmtm(tuple(range(count)[-stages:])))


def make_squeezes(model: Model):
    """squeezes(state, batch): the means over positions that enter the exchange, [B, C]; see `Method`."""

    def squeezes(state: TrainState, batch):
        heard, stages = {}, iter(model.exchange.after)

        def apply(params, stats, maps, present, **options):
            stage = next(stages)
            heard.update({f"stage_{stage}/{m}": exchange.squeeze(x) for m, x in maps.items()})
            return model.exchange.apply(params, stats, maps, present, **options)

        listening = model._replace(exchange=model.exchange._replace(apply=apply))
        listening.run(state.params, state.batch_stats, model.transform(None, batch), train=False)
        return heard

    return squeezes
