"""Dropout, alone or as AVSlowFast has it: what others hear is added to what one sees (arXiv 2001.08740)."""
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp

from jaxmm.batch import Batch, take
from jaxmm.encoders.exchange import add, connect, lateral_add, seen, squeeze
from jaxmm.errors import UserError, check_at_least, check_choice
from jaxmm.heads import linear, linear_init
from jaxmm.keys import named_key
from jaxmm.losses import norm, normalize
from jaxmm.methods import fusion
from jaxmm.methods.common import (Method, check_several, finish_step, gradients, init_state, make_features,
                                  make_predict, only, own_key, step_key, tap_all)
from jaxmm.model import Model

AFTER = (2, 3)      # stages that are added to: res3 and res4
SYNCED = (*AFTER, 4)    # stages behind which the loss for synchronisation compares
PROJECTION = 64     # of what is compared
MARGIN = 0.99
APART = 0.5         # seconds between two sounds of a clip, at least
EASY = 0.75         # share of the batch whose other sound always is another clip's
SILENT = 0.01       # the largest variance of the input of silence
ALIKE = 0.99999     # the least cosine of inputs that are alike


@dataclass
class LateralDropoutConfig(fusion.DropoutConfig):
    """Dropout on features; with `main` on encoders between which information is added (AVSlowFast)."""
    main: str = ""                  # modality, of clips, to whose stages the others' are added; "": none
    drop_pathway: float = 0.8       # probability that a step adds nothing, in [0, 1]
    sync_weight: float = 0.0        # of the loss for synchronisation, >= 0; released: 1
    sync_epochs: int = 96           # epochs of a task before a clip's sound is compared with another one of its own


def make_dropout(config: LateralDropoutConfig, model: Model) -> Method:
    """`fusion.make_dropout`, on encoders with an exchange (see `lateral_add`) if there is a `main` modality.

    In training, with probability `drop_pathway` a step adds nothing (DropPathway), so that encoders of different
    speed learn side by side; the head has the features of all of them in every step. With `sync_weight` w the
    loss is CE + w L_sync, see `make_synchronised`.

    Raises:
      UserError: a rate outside [0, 1), an unknown fusion, `main` is no modality or the only one, its encoder does
        not see motion, too few stages, a probability outside [0, 1], or a weight or epochs below 0.
    """
    plain = fusion.make_dropout(config, model)
    check_at_least("method.sync_weight", config.sync_weight, 0)
    check_at_least("method.sync_epochs", config.sync_epochs, 0)
    if not config.main:
        if config.sync_weight:
            raise UserError(f"method.sync_weight={config.sync_weight:g} compares what others hear with what one "
                            "modality sees; name it by --config.method.main")
        return plain
    if not 0 <= config.drop_pathway <= 1:
        raise UserError(f"method.drop_pathway={config.drop_pathway}; expected a probability in [0, 1]")
    check_several(model, "method.main is what other modalities are added to,")
    check_choice("method.main", config.main, model.encoders)
    counts = {m: len(encoder.stages) for m, encoder in model.encoders.items()}
    if min(counts.values()) <= max(SYNCED if config.sync_weight else AFTER):
        found = ", ".join(f"{m} {n}" for m, n in counts.items())
        what = ("modalities are compared behind the last three of five stages" if config.sync_weight else
                "modalities are added behind the third and the fourth stage")
        raise UserError(f"method.main={config.main}: {what} of each encoder; found {found}: "
                        "set --config.encoders.MODALITY.name")
    model = fusion.with_fused_head(config, model)._replace(
        exchange=lateral_add(AFTER, config.main, model.axis_name))
    method = Method(lambda key, batch: init_state(model, key, batch), None, make_predict(model),
                    make_features(model), from_features=False)
    if config.sync_weight:
        return make_synchronised(config, model, method)

    def step(state, batch):
        key = step_key(state)
        batch = model.transform(key, batch)
        own = own_key(key)
        alone = {config.main: drops(config, own)}

        def loss_fn(params):
            out = model.run(params, state.batch_stats, batch, train=True, alone=alone,
                            perturb=lambda features: fusion.drop_features(config.rate, own, features, batch))
            return fusion.fused_loss(model)(out.outputs, batch), out

        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn))

    return method._replace(step=step)


def drops(config: LateralDropoutConfig, key: chex.PRNGKey) -> chex.Array:
    """bool []: whether a step adds nothing."""
    return jax.random.bernoulli(named_key(key, "pathway"), config.drop_pathway)


def make_synchronised(config: LateralDropoutConfig, model: Model, method: Method) -> Method:
    """The method with CE + w L_sync, L_sync the sum of `sync_loss` over stages and the modalities that are heard.

    The encoders of these get two sounds of each clip, its own and one that does not belong to what is seen there,
    see `other_sounds`; their batch statistics are of both. Compared are, behind each stage of `SYNCED` and before
    anything is added there, linear projections of the means over positions of what `main` sees and of what is
    added, or would be. Behind the first stage that is added to, what `main` sees has been told what is heard: in
    steps that add, this stage alone counts. Means are over the clips whose two sounds are `comparable`.

    The paper's code compares, behind the last stage, another lateral connection of the fast pathway too; here it
    is the slow pathway, as `seen` has it.

    Raises:
      UserError: by `init`, for a modality of which no second sound can be cut, see `gap_of`.
    """
    main, heard = config.main, [m for m in model.encoders if m != config.main]
    exchange = lateral_add(SYNCED, main, model.axis_name)

    def cut_again(key, batch):
        return model.transform(key, only(batch, heard) | {"view": {"apart": APART}})

    def init(key, batch):
        jax.eval_shape(cut_again, key, batch)       # raises what steps would
        state = init_state(model._replace(exchange=exchange), key, batch)
        x = model.transform(None, only(batch, [main]))["inputs"][main]
        taps = jax.eval_shape(lambda: tap_all(model.encoders[main], state.params[main], state.batch_stats[main], x))
        projections = {f"stage_{i}": {m: {side: linear_init(named_key(key, f"sync/{i}/{m}/{side}"),
                                                            seen(taps[i]).shape[-1], PROJECTION)
                                          for side in ("seen", "heard")} for m in heard} for i in SYNCED}
        params = state.params | {"sync": projections}
        return state._replace(params=params, opt_state=model.optimizer.init(params))

    def step(state, batch):
        key = step_key(state)
        again = cut_again(key, batch)
        batch = model.transform(key, batch)
        own = own_key(key)
        alone = drops(config, own)
        late = model.epoch(state.step).done >= config.sync_epochs
        other = other_sounds(model, again, late)
        pairs = batch | {part: batch[part] | {m: jnp.concatenate([batch[part][m], other[part][m]]) for m in heard}
                         for part in ("inputs", "present")}
        rows = len(batch["id"])
        valid = {m: batch["present"][main] & batch["present"][m] & other["present"][m] &
                 comparable(batch["inputs"][m], other["inputs"][m]) for m in heard}

        def perturb(features):
            features = {m: h[:rows] for m, h in features.items()}
            return fusion.drop_features(config.rate, own, features, batch)

        def loss_fn(params):
            listener, noted = listening(model, main)
            out = listener.run(params, state.batch_stats, pairs, train=True, alone={main: alone}, perturb=perturb)
            sync = jnp.zeros(())
            for i, (v, sounds) in zip(SYNCED, noted, strict=True):
                projections = params["sync"][f"stage_{i}"]
                loss = sum(model.mean(sync_loss(linear(projections[m]["seen"], v), *jnp.split(linear(
                    projections[m]["heard"], a), 2)), valid[m]) for m, a in sounds.items())
                sync += loss if i == AFTER[0] else jnp.where(alone, loss, 0)
            fused = fusion.fused_loss(model)(out.outputs, batch)
            return {"fused": fused, "sync": config.sync_weight * sync}, out

        return finish_step(model, state, batch, *gradients(model, state.params, loss_fn))

    return method._replace(init=init, step=step)


def listening(model: Model, main: str) -> tuple[Model, list[tuple[chex.Array, dict[str, chex.Array]]]]:
    """The model that runs once on batches with two sounds of each clip, and what it notes of each stage of `SYNCED`.

    Others than `main` have [2 B, ...] inputs, the sounds that are added before the other ones. Noted are the means
    over positions of what `main` sees, [B, C], and of what is heard of both, [2 B, C] by modality.
    """
    noted, stages = [], iter(SYNCED)

    def apply(params, stats, maps, present, *, train, mean, alone):
        del mean
        x, rows, added, new = maps[main], len(maps[main]), {}, {}
        for m in params:
            added[m], new[m] = connect(params[m], stats[m], maps[m], x, train=train, mask=present[m],
                                       axis_name=model.axis_name)
        noted.append((squeeze(x), {m: squeeze(y) for m, y in added.items()}))
        if next(stages) in AFTER:
            for m, y in added.items():
                x = add(x, y[:rows], present[m][:rows] & ~alone[main])
        return maps | {main: x}, new

    exchange = model.exchange
    assert exchange
    return model._replace(exchange=exchange._replace(after=SYNCED, apply=apply)), noted


def other_sounds(model: Model, again: Batch, late: chex.Array) -> Batch:
    """For each clip of the global batch the sound of `again` of the next clip, if `late` of three fourths of them.

    The others keep theirs. `again` holds another cut of each clip's sound.
    """
    sounds = model.gather({part: again[part] for part in ("inputs", "present")})
    rows, count = len(again["id"]), len(jax.tree.leaves(sounds)[0])
    easy = jnp.where(late, max(int(EASY * count), 1), count)
    row = model.first_row(rows) + jnp.arange(rows)
    return take(sounds, jnp.where(row < easy, (row + 1) % easy, row))


def comparable(x: chex.Array, y: chex.Array) -> chex.Array:
    """bool [B]: neither of the inputs x and y [B, ...] is silent, and they are not alike."""
    x, y = (z.reshape(len(z), -1).astype(jnp.float32) for z in (x, y))
    loud = [jnp.var(z, axis=1, ddof=1) > SILENT for z in (x, y)]
    return loud[0] & loud[1] & (jnp.sum(normalize(x) * normalize(y), axis=1) < ALIKE)


def sync_loss(v: chex.Array, a: chex.Array, other: chex.Array) -> chex.Array:
    """(|v - a|^2 + max(0, 0.99 - |v - a'|)^2) / 2, [B], of vectors [B, k] scaled to length 1/2.

    References:
      Korbar et al., "Cooperative learning of audio and video models from self-supervised synchronization", 2018.
    """
    chex.assert_rank([v, a, other], 2)
    v, a, other = (normalize(x) / 2 for x in (v, a, other))
    return (jnp.sum((v - a)**2, axis=-1) + jnp.maximum(0, MARGIN - norm(v - other))**2) / 2
