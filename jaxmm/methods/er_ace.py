"""ER-ACE: replay whose new classes do not push the old ones away (Caccia et al., ICLR 2022)."""
from dataclasses import dataclass

from jaxmm import task
from jaxmm.keys import named_key
from jaxmm.methods import common, continual
from jaxmm.state import seen


@dataclass
class ERACEConfig(continual.MemoryConfig):
    """Replay with an asymmetric cross-entropy (ER-ACE)."""
    name: str = "er_ace"
    unseen: bool = False            # classes that have not come yet are in both softmaxes, as released


def make_er_ace(config: ERACEConfig, model: common.Model) -> common.Method:
    """CE(z, y; classes of the batch) + CE(z', y'; classes seen), of the fused head.

    z' are the logits of a replay batch, augmented afresh. The softmax of the current batch leaves out the
    classes that are not in it, so that it does not lower their logits. With `config.lambda_` it acts on the
    head of each modality, too.

    Raises:
      UserError: an option out of range, or a task without classes.
    """
    task.need_classes(model.task, "er_ace, which leaves classes out of a softmax,", "use er or derpp")
    model = continual.chosen_model(config, model)
    continual.check_memory(config, model)

    def init(key, batch):
        return common.init_state(model, key, batch, lambda key, _: {
            "memory": continual.init_memory(config, model, key, batch), "seen": seen.init(model.task.size)})

    def step(state, batch):
        batch = common.only(batch, model.encoders)
        memory, past, valid = continual.sample_past(config, model, state.extra["memory"], batch)
        known = seen.update(state.extra["seen"], batch["label"], axis_name=model.axis_name)
        ever = known.first >= 0
        here = seen.occurring(batch["label"], model.task.size, axis_name=model.axis_name)
        if config.unseen:
            here, ever = here | ~ever, ever | ~ever
        key = common.step_key(state)
        now = model.transform(key, batch)
        past = model.transform(named_key(key, "replayed"), past)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, now, train=True)
            again = model.run(params, out.batch_stats, past, train=True)
            terms = continual.by_head(config, model, lambda head: model.task.loss(
                seen.restrict(out.outputs[head], here), now["label"]), now["present"])
            terms |= continual.by_head(config, model, lambda head: model.task.loss(
                seen.restrict(again.outputs[head], ever), past["label"]), past["present"], valid, "replayed/")
            return terms, out._replace(batch_stats=again.batch_stats)

        losses, out, grads = common.gradients(model, state.params, loss_fn)
        memory = continual.remember(model, memory, batch)
        return common.finish_step(
            model, state, batch, losses, out, grads, extra=state.extra | {"memory": memory, "seen": known},
            present=continual.concatenate(now["present"], past["present"]))

    return continual.with_nme(config, model, common.Method(
        init, step, common.make_predict(model), common.make_features(model)))
