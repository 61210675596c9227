"""Dropout, alone or as AVSlowFast has it: what others hear is added to what one sees (arXiv 2001.08740)."""
from dataclasses import dataclass

import jax

from jaxmm.encoders.exchange import lateral_add
from jaxmm.errors import UserError, check_choice
from jaxmm.keys import named_key
from jaxmm.methods import fusion
from jaxmm.methods.common import (Method, check_several, finish_step, gradients, init_state, make_features,
                                  make_predict, own_key, step_key)
from jaxmm.model import Model

AFTER = (2, 3)      # stages that are added to: res3 and res4


@dataclass
class LateralDropoutConfig(fusion.DropoutConfig):
    """Dropout on features; with `main` on encoders between which information is added (AVSlowFast)."""
    main: str = ""                  # modality, of clips, to whose stages the others' are added; "": none
    drop_pathway: float = 0.8       # probability that a step adds nothing, in [0, 1]


def make_dropout(config: LateralDropoutConfig, model: Model) -> Method:
    """`fusion.make_dropout`, on encoders with an exchange (see `lateral_add`) if there is a `main` modality.

    In training, with probability `drop_pathway` a step adds nothing (DropPathway), so that encoders of different
    speed learn side by side; the head has the features of all of them in every step. There is no loss for
    synchronisation.

    Raises:
      UserError: a rate outside [0, 1), an unknown fusion, `main` is no modality or the only one, its encoder does
        not see motion, too few stages, or a probability outside [0, 1].
    """
    plain = fusion.make_dropout(config, model)
    if not config.main:
        return plain
    if not 0 <= config.drop_pathway <= 1:
        raise UserError(f"method.drop_pathway={config.drop_pathway}; expected a probability in [0, 1]")
    check_several(model, "method.main is what other modalities are added to,")
    check_choice("method.main", config.main, model.encoders)
    counts = {m: len(encoder.stages) for m, encoder in model.encoders.items()}
    if min(counts.values()) <= max(AFTER):
        found = ", ".join(f"{m} {n}" for m, n in counts.items())
        raise UserError(f"method.main={config.main}: modalities are added behind the third and the fourth stage of "
                        f"each encoder; found {found}: set --config.encoders.MODALITY.name")
    model = fusion.with_fused_head(config, model)._replace(
        exchange=lateral_add(AFTER, config.main, model.axis_name))

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        key = step_key(state)
        batch = model.transform(key, batch)
        own = own_key(key)
        alone = {config.main: jax.random.bernoulli(named_key(own, "pathway"), config.drop_pathway)}

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True, alone=alone,
                            perturb=lambda features: fusion.drop_features(config.rate, own, features, batch))
            return fusion.fused_loss(model)(out.outputs, batch), out

        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn))

    return Method(init, step, make_predict(model), make_features(model), from_features=False)
