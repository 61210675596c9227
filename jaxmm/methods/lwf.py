"""LwF: learning without forgetting, with no stored examples (Li and Hoiem, ECCV 2016)."""
from dataclasses import dataclass

import jax.numpy as jnp

from jaxmm import task
from jaxmm.config import scalar
from jaxmm.errors import check_above, check_at_least
from jaxmm.losses.distillation import kl_divergence
from jaxmm.methods import common, continual
from jaxmm.state import seen


@dataclass
class LwFConfig(continual.SGDConfig):
    """Learning without forgetting: distils from the network as it was when the last task ended."""
    name: str = "lwf"
    alpha: float = scalar(1.0)      # weight of the distillation, >= 0
    temperature: float = 2.0        # T of the distillation, > 0
    head_epochs: int = 0            # first epochs of a new task, in which only the head is trained
    align: bool = False             # when a task ends its classes get weights as large as the old ones (WA)


def make_lwf(config: LwFConfig, model: common.Model) -> common.Method:
    """CE(z, y; classes seen) + alpha T^2 KL(softmax(h* / T) || softmax(z / T); old classes).

    z and h* [B, C] are the fused logits of the network as it is and as the last task left it, on the same
    batch; the first task has no distillation. With `config.lambda_` it acts on the head of each modality, too; with
    `config.align` see `continual.align_head`. UserError: an option out of range, or a task without classes.
    """
    check_at_least("method.alpha", config.alpha, 0)
    check_above("method.temperature", config.temperature, 0)
    task.need_classes(model.task, "lwf, which tells old classes from new ones,", "use er or derpp")
    model = continual.chosen_model(config, model)
    if config.align:
        continual.check_align(config.fusion, model)

    def init(key, batch):
        return remember(common.init_state(model, key, batch), seen.init(model.task.size))

    def remember(state, known):
        return state._replace(extra={"seen": known, "old": (state.params, state.batch_stats)})

    def step(state, batch, groups=None):
        batch = model.transform(common.step_key(state), batch)
        known = seen.update(state.extra["seen"], batch["label"], axis_name=model.axis_name)
        past = model.run(*state.extra["old"], batch, train=False).outputs

        def losses(params):
            out = model.run(params, state.batch_stats, batch, train=groups or True)

            def drift(head):
                old = [seen.restrict(z[head], seen.old(known)) for z in (out.outputs, past)]
                kl = kl_divergence(*old, config.temperature)
                return config.alpha * jnp.where(known.task > 0, kl, 0.0)

            terms = continual.by_head(config, model, lambda head: model.task.loss(
                seen.restrict(out.outputs[head], known.first >= 0), batch["label"]), batch["present"])
            return terms | continual.by_head(config, model, drift, batch["present"], prefix="distillation/"), out

        return common.finish_step(model, state, batch, *common.gradients(model, state.params, losses, groups),
                                  extra=state.extra | {"seen": known})

    def end_task(state):
        state = continual.align_head(model, state) if config.align else state
        return remember(state, seen.next_task(state.extra["seen"]))

    return common.Method(
        init, {"all": step, "head": lambda state, batch: step(state, batch, ("head",))},
        common.make_predict(model), common.make_features(model),
        phase=lambda at: "head" if at.task > 0 and at.epoch < config.head_epochs else "all",
        end_task=end_task)
