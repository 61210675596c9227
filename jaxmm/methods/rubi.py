"""RUBi: late fusion masked in training by the prediction of one modality (Cadene et al., 2019).

It is a baseline of Wu et al. (2022), on encoders that exchange information.
"""
from dataclasses import dataclass

import jax

from jaxmm import heads
from jaxmm.errors import check_at_least, check_choice
from jaxmm.heads import Head, linear, linear_init
from jaxmm.keys import named_key
from jaxmm.methods.common import (Method, finish_step, gradients, init_state, make_features,
                                  make_predict, step_key)
from jaxmm.methods.mmtm import MMTMConfig, exchanging_model, make_squeezes
from jaxmm.model import Model


@dataclass
class RUBiConfig(MMTMConfig):
    """Reduces unimodal biases of encoders that exchange (RUBi, Cadene et al., 2019)."""
    name: str = "rubi"
    bias: str = ""                  # the biased modality, which must not decide alone; "": all of them
    hidden: int = 512               # hidden units of the network that computes the mask


def make_rubi(config: RUBiConfig, model: Model) -> Method:
    """sum_b CE(z_f sigmoid(n_b(sg h_b))) + CE(c_b(n_b(sg h_b))) over the biased modalities b.

    z_f is the mean of the logits, and the prediction; n_b is an MLP s -> hidden -> C, c_b is linear,
    and sg stops their gradient into the encoder of b. Each term is a mean over the examples that
    have b. The original has one bias, the question; Wu et al. released no code of their baseline.

    Raises:
      UserError: `config.bias` is not a modality, `config.hidden` is below 1, or encoders that cannot
        exchange (see `exchanging_model`).
    """
    if config.bias:
        check_choice("method.bias", config.bias, model.encoders)
    check_at_least("method.hidden", config.hidden, 1)
    biased = [config.bias] if config.bias else list(model.encoders)
    model = exchanging_model(config, model)
    model = model._replace(head=masked_head(model.task.size, biased, config.hidden))

    def init(key, batch):
        return init_state(model, key, batch)

    def step(state, batch):
        batch = model.transform(step_key(state), batch)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            terms = {}
            for b in biased:
                mask, guess = mask_of(params["head"]["mask"][b], jax.lax.stop_gradient(out.features[b]))
                masked = out.outputs["fused"] * jax.nn.sigmoid(mask)
                terms |= {f"{name}/{b}": model.mean(model.task.loss(z, batch["label"]), batch["present"][b])
                          for name, z in (("masked", masked), ("guess", guess))}
            return terms, out

        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn))

    return Method(init, step, make_predict(model), make_features(model),
                  squeezes=make_squeezes(model), from_features=False)


def masked_head(num_outputs: int, biased, hidden: int) -> Head:
    """A linear layer for each modality, and the networks of the masks, used only in training."""
    layers = heads.separate(num_outputs)

    def init_mask(key, width):
        return {"hidden": linear_init(named_key(key, "hidden"), width, hidden),
                "out": linear_init(named_key(key, "out"), hidden, num_outputs),
                "classifier": linear_init(named_key(key, "classifier"), num_outputs, num_outputs)}

    def init(key, widths):
        return {"layers": layers.init(key, widths),
                "mask": {b: init_mask(named_key(key, f"mask/{b}"), widths[b]) for b in biased}}

    return Head(init, lambda params, features: layers.apply(params["layers"], features))


def mask_of(params, features):
    """(n(h), c(n(h))), [B, K] each, of features h [B, s]."""
    mask = linear(params["out"], jax.nn.relu(linear(params["hidden"], features)))
    return mask, linear(params["classifier"], mask)
