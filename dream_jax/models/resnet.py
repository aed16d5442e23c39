"""ResNets (He et al., 2016) with the stems for small images and for ImageNet."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from dream_jax.models.layers import show
from dream_jax.models.norm import BatchNorm
from dream_jax.models.pooling import Maps, max_pool
from dream_jax.programs import shared
from dream_jax.settings import ModelSettings

# small: 3×3; stride2: 3×3 with stride 2, a quarter of the work; imagenet: 7×7 stride 2, max-pool;
# whitened: see `Whitening`.
STEMS = ("small", "stride2", "imagenet", "whitened")
# What `Whitening` adds to a coordinate's variance. It damps the finest detail in colour, of a
# variance below 1e-4: most of that is noise of the coding, of which pictures that a generator
# decodes have another amount.
DAMPING = 1e-3
# The type of convolutions and activations. Parameters, statistics of batch norm, pooled features
# and outputs are always float32.
PRECISIONS = ("float32", "bfloat16")
# Images in [0, 1] are normalised to [-1, 1].
INPUT_SCALE = 2

Kernel: TypeAlias = Float[Array, "height width inputs features"]
Mask: TypeAlias = Float[Array, " n"] | None


def _conv(
    features: int, kernel: int, stride: int, dtype: jnp.dtype, name: str, **init: Any
) -> nn.Conv:
    size, padding = (kernel, kernel), kernel // 2
    return nn.Conv(features, size, stride, padding, use_bias=False, dtype=dtype, name=name, **init)


class Whitening(nn.Module):
    """Patches of 2×2 pixels in coordinates that are nearly white, and their negatives, rectified.

    The coordinates are a patch's discrete cosine transform over pixels and colours, scaled to unit
    variance. Of photographs they are nearly uncorrelated: by 0.10 at most in CIFAR-10. Jordan
    (arXiv 2404.00498, after Page) has the principal components of the training images in their
    place, which would be fitted before. Nothing is learned here but the statistics of batch norm.
    """

    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(self, x: Maps, train: bool, mask: Mask) -> Maps:
        kernel = patch_transform(x.shape[-1])
        layout = ("NHWC", "HWIO", "NHWC")
        # Neighbouring pixels differ by little, which a product of less precision would lose.
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=layout, precision="highest"
        )
        x = BatchNorm(epsilon=DAMPING, learned=False)(x, train, mask).astype(self.dtype)
        return nn.relu(jnp.concatenate([x, -x], -1))


def patch_transform(channels: int) -> Kernel:
    """Returns the discrete cosine transform of patches of 2×2 pixels as a convolution's kernel.

    It is orthonormal: (2, 2, channels, 4 · channels).
    """
    from scipy.fft import dctn  # slow to import, and configurations name this module's networks

    size = 4 * channels
    patches = np.eye(size, dtype=np.float32).reshape(size, 2, 2, channels)
    transformed = dctn(patches, axes=(1, 2, 3), norm="ortho")
    return jnp.asarray(transformed.reshape(2, 2, channels, size))


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
    """Two 3×3 convolutions without a shortcut; max-pooling after the first makes the image smaller.

    The convolutions begin as the identity on as many channels as they get (Jordan, "94% on CIFAR-10
    in 3.29 Seconds on a Single GPU", arXiv 2404.00498, section 3.2).
    """

    channels: int
    stride: int
    dtype: jnp.dtype = jnp.dtype(jnp.float32)

    @nn.compact
    def __call__(self, x: Maps, train: bool, mask: Mask) -> Maps:
        conv = partial(_conv, self.channels, 3, 1, self.dtype, kernel_init=identity)
        x = max_pool(conv("conv1")(x), self.stride, self.stride)
        x = nn.relu(BatchNorm()(x, train, mask))
        return nn.relu(BatchNorm()(conv("conv2")(x), train, mask))


def identity(key: Key[Array, ""], shape: tuple[int, ...], dtype: jnp.dtype) -> Kernel:
    """Draws a kernel whose first outputs are its inputs, as many as there are of both.

    The others are drawn as Flax's own.
    """
    height, width, inputs, _ = shape
    kernel = nn.initializers.lecun_normal()(key, shape, dtype)
    same = jnp.zeros((height, width, inputs, inputs), dtype)
    same = same.at[height // 2, width // 2].set(jnp.eye(inputs, dtype=dtype))
    return jnp.concatenate([same, kernel[..., inputs:]], -1)[..., : shape[-1]]


Block: TypeAlias = type[BasicBlock] | type[BottleneckBlock] | type[PooledBlock]


class Architecture(NamedTuple):
    """A kind of block, how many of them each stage has, and of how many channels.

    Each stage halves the image by its first block.

    Attributes:
      widths: channels of each stage in multiples of the first one's.
      halved: the first stage that halves the image.
    """

    block: Block
    stages: tuple[int, ...]
    widths: tuple[int, ...] = (1, 2, 4, 8)
    halved: int = 1


ARCHITECTURES = {
    "airbench": Architecture(PooledBlock, (1, 1, 1), widths=(1, 2, 2), halved=0),
    "resnet8": Architecture(BasicBlock, (1, 1, 1)),
    "resnet18": Architecture(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Architecture(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Architecture(BottleneckBlock, (3, 4, 6, 3)),
}


class ResNet(nn.Module):
    """A network from images to outputs that also returns the pooled features before its last layer.

    It shows the outputs of its stages as "stage1", "stage2", ..., maps (n, H, W, C), and what its
    last layer gets as "features"; see `layers.run`.

    Attributes:
      kind: its blocks and stages.
      width: channels of the first stage.
      stem: one of `STEMS`.
      outputs: size of the last linear layer: classes, or the anchor dimension.
      dtype: the type of convolutions and activations.
      reduced: number of features that a linear layer with a ReLU makes of the pooled ones; 0 for
        no such layer.
    """

    kind: Architecture
    width: int
    stem: str
    outputs: int
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    reduced: int = 0

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the stages, whose outputs are maps."""
        return tuple(f"stage{stage + 1}" for stage in range(len(self.kind.stages)))

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
        x = INPUT_SCALE * images - 1
        if self.stem == "whitened":
            x = Whitening(self.dtype, name="whitening")(x, train, mask)
        else:
            kernel, stride = {"small": (3, 1), "stride2": (3, 2), "imagenet": (7, 2)}[self.stem]
            x = _conv(self.width, kernel, stride, self.dtype, "stem")(x)
            x = nn.relu(BatchNorm()(x, train, mask))
        if self.stem == "imagenet":
            x = max_pool(x, 3, 2, before=1)
        sizes = zip(self.kind.stages, self.kind.widths, strict=False)
        for stage, (blocks, multiple) in enumerate(sizes):
            for block in range(blocks):
                stride = 2 if stage >= self.kind.halved and block == 0 else 1
                x = self.kind.block(multiple * self.width, stride, self.dtype)(x, train, mask)
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
    kind, dtype = ARCHITECTURES[model.arch], jnp.dtype(model.precision)
    return ResNet(kind, model.width, model.stem, outputs, dtype, reduced)


def init_model(model: ResNet, key: Key[Array, ""], image_shape: tuple[int, ...]) -> dict:
    """Draws fresh variables {"params", "batch_stats"} for images of shape (H, W, C)."""
    return _initial(model, tuple(image_shape))(key)


@shared
def _initial(model: ResNet, image_shape: tuple[int, ...]) -> Callable[[Key[Array, ""]], dict]:
    """Returns the program that draws variables: one, as the eager functions are slower."""

    def draw(key: Key[Array, ""]) -> Any:
        return model.init(key, jnp.zeros((1, *image_shape)), train=True, mask=jnp.ones(1))

    return jax.jit(draw)
