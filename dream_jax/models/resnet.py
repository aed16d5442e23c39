"""ResNets (He et al., 2016) with the stems for small images and for ImageNet."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from dream_jax.models.layers import show
from dream_jax.models.norm import BatchNorm
from dream_jax.settings import ModelSettings

# small: 3×3; stride2: 3×3 with stride 2, a quarter of the work; imagenet: 7×7 stride 2, max-pool.
STEMS = ("small", "stride2", "imagenet")
# The type of convolutions and activations. Parameters, statistics of batch norm, pooled features
# and outputs are always float32.
PRECISIONS = ("float32", "bfloat16")
# Images in [0, 1] are normalised to [-1, 1].
INPUT_SCALE = 2

Maps: TypeAlias = Float[Array, "n H W C"]
Mask: TypeAlias = Float[Array, " n"] | None


def _conv(features: int, kernel: int, stride: int, dtype: jnp.dtype, name: str) -> nn.Conv:
    size, padding = (kernel, kernel), kernel // 2
    return nn.Conv(features, size, stride, padding, use_bias=False, dtype=dtype, name=name)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    channels: int
    stride: int
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(self, x: Maps, train: bool, mask: Mask) -> Maps:
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
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(self, x: Maps, train: bool, mask: Mask) -> Maps:
        residual = x
        conv = partial(_conv, dtype=self.dtype)
        y = nn.relu(BatchNorm()(conv(self.channels, 1, 1, name="conv1")(x), train, mask))
        y = nn.relu(BatchNorm()(conv(self.channels, 3, self.stride, name="conv2")(y), train, mask))
        y = BatchNorm()(conv(4 * self.channels, 1, 1, name="conv3")(y), train, mask)
        if residual.shape != y.shape:
            shortcut = conv(4 * self.channels, 1, self.stride, name="shortcut")
            residual = BatchNorm()(shortcut(x), train, mask)
        return nn.relu(residual + y)


class PooledBlock(nn.Module):
    """A 3×3 convolution and max-pooling, which halve the image, or two convolutions and a shortcut.

    ReLU stands inside of the residual branch, and not after the sum (Page, "How to train your
    ResNet", 2018).
    """

    channels: int
    stride: int
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(self, x: Maps, train: bool, mask: Mask) -> Maps:
        conv = partial(_conv, self.channels, 3, 1, self.dtype)
        y = nn.relu(BatchNorm()(conv("conv1")(x), train, mask))
        if self.stride > 1:
            size = (self.stride, self.stride)
            return nn.max_pool(y, size, size, "SAME")  # rounds up, as the other blocks do
        return x + nn.relu(BatchNorm()(conv("conv2")(y), train, mask))


Block: TypeAlias = type[BasicBlock] | type[BottleneckBlock] | type[PooledBlock]


class Architecture(NamedTuple):
    """A kind of block, and how many of them each stage has.

    Each stage after the first halves the image and doubles the channels, by its first block.
    """

    block: Block
    stages: tuple[int, ...]


ARCHITECTURES = {
    "resnet8": Architecture(BasicBlock, (1, 1, 1)),
    "resnet9": Architecture(PooledBlock, (0, 2, 1, 2)),
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Architecture(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Architecture(BottleneckBlock, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """A network from images to outputs that also returns the pooled features before its last layer.

    It shows the outputs of its stages as "stage1", "stage2", ..., maps (n, H, W, C), and what its
    last layer gets as "features"; see `layers.run`.

    Attributes:
      stages: blocks of each stage.
      width: channels of the first stage.
      stem: one of `STEMS`.
      outputs: size of the last linear layer: classes, or the anchor dimension.
      block: one of the blocks above.
      dtype: the type of convolutions and activations.
      reduced: number of features that a linear layer with a ReLU makes of the pooled ones; 0 for
        no such layer.
    """

    stages: Sequence[int]
    width: int
    stem: str
    outputs: int
    block: Block = BasicBlock
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    reduced: int = 0

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the stages, whose outputs are maps."""
        return tuple(f"stage{stage + 1}" for stage in range(len(self.stages)))

    @nn.compact
    def __call__(
        self, images: Maps, train: bool = False, mask: Mask = None
    ) -> tuple[Float[Array, "n outputs"], Float[Array, "n features"]]:
        """Computes outputs and the features before the last layer.

        Args:
          images: values in [0, 1].
          train: whether batch norm uses the statistics of this batch, and updates its own.
          mask: 1 for real images, 0 for padding; needed in training.

        Returns:
          The outputs of the last layer, and the features before it, float32.
        """
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
            x = show(self, self.maps[stage], x)
        pooled = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        features = pooled
        if self.reduced:
            features = nn.relu(nn.Dense(self.reduced, name="reduction")(pooled))
        features = show(self, "features", features)
        return nn.Dense(self.outputs, name="head")(features), features


def build_model(model: ModelSettings, outputs: int, reduced: int = 0) -> ResNet:
    """Builds the network of the settings; nothing is drawn yet.

    Args:
      outputs: size of the last layer.
      reduced: features before it, if not as many as are pooled.
    """
    block, stages = ARCHITECTURES[model.arch]
    own = (stages, model.width, model.stem, outputs, block, jnp.dtype(model.precision))
    return ResNet(*own, reduced)


def init_model(model: ResNet, key: Key[Array, ""], image_shape: tuple[int, ...]) -> dict:
    """Draws fresh variables {"params", "batch_stats"} for images of shape (H, W, C)."""
    init = jax.jit(partial(model.init, train=True))  # one program: the eager one is slower
    return init(key, jnp.zeros((1, *image_shape)), mask=jnp.ones(1))
