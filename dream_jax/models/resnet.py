"""ResNets (He et al., 2016) with the stems for small images and for ImageNet."""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dream_jax.models.norm import BatchNorm

# Blocks per stage; each stage after the first halves the image and doubles the channels.
STAGES = {"resnet8": (1, 1, 1), "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
# small: 3×3; stride2: 3×3 with stride 2, a quarter of the work; imagenet: 7×7 stride 2, max-pool.
STEMS = ("small", "stride2", "imagenet")


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x, train, mask):
        residual = x
        conv = lambda kernel, stride, name: nn.Conv(  # noqa: E731
            self.channels, (kernel, kernel), stride, padding=kernel // 2, use_bias=False, name=name
        )
        y = nn.relu(BatchNorm()(conv(3, self.stride, "conv1")(x), train, mask))
        y = BatchNorm()(conv(3, 1, "conv2")(y), train, mask)
        if residual.shape != y.shape:
            residual = BatchNorm()(conv(1, self.stride, "shortcut")(x), train, mask)
        return nn.relu(residual + y)


class ResNet(nn.Module):
    """Images to outputs, with the pooled features before the last layer.

    Attributes:
      stages: blocks per stage.
      width: channels of the first stage.
      stem: one of `STEMS`.
      outputs: size of the last linear layer: classes, or the anchor dimension.
    """

    stages: Sequence[int]
    width: int
    stem: str
    outputs: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False, mask: jax.Array | None = None):
        """(n, H, W, C) in [0, 1] → outputs (n, outputs), pooled features (n, channels)."""
        if self.stem == "imagenet":
            kernel, stride = 7, 2
        else:
            kernel, stride = 3, 2 if self.stem == "stride2" else 1
        x = nn.Conv(
            self.width, (kernel, kernel), stride, padding=kernel // 2, use_bias=False, name="stem"
        )(2 * images - 1)
        x = nn.relu(BatchNorm()(x, train, mask))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = BasicBlock(self.width * 2**stage, stride)(x, train, mask)
        pooled = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.outputs, name="head")(pooled), pooled


def build_model(config: ConfigDict, outputs: int) -> ResNet:
    """The network of `config.model`: `arch` of `STAGES`, `width`, `stem` of `STEMS`."""
    return ResNet(STAGES[config.arch], config.width, config.stem, outputs)


def init_model(model: ResNet, key: jax.Array, image_shape: tuple[int, int, int]) -> dict:
    """Fresh variables {"params", "batch_stats"}."""
    init = jax.jit(partial(model.init, train=True))  # one program: the eager one is slower
    return init(key, jnp.zeros((1, *image_shape)), mask=jnp.ones(1))
