"""The settings of a miniature generator's training, and which of them fit each other.

`configs/generator_glyphs.py` explains every field. `generator_training.check` makes the settings
from a configuration.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

from dream_jax.errors import UserError
from dream_jax.models.resnet import ARCHITECTURES, PRECISIONS
from dream_jax.rules import (
    Rule,
    all_of,
    is_list,
    is_name,
    mapping,
    number,
    one_of,
    path,
    project,
    template,
    text,
    whole,
)
from dream_jax.settings import NEUTRAL, Count, NeutralCount, NotNegative, Positive, Seed, Share

UNET_NORM_GROUPS = 32  # which Flax's UNet fixes
# Others of a world that are no set of images: those that are drawn, and the whole world of the
# pipeline that the training starts from.
GLYPHS, EARLIER = "glyphs", "earlier"
# Fields that were added when there were trainings already, with the values that leave results as
# they were; a record that lacks them has these.
LATER: Mapping[str, Any] = {"start_from": "", "world.id_words": {}}


def _below_1() -> Rule:
    """Returns the rule of a number in [0, 1)."""
    share = number(0, 1).holds
    return Rule(lambda value: share(value) and value < 1, "a number of at least 0 and below 1")


def _one_of_each_level(holds: Any, allowed: str) -> Rule:
    """Returns the rule of a list that is not empty and whose values are all as `holds` says."""
    return Rule(lambda value: is_list(value) and len(value) > 0 and all(map(holds, value)), allowed)


Captions = Annotated[
    tuple[str, ...],
    all_of(template(), "a list of texts with {name} in each and no other braces", empty=False),
]
Batch = Annotated[int, whole(2, 65_536)]  # one half of the ID set, one half of the others
Layers = Annotated[int, whole(1, 64)]
BelowOne = Annotated[float, _below_1()]
Channels = Annotated[
    tuple[int, ...],
    _one_of_each_level(
        whole(1, 8192).holds, "a list with a whole number from 1 to 8192 for each level"
    ),
]


@dataclass(frozen=True)
class WorldSettings:
    image_size: Annotated[int, whole(28, 256)]
    channels: Annotated[int, one_of((1, 3))]
    id: Annotated[str, text("the name of an ID set", empty=False)]
    others: Annotated[
        str, text(f"{GLYPHS}, {EARLIER} or the name of a TFDS set with labels", empty=False)
    ]
    id_words: Annotated[
        dict[str, str], mapping("a word for each of some class names, or empty", is_name)
    ]
    id_prompts: Captions
    other_prompts: Captions
    affine_versions: Annotated[int, whole(0, 1000)]
    mirrored: bool


@dataclass(frozen=True)
class AdamWSettings:
    learning_rate: Positive
    final_learning_rate: NotNegative
    warmup: BelowOne
    b2: BelowOne
    weight_decay: NotNegative


@dataclass(frozen=True)
class PerceptualSettings:
    arch: Annotated[str, one_of(ARCHITECTURES)]
    width: Annotated[int, whole(1, 8192)]
    batch_size: Batch
    steps: Count
    optimizer: AdamWSettings


@dataclass(frozen=True)
class AutoencoderSettings:
    channels: Channels
    latent_channels: Annotated[int, whole(1, 64)]
    layers: Layers
    norm_groups: Count
    kl_weight: NotNegative
    perceptual_weight: NotNegative
    batch_size: Batch
    steps: Count
    optimizer: AdamWSettings


@dataclass(frozen=True)
class TextEncoderSettings:
    width: Annotated[int, whole(1, 8192)]
    layers: Layers
    heads: Count
    positions: Annotated[int, whole(3, 1024)]


@dataclass(frozen=True)
class UNetSettings:
    channels: Channels
    attention: Annotated[
        tuple[bool, ...],
        _one_of_each_level(
            lambda value: isinstance(value, bool), "a list with True or False for each level"
        ),
    ]
    layers: Layers
    heads: Count


@dataclass(frozen=True)
class DiffusionSettings:
    batch_size: Batch
    steps: Count
    unconditional: BelowOne
    average_decay: Share
    optimizer: AdamWSettings


@dataclass(frozen=True)
class TrainingSettings:
    """A whole configuration of a generator's training."""

    name: Annotated[str, text("a text", empty=False)]
    seed: Seed
    precision: Annotated[str, one_of(PRECISIONS)]
    # Its place leaves results as they are; records hold a fingerprint of what is there.
    start_from: Annotated[str, path("the folder of a finished pipeline, or empty"), NEUTRAL]
    world: WorldSettings
    perceptual: PerceptualSettings
    autoencoder: AutoencoderSettings
    text_encoder: TextEncoderSettings
    unet: UNetSettings
    diffusion: DiffusionSettings
    save_every: NeutralCount
    wandb: Annotated[str, project(), NEUTRAL]


def check_fit(settings: TrainingSettings) -> None:
    """Checks the settings that must fit each other for the networks to be built.

    Raises:
      UserError: names the first that does not fit, and what it must fit.
    """
    _check_world(settings.world)
    if settings.world.others == EARLIER and not settings.start_from:
        raise UserError(
            f"config.world.others is {EARLIER!r}; with an empty config.start_from it must be "
            f"{GLYPHS} or the name of a TFDS set with labels"
        )
    _check_sizes(settings)
    _check_norms(settings)
    _check_attention(settings)
    for name in ("perceptual", "autoencoder", "diffusion"):
        part = getattr(settings, name)
        if round(part.optimizer.warmup * part.steps) >= part.steps:
            raise UserError(
                f"config.{name}.optimizer.warmup is {part.optimizer.warmup}; of config.{name}.steps"
                f" = {part.steps} it must leave a step after the warm-up"
            )


def _check_world(world: WorldSettings) -> None:
    for field, value in (
        ("others", world.others == GLYPHS),
        ("affine_versions", world.affine_versions),
    ):
        if value and world.channels != 1:
            raise UserError(
                f"config.world.channels is {world.channels}; it must be 1 with "
                f"config.world.{field} = {getattr(world, field)!r}, which makes grey pictures"
            )


def _check_sizes(settings: TrainingSettings) -> None:
    """Each level but the last halves the picture: first those of the autoencoder, then the UNet."""
    size = settings.world.image_size
    halved = len(settings.autoencoder.channels) - 1
    again = len(settings.unet.channels) - 1
    latent_size, channels = size // 2**halved, settings.autoencoder.latent_channels
    if latent_size == channels:
        raise UserError(
            f"config.autoencoder.latent_channels is {channels}; it must be another number than the "
            f"height of the latents, by which diffusers' Flax autoencoder tells how they lie"
        )
    if size % 2**halved:
        raise UserError(
            f"config.world.image_size is {size}; it must be a multiple of {2**halved}, because "
            f"the {halved + 1} levels of config.autoencoder.channels halve it {halved} times"
        )
    if size % 2 ** (halved + again):
        raise UserError(
            f"config.world.image_size is {size}; it must be a multiple of {2 ** (halved + again)}, "
            f"because the levels of config.autoencoder.channels halve it {halved} times and those "
            f"of config.unet.channels {again} times"
        )


def _check_norms(settings: TrainingSettings) -> None:
    autoencoder, unet = settings.autoencoder, settings.unet
    if any(width % autoencoder.norm_groups for width in autoencoder.channels):
        raise UserError(
            f"config.autoencoder.norm_groups is {autoencoder.norm_groups}; it must divide each of "
            f"config.autoencoder.channels = {autoencoder.channels}"
        )
    if any(width % UNET_NORM_GROUPS for width in unet.channels):
        raise UserError(
            f"config.unet.channels is {unet.channels}; each must be a multiple of "
            f"{UNET_NORM_GROUPS}, the UNet's number of norm groups"
        )


def _check_attention(settings: TrainingSettings) -> None:
    unet, text_encoder = settings.unet, settings.text_encoder
    if len(unet.attention) != len(unet.channels):
        raise UserError(
            f"config.unet.attention is {unet.attention}; it must have {len(unet.channels)} values, "
            f"one for each level of config.unet.channels"
        )
    # Between the way down and the way up the UNet always attends, at the width of the last level.
    levels = zip(unet.channels, unet.attention, strict=True)
    attending = chain((width for width, attends in levels if attends), unet.channels[-1:])
    for width in attending:
        if width % unet.heads:
            raise UserError(
                f"config.unet.heads is {unet.heads}; it must divide {width} of "
                f"config.unet.channels = {unet.channels}, where the UNet attends to the text"
            )
    if text_encoder.width % text_encoder.heads:
        raise UserError(
            f"config.text_encoder.heads is {text_encoder.heads}; it must divide "
            f"config.text_encoder.width = {text_encoder.width}"
        )
