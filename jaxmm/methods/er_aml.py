"""ER-AML: replay whose new examples learn by comparison with others alone (Caccia et al., ICLR 2022)."""
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmm import task
from jaxmm.config import scalar
from jaxmm.errors import check_above
from jaxmm.heads import concatenate
from jaxmm.keys import named_key
from jaxmm.losses import normalize
from jaxmm.losses.contrastive import contrast
from jaxmm.methods import common, continual
from jaxmm.state import replay, seen


@dataclass
class ERAMLConfig(continual.MemoryConfig):
    """Replay with an asymmetric metric loss on new examples (ER-AML)."""
    name: str = "er_aml"
    tau: float = scalar(0.2)        # temperature of the comparison, > 0


def make_er_aml(config: ERAMLConfig, model: common.Model) -> common.Method:
    """mean_i mean_{p in P_i} -log softmax_a(f_i . f_a / tau)[p] + CE(z', y').

    f is the normalised concatenation of the features, 0 where a modality is missing. For each current example one
    of its class and one of another class of the batch are drawn from the memory and the rest of the batch; a runs
    over all that were drawn, P_i over those among them that are of the class of i. Examples for which either
    cannot be drawn do not count. z' are the fused logits of a replayed batch, from which alone the head learns.
    While the memory is empty, the first term is the cross-entropy of the current batch. With `config.lambda_` both
    terms act on each modality alone, too.

    Raises:
      UserError: an option out of range, or a task without classes.
    """
    task.need_classes(model.task, "er_aml, which compares examples of classes,", "use er or derpp")
    check_above("method.tau", config.tau, 0)
    model = continual.chosen_model(config, model)
    continual.check_memory(config, model)

    def init(key, batch):
        return common.init_state(model, key, batch, lambda key, _: {
            "memory": continual.init_memory(config, model, key, batch)})

    def draw(key, memory, batch):
        """(memory, rows like those of the batch, each of its class and of another one, bool [B]: which have both).
        """
        everyone = model.gather(batch)
        label, ids = (jnp.concatenate([memory.storage[name], everyone[name]]) for name in ("label", "id"))
        there = jnp.concatenate([replay.filled(memory), jnp.ones(len(everyone["id"]), bool)])
        here = seen.occurring(everyone["label"], model.task.size)
        same = batch["label"][:, None] == label
        allowed = {"positive": same & (batch["id"][:, None] != ids), "negative": ~same & here[label]}
        drawn, found = {}, jnp.ones(len(batch["id"]), bool)
        for name, rows in allowed.items():
            chance = jax.vmap(lambda i, k=named_key(key, name): jax.random.uniform(
                jax.random.fold_in(k, i), (len(there),)))(batch["id"])
            chance = jnp.where(rows & there, chance, -1.0)
            memory, drawn[name] = pick(memory, everyone, chance.argmax(1))
            found &= chance.max(1) >= 0
        return memory, drawn, found

    def step(state, batch):
        batch = common.only(batch, model.encoders)
        empty = replay.size(state.extra["memory"]) == 0
        memory, past, valid = continual.sample_past(config, model, state.extra["memory"], batch)
        key = common.step_key(state)
        memory, pairs, found = draw(common.own_key(key), memory, batch)
        now = model.transform(key, batch)
        drawn = continual.concatenate(*(model.transform(named_key(key, name), rows) for name, rows in pairs.items()))
        present = {m: p & jnp.concatenate([found, found]) for m, p in drawn["present"].items()}
        drawn |= {"present": present}
        past = model.transform(named_key(key, "replayed"), past)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, now, train=True)
            other = model.run(params, out.batch_stats, drawn, train=True)
            again = model.run(params, other.batch_stats, past, train=True)

            def metric(head):
                own, theirs = (normalize(concatenate(x) if head == "fused" else x[head])
                               for x in (out.features, other.features))
                rows = drawn["present"].get(head, jnp.concatenate([found, found]))
                theirs, labels, rows = model.gather((theirs, drawn["label"], rows))
                loss = contrast(own, theirs, now["label"][:, None] == labels, rows, config.tau)
                return jnp.where(empty, model.task.loss(out.outputs[head], now["label"]), loss)

            counts = {m: p & (found & pairs["positive"]["present"][m] | empty) for m, p in now["present"].items()}
            terms = continual.by_head(config, model, metric, counts, found | empty)
            terms |= continual.by_head(config, model, lambda head: model.task.loss(
                again.outputs[head], past["label"]), past["present"], valid, "replayed/")
            return terms, out._replace(batch_stats=again.batch_stats)

        losses, out, grads = common.gradients(model, state.params, loss_fn)
        batches = now, drawn, past
        return common.finish_step(
            model, state, batch, losses, out, grads,
            extra=state.extra | {"memory": continual.remember(model, memory, batch)},
            present={m: jnp.concatenate([b["present"][m] for b in batches]) for m in model.encoders})

    return continual.with_nme(config, model, common.Method(
        init, step, common.make_predict(model), common.make_features(model)))


def pick(memory, batch, at):
    """(memory, its slots `at`, int [B], or from its capacity on rows of the batch)."""
    capacity = len(memory.storage["id"])
    memory, stored = replay.read(memory, jnp.minimum(at, capacity - 1))
    fresh = jax.tree.map(lambda x: jnp.asarray(x)[jnp.maximum(at - capacity, 0)], batch)
    return memory, jax.tree.map(lambda x, y: jnp.where(
        (at < capacity).reshape(-1, *[1] * (x.ndim - 1)), x, y), stored, fresh)
