"""Analytic continual learning: a closed-form head on features that are frozen after the first task.

References:
  Zhuang et al., "ACIL", NeurIPS 2022; Zhuang et al., "GACL", NeurIPS 2024; Fang et al., "AIR", 2024.
"""
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmm import task
from jaxmm.config import scalar
from jaxmm.errors import check_above, check_at_least
from jaxmm.heads import concatenate, in_order
from jaxmm.keys import named_key
from jaxmm.methods import common, continual
from jaxmm.state import ridge


@dataclass
class AnalyticConfig(continual.SGDConfig):
    """Ridge regression on random features of encoders that the first task trained (ACIL)."""
    name: str = "analytic"
    expansion: int = 1000           # random features E; published: 5000 to 8192. Each head keeps E x E numbers
    gamma: float = scalar(1.0)      # of the ridge, > 0
    balanced: bool = False          # all classes weigh alike (AIR), for which each class keeps E x E numbers


def make_analytic(config: AnalyticConfig, model: common.Model) -> common.Method:
    """W = (sum phi phi^T + gamma I)^-1 sum phi onehot(y)^T over all examples so far, z = phi W.

    phi = relu(h Q), where h are the concatenated features, 0 where a modality is missing, and Q is drawn at
    random, N(0, 1 / s) for s features in all. Encoders learn the first task by the cross-entropy of a fused
    head, by which it predicts until then, and nothing after it. When a task ends its examples are visited, and W
    is computed anew. So W is that of joint ridge regression, whatever the stream. The head of a modality is the
    same on its features alone.

    Raises:
      UserError: an option out of range, or a task without classes.
    """
    task.need_classes(model.task, "analytic, which regresses on classes,", "use er or derpp")
    check_at_least("method.expansion", config.expansion, 1)
    check_above("method.gamma", config.gamma, 0)
    model = continual.chosen_model(config, model)
    heads = (*model.encoders, "fused")

    def init(key, batch):
        return common.init_state(model, key, batch, init_extra)

    def init_extra(key, widths):
        sums = ridge.init(config.expansion, model.task.size, by_class=config.balanced)
        total = sum(widths.values())
        return {"random": {m: jax.random.normal(named_key(key, m), (width, config.expansion)) / total ** 0.5
                           for m, width in in_order(widths).items()},
                "sums": dict.fromkeys(heads, sums), "frozen": jnp.zeros((), bool),
                "weights": {head: jnp.zeros((config.expansion, model.task.size)) for head in heads}}

    def expand(state, features):
        """phi [B, E] by head."""
        random = state.extra["random"]
        phi = {m: jax.nn.relu(h @ random[m]) for m, h in features.items()}
        return phi | {"fused": jax.nn.relu(concatenate(features) @ concatenate_rows(random))}

    def outputs(state, batch):
        """Those of the closed form, as soon as there is one."""
        out = model.run(state.params, state.batch_stats, batch, train=False)
        found = {head: phi @ state.extra["weights"][head] for head, phi in expand(state, out.features).items()}
        return {head: jnp.where(state.extra["frozen"], z, out.outputs[head]) for head, z in found.items()}

    def learn(state, batch):
        batch = model.transform(common.step_key(state), batch)

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True)
            return continual.by_head(config, model, lambda head: model.task.loss(
                out.outputs[head], batch["label"]), batch["present"]), out

        return common.finish_step(model, state, batch, *common.gradients(model, state.params, loss_fn),
                                  extra=state.extra | {"frozen": jnp.zeros((), bool)})

    def rest(state, batch):
        """Changes nothing: the examples count when the task ends."""
        batch = model.transform(None, batch)
        z = outputs(state, batch)
        loss = model.mean(model.task.loss(z["fused"], batch["label"]))
        return state._replace(step=state.step + 1), {"loss": loss} | common.head_progress(model, z, batch)

    def visit(state, batch):
        batch = model.transform(None, common.only(batch, model.encoders))
        features = model.run(state.params, state.batch_stats, batch, train=False).features
        counts = batch["present"] | {"fused": continual.counted(batch)}
        # Those of other features than the encoders give now do not count.
        old = jax.tree.map(lambda x: jnp.where(state.extra["frozen"], x, 0.0), state.extra["sums"])
        sums = {head: ridge.add(old[head], phi, batch["label"], counts[head], axis_name=model.axis_name)
                for head, phi in expand(state, features).items()}
        return state._replace(extra=state.extra | {"sums": sums, "frozen": jnp.ones((), bool)})

    def end_task(state):
        weights = {head: jnp.asarray(ridge.solve(sums, config.gamma, balanced=config.balanced))
                   for head, sums in state.extra["sums"].items()}
        return state._replace(extra=state.extra | {"weights": weights})

    return common.Method(
        init, {"learn": learn, "rest": rest}, lambda state, batch: outputs(state, model.transform(None, batch)),
        common.make_features(model), phase=lambda at: "learn" if at.task == 0 else "rest", visit=visit,
        end_task=end_task)


def concatenate_rows(random):
    """Q [s, E], its rows in the order of `concatenate`."""
    return jnp.concatenate([random[m] for m in sorted(random)])
