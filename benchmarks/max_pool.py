"""Max-pooling with its gradient against Flax's, which XLA computes by selecting and scattering.

    python -m benchmarks.max_pool [--rounds 5]

At the sizes of the pooling blocks and of the stem for ImageNet. Both must give the same.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.paired import compare, run
from dream_jax.models.pooling import max_pool

WORKS = {  # (n, H, W, C) of the images, size and stride of the windows, pixels before the first
    "max_pool": ((64, 31, 31, 64), 2, 2, 0),
    "max_pool_imagenet": ((16, 112, 112, 64), 3, 2, 1),
}


def benchmark(name: str, rounds: int) -> None:
    shape, size, stride, before = WORKS[name]
    images = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    padding = ((before, before), (before, before)) if before else "SAME"
    flax = partial(nn.max_pool, window_shape=(size, size), strides=(stride,) * 2, padding=padding)
    weights = jax.random.normal(jax.random.key(0), jax.eval_shape(flax, images).shape)
    ours = partial(max_pool, size=size, stride=stride, before=before)

    def contender(pool):
        @jax.jit
        def both(images, weights):
            pooled, backward = jax.vjp(pool, images)
            return pooled, backward(weights)[0]

        return lambda: both(images, weights)

    def agree(made):
        for one, other in zip(made["dream_jax"], made["Flax"], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)

    compare(
        name,
        f"Max-pooling {size}×{size} by {stride} and its gradient, {'×'.join(map(str, shape))}",
        {"dream_jax": contender(ours), "Flax": contender(flax)},
        rounds,
        {"shape": shape, "size": size, "stride": stride},
        work=(shape[0], "images"),
        agree=agree,
    )


if __name__ == "__main__":
    run(__doc__, benchmark, WORKS)
