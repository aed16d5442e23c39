"""ResNets (He et al., 2016) with the stems for small images and for ImageNet."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dream_jax.models.norm import BatchNorm
from dream_jax.settings import ModelSettings

# Blocks per stage; each stage after the first halves the image and doubles the channels.
ARCHITECTURES = {
    "resnet8": (1, 1, 1),
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
}
BOTTLENECK = ("resnet50",)
# small: 3×3; stride2: 3×3 with stride 2, a quarter of the work; imagenet: 7×7 stride 2, max-pool.
STEMS = ("small", "stride2", "imagenet")
# What convolutions and activations are computed in; parameters, statistics of batch norm, pooled
# features and outputs are float32 always.
PRECISIONS = ("float32", "bfloat16")
# Images in [0, 1] are normalised to [-1, 1].
INPUT_SCALE = 2


def _conv(features: int, kernel: int, stride: int, dtype, name: str) -> nn.Conv:
    size, padding = (kernel, kernel), kernel // 2
    return nn.Conv(features, size, stride, padding, use_bias=False, dtype=dtype, name=name)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    channels: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train, mask):
        residual = x
        conv = partial(_conv, dtype=self.dtype)
        y = nn.relu(BatchNorm()(conv(self.channels, 3, self.stride, name="conv1")(x), train, mask))
        y = BatchNorm()(conv(self.channels, 3, 1, name="conv2")(y), train, mask)
        if residual.shape != y.shape:
            shortcut = conv(self.channels, 1, self.stride, name="shortcut")
            residual = BatchNorm()(shortcut(x), train, mask)
        return nn.relu(residual + y)


class BottleneckBlock(nn.Module):
    """1×1, 3×3 and 1×1 convolutions to four times the channels, and a shortcut.

    The 3×3 convolution has the stride ("ResNet v1.5", as in torchvision), not the first one.
    """

    channels: int
    stride: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, train, mask):
        residual = x
        conv = partial(_conv, dtype=self.dtype)
        y = nn.relu(BatchNorm()(conv(self.channels, 1, 1, name="conv1")(x), train, mask))
        y = nn.relu(BatchNorm()(conv(self.channels, 3, self.stride, name="conv2")(y), train, mask))
        y = BatchNorm()(conv(4 * self.channels, 1, 1, name="conv3")(y), train, mask)
        if residual.shape != y.shape:
            shortcut = conv(4 * self.channels, 1, self.stride, name="shortcut")
            residual = BatchNorm()(shortcut(x), train, mask)
        return nn.relu(residual + y)


class ResNet(nn.Module):
    """Images to outputs, with the pooled features before the last layer.

    Attributes:
      stages: blocks per stage.
      width: channels of the first stage.
      stem: one of `STEMS`.
      outputs: size of the last linear layer: classes, or the anchor dimension.
      block: `BasicBlock` or `BottleneckBlock`.
      dtype: what convolutions and activations are computed in.
    """

    stages: Sequence[int]
    width: int
    stem: str
    outputs: int
    block: type[nn.Module] = BasicBlock
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "n H W C"],
        train: bool = False,
        mask: Float[Array, " n"] | None = None,
    ) -> tuple[Float[Array, "n outputs"], Float[Array, "n channels"]]:
        """Returns outputs and pooled features of images in [0, 1]."""
        if self.stem == "imagenet":
            kernel, stride = 7, 2
        else:
            kernel, stride = 3, 2 if self.stem == "stride2" else 1
        x = _conv(self.width, kernel, stride, self.dtype, "stem")(INPUT_SCALE * images - 1)
        x = nn.relu(BatchNorm()(x, train, mask))
        if self.stem == "imagenet":
            x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                x = self.block(self.width * 2**stage, stride, self.dtype)(x, train, mask)
        pooled = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return nn.Dense(self.outputs, name="head")(pooled), pooled


def build_model(model: ModelSettings, outputs: int) -> ResNet:
    """Returns the network of the settings, with `outputs` outputs."""
    block = BottleneckBlock if model.arch in BOTTLENECK else BasicBlock
    dtype = jnp.dtype(model.precision)
    return ResNet(ARCHITECTURES[model.arch], model.width, model.stem, outputs, block, dtype)


def init_model(model: ResNet, key: jax.Array, image_shape: tuple[int, int, int]) -> dict:
    """Returns fresh variables {"params", "batch_stats"}."""
    init = jax.jit(partial(model.init, train=True))  # one program: the eager one is slower
    return init(key, jnp.zeros((1, *image_shape)), mask=jnp.ones(1))
