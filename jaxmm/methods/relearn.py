"""D&R: diagnosing and re-learning (Wei et al., ECCV 2024)."""
import warnings
from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from jaxmm.data.dataset import say
from jaxmm.errors import check_at_least
from jaxmm.methods.common import Method, check_several, init_state, make_joint
from jaxmm.methods.fusion import FusedConfig, fused_loss, with_fused_head
from jaxmm.model import Model
from jaxmm.task import need_classes


@dataclass
class RelearnConfig(FusedConfig):
    """A fused head; encoders are drawn back to their start by how much they overfit (D&R, ECCV 2024)."""
    name: str = "relearn"
    every: int = 20                 # epochs between two such moments, >= 1
    times: int = 3                  # such moments at most, >= 0; never after the last epoch of a task
    strength: float = 3.0           # of drawing back, >= 0


def make_relearn(config: RelearnConfig, model: Model) -> Method:
    """CE(z_f); after every `every` epochs theta_m <- beta_m theta_m(0) + (1 - beta_m) theta_m of each encoder.

    beta_m = tanh(strength |P_train - P_val|), where P is the `purity` of the features of m, in evaluation
    mode, over the task's rows of a split that have it. All parameters of an encoder are drawn back to those
    that the run started from; batch statistics and the state of the optimizer stay. An encoder stays as it is
    where a split has fewer such rows than there are classes, which is said, or features that are not finite.

    Raises:
      UserError: fewer than two modalities, an option out of range, an unknown fusion, or a task that is not
        a classification.
    """
    check_at_least("method.every", config.every, 1)
    check_at_least("method.times", config.times, 0)
    check_at_least("method.strength", config.strength, 0)
    check_several(model, "relearn draws encoders back by how much each overfits")
    need_classes(model.task, "relearn, which holds clusters against classes,", "use aux_ce")
    model = with_fused_head(config, model)

    def init(key, batch):
        return begin(init_state(model, key, batch))

    def begin(state):
        return state._replace(extra={"initial": {m: state.params[m] for m in model.encoders}})

    def end_epoch(state, features_of):
        epoch = model.epoch(state.step - 1)
        done = int(epoch.done) + 1
        if done % config.every or done > config.every * config.times or done == epoch.epochs:
            return state
        train, val = features_of("train"), features_of("val")
        drawn = {m: draw_back(state.params[m], start, np.tanh(config.strength * gap(m, train, val)))
                 for m, start in state.extra["initial"].items()}
        return state._replace(params=state.params | drawn)

    def gap(m, *splits):
        """|P_train - P_val| of a modality, 0 where it cannot be told."""
        rows = [(rows["features"][m][rows["present"][m]], rows["label"][rows["present"][m]]) for rows in splits]
        if min(len(y) for _, y in rows) < model.task.size:
            say(f"relearn: the encoder of {m} stays as it is: {' and '.join(str(len(y)) for _, y in rows)} rows of "
                f"train and val have it, and {model.task.size} clusters need as many in each")
            return 0.0
        if not all(np.isfinite(x).all() for x, _ in rows):      # of a run that failed beside others
            return 0.0
        p_train, p_val = (purity(x, y, model.task.size) for x, y in rows)
        return abs(p_train - p_val)

    return make_joint(model, fused_loss(model))._replace(init=init, begin=begin, end_epoch=end_epoch)


def draw_back(params: chex.ArrayTree, start: chex.ArrayTree, beta: float) -> chex.ArrayTree:
    """beta start + (1 - beta) params; to the bit `params` where both agree or beta is 0."""
    return jax.tree.map(lambda x, x0: x + jnp.asarray(beta, x.dtype) * (x0 - x), params, start)


def purity(features: chex.Array, labels: chex.Array, num_clusters: int) -> float:
    """Share of the rows, in (0, 1], whose label is the most frequent one of their cluster.

    The clusters are those of k-means on features scaled to [0, 1] each, in float64, from one start by
    k-means++. The result is deterministic.

    Args:
      features: [N, s], finite, N >= `num_clusters`.
      labels: int [N], >= 0.
    """
    x = np.asarray(features, np.float64)
    low, width = x.min(0), np.ptp(x, axis=0)
    x = (x - low) / np.where(width > 0, width, 1.0)
    # Several threads add up in any order; features that have collapsed make fewer clusters, which is no fault.
    from sklearn.cluster import KMeans      # slow to import, also for all other methods
    from sklearn.exceptions import ConvergenceWarning
    with threadpool_limits(1), warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        clusters = KMeans(num_clusters, n_init=1, random_state=0).fit_predict(x)
    counts = np.zeros((num_clusters, int(np.max(labels)) + 1), int)
    np.add.at(counts, (clusters, np.asarray(labels)), 1)
    return float(counts.max(1).sum() / len(x))
