"""The networks: examples [B, ...] -> features [B, s], all called as `net(x, train=, mask=)`."""
from flax import linen as nn
import jax.numpy as jnp

from jaxmm.encoders.conv import Conv
from jaxmm.encoders.norm import BatchNorm

he_normal = nn.initializers.he_normal()


class MLP(nn.Module):
    """Dense + ReLU layers of the given widths over the flattened example."""
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None):
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width, dtype=x.dtype, kernel_init=he_normal)(x))
        return x


class CNN(nn.Module):
    """Stages of 3x3 convolution, batch norm, 2x2 max-pool and ReLU; mean over positions; Dense, ReLU.

    The width doubles from stage to stage. An axis of length 1 is pooled no further.
    """
    width: int
    depth: int
    features: int
    lowering: str = "auto"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train: bool, mask=None):
        for stage in range(self.depth):
            x = Conv(self.width * 2**stage, lowering=self.lowering)(x)
            x = BatchNorm(self.axis_name)(x, train=train, mask=mask)
            x = nn.relu(halve(x))   # as pooling the ReLU, on a quarter of the positions
        x = mean_pool(x)
        return nn.relu(nn.Dense(self.features, dtype=x.dtype, kernel_init=he_normal)(x))


def halve(x):
    """2x2 max-pool of [B, H, W, C] with stride 2; an odd last row or column is dropped."""
    batch, height, width, channels = x.shape
    h, w = min(2, height), min(2, width)
    x = x[:, :height // h * h, :width // w * w]
    return x.reshape(batch, height // h, h, width // w, w, channels).max((2, 4))


def mean_pool(x):
    """Mean of [B, H, W, C] over positions, taken in float32, in the type of x."""
    return x.mean((1, 2), dtype=jnp.float32).astype(x.dtype)
