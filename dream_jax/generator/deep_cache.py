"""DeepCache: the UNet's deep features are computed at every n-th step and reused in between.

From one step to the next, what the deep layers hand to the shallow ones changes little. Where it is
reused, only conv_in, the first few down layers and the last few up layers are computed.

References:
  Ma, Fang and Wang, "DeepCache: Accelerating Diffusion Models for Free", CVPR 2024: uniform 1:N
  caching, section 3.2. A branch is a skip connection, counted from the shallowest.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from dream_jax.errors import UserError

Features = Float[Array, "n height width channels"]


def check_branch(branch: int, config: Mapping[str, Any]) -> None:
    """Checks that a UNet has a skip connection of a number.

    Args:
      config: of the UNet.

    Raises:
      UserError: it has fewer; names `decoding.cache_branch`.
    """
    count = len(config["block_out_channels"]) * (config["layers_per_block"] + 1)
    if branch >= count:
        raise UserError(
            f"config.decoding.cache_branch is {branch}; the generator's UNet has {count} skip "
            f"connections, so it must be at least 0 and at most {count - 1}"
        )


def unet_pass(
    unet: Any,
    sample: Float[Array, "n channels height width"],
    timesteps: Int[Array, " n"],
    text: Float[Array, "n positions width"],
    deep: Features | None,
    branch: int,
) -> tuple[Float[Array, "n channels height width"], Features]:
    """Returns a UNet's output and the features that came from below a branch.

    A method of a FlaxUNet2DConditionModel: `unet.apply(params, ..., method=unet_pass)`.

    Args:
      sample: the UNet's input.
      text: hidden states of the prompts.
      deep: features of an earlier step, used as they are; None computes the whole UNet.
      branch: see `DeepCache`.
    """
    time = unet.time_embedding(unet.time_proj(timesteps))
    hidden = unet.conv_in(jnp.transpose(sample, (0, 2, 3, 1)))
    down, up = _down_layers(unet), _up_layers(unet)
    skips = [hidden]
    for layer in down if deep is None else down[:branch]:
        hidden = layer(hidden, time, text)
        skips.append(hidden)
    if deep is None:
        if unet.mid_block is not None:
            hidden = unet.mid_block(hidden, time, text)
        for layer in up[: -branch - 1]:
            hidden = layer(hidden, time, text, skips.pop())
        deep = hidden
    hidden = deep
    for layer in up[-branch - 1 :]:
        hidden = layer(hidden, time, text, skips.pop())
    output = unet.conv_out(nn.silu(unet.conv_norm_out(hidden)))
    return jnp.transpose(output, (0, 3, 1, 2)), deep


def _down_layers(unet: Any) -> list[Callable[..., Features]]:
    """Returns the layers that make a skip connection each, after that of conv_in."""
    layers: list[Callable[..., Features]] = []
    for block in unet.down_blocks:
        layers += [functools.partial(_layer, *parts) for parts in _parts(block)]
        if block.add_downsample:
            layers.append(functools.partial(_resample, block.downsamplers_0))
    return layers


def _up_layers(unet: Any) -> list[Callable[..., Features]]:
    """Returns the layers that take a skip connection each, from the deepest on."""
    layers: list[Callable[..., Features]] = []
    for block in unet.up_blocks:
        *first, last = [functools.partial(_layer, *parts) for parts in _parts(block)]
        if block.add_upsample:
            last = functools.partial(last, resample=block.upsamplers_0)
        layers += [*first, last]
    return layers


def _parts(block: Any) -> list[tuple[Any, Any]]:
    """Returns (ResNet block, transformer or None) of each layer of a block."""
    attentions = getattr(block, "attentions", [None] * len(block.resnets))
    return list(zip(block.resnets, attentions, strict=True))


def _layer(
    resnet: Any,
    attention: Any,
    hidden: Features,
    time: Float[Array, "n embedding"],
    text: Float[Array, "n positions width"],
    skip: Features | None = None,
    resample: Any = None,
) -> Features:
    if skip is not None:
        hidden = jnp.concatenate((hidden, skip), axis=-1)
    hidden = resnet(hidden, time)
    if attention is not None:
        hidden = attention(hidden, text)
    return hidden if resample is None else resample(hidden)


def _resample(sampler: Any, hidden: Features, time: jax.Array, text: jax.Array) -> Features:
    return sampler(hidden)
