"""Gradients of dense layers on sequences against plain Flax's, which write transposed copies.

    python -m benchmarks.dense [--rounds 5]

At the sizes of the attention blocks of the miniature for photographs, and of bottlenecks as wide as
ResNet-50's. Both must give the same gradients.
"""

from contextlib import nullcontext

import flax.linen as nn
import jax
import numpy as np

from benchmarks.paired import compare, run
from dream_jax.training.cpu_convolution import cpu_convolutions

WORKS = {  # (sequences, tokens, features), hidden features
    "dense_attention": ((64, 64, 128), 512),
    "dense_bottleneck": ((64, 196, 256), 64),
}
LAYERS = 4


class Blocks(nn.Module):
    """Residual blocks of two dense layers, after a norm each."""

    hidden: int

    @nn.compact
    def __call__(self, x):
        for _ in range(LAYERS):
            y = nn.gelu(nn.Dense(self.hidden)(nn.LayerNorm()(x)))
            x = x + nn.Dense(x.shape[-1])(y)
        return x


def benchmark(name: str, rounds: int) -> None:
    shape, hidden = WORKS[name]
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    model = Blocks(hidden)
    variables = model.init(jax.random.key(0), x)

    def contender(context):
        @jax.jit
        def gradient(variables, x):
            with context():
                return jax.grad(lambda v: (model.apply(v, x) ** 2).mean())(variables)

        return lambda: gradient(variables, x)

    def agree(made):
        for one, other in zip(*map(jax.tree.leaves, made.values()), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())

    layers = f"{2 * LAYERS} dense layers, {shape[-1]} to {hidden} features and back"
    contenders = {"dream_jax": contender(cpu_convolutions), "Flax": contender(nullcontext)}
    title = f"Gradients of {layers}, {shape[0]} sequences of {shape[1]}"
    work = (shape[0], "sequences")
    compare(name, title, contenders, rounds, {"shape": shape, "hidden": hidden}, work, agree)


if __name__ == "__main__":
    run(__doc__, benchmark, WORKS)
