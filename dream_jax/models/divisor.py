"""The divisor of GODIN's logits."""

import flax.linen as nn
import jax

from dream_jax.models.norm import BatchNorm


class Divisor(nn.Module):
    """g(x) = sigmoid(BN(w·f(x) + b)), in (0, 1): (n, d) → (n,)."""

    @nn.compact
    def __call__(self, features: jax.Array, train: bool, mask: jax.Array | None = None):
        return nn.sigmoid(BatchNorm()(nn.Dense(1)(features), train, mask))[:, 0]
