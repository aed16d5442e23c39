"""Training of a miniature generator, part by part, each continued where it was interrupted."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from diffusers import FlaxAutoencoderKL, FlaxUNet2DConditionModel
from jaxtyping import Float, Shaped
from transformers import CLIPTokenizer, FlaxCLIPTextModel

from dream_jax.data.augment import to_float
from dream_jax.errors import UserError
from dream_jax.files import write_json
from dream_jax.keys import stage_key
from dream_jax.miniature.networks import (
    build_autoencoder,
    build_text_encoder,
    build_unet,
    initial_parameters,
    save_pipeline,
)
from dream_jax.miniature.objectives import (
    FeatureMaps,
    autoencoder_objective,
    classification_objective,
    diffusion_objective,
    feature_maps,
    to_model_range,
)
from dream_jax.miniature.samples import sample_sheet
from dream_jax.miniature.settings import (
    EARLIER,
    AutoencoderSettings,
    DiffusionSettings,
    PerceptualSettings,
    TrainingSettings,
)
from dream_jax.miniature.start import (
    SETTINGS,
    Start,
    kept_autoencoder,
    kept_text_encoder,
    kept_unet,
)
from dream_jax.miniature.tokenizer import train_tokenizer
from dream_jax.miniature.world import World, batch_indices, build_world
from dream_jax.models.resnet import ARCHITECTURES, ResNet, init_model
from dream_jax.settings import as_dict
from dream_jax.training import devices
from dream_jax.training.batches import Batches
from dream_jax.training.checkpoints import Checkpoints
from dream_jax.training.curves import Curves
from dream_jax.training.loop import Objective, TrainState, create_state, fit
from dream_jax.training.optimizers import adamw, adamw_rate


def train_generator(settings: TrainingSettings, workdir: Path, start: Start | None = None) -> Path:
    """Trains an autoencoder, then a text encoder and a UNet; returns the pipeline's folder.

    Where the autoencoder has a perceptual loss, the classifier for it is trained first. Where the
    training starts from a finished pipeline, it has that one's autoencoder.

    Args:
      settings: checked, see `generator_training.check`.
      workdir: holds the checkpoints of the trainings, and the folder `pipeline` at the end.
      start: the pipeline that `settings.start_from` names.

    Raises:
      UserError: a caption is longer than the text encoder's positions, a loss is not finite, or a
        file cannot be read.
    """
    world = build_world(settings.world, *(start.worlds if start else ()))
    print(
        f"world: {world.id_images} images of {settings.world.id}, "
        f"{len(world.images) - world.id_images} of {settings.world.others}, "
        f"{len(world.all_captions)} captions"
    )
    tokenizer = _tokenizer(settings, world, workdir / "tokenizer", start)
    vae = _autoencoder(settings)
    if start is None:
        vae_params, scaling = _train_autoencoder(settings, world, workdir), None
    else:
        vae_params, scaling = kept_autoencoder(start, vae)
    latents = _encode(world, vae, vae_params, mirrored=settings.world.mirrored)
    scaling = _scaling(latents) if scaling is None else scaling
    latents *= scaling

    text_encoder = build_text_encoder(settings.text_encoder, tokenizer, settings.seed)
    unet = _unet(settings, latents.shape[-1], settings.precision)
    ids = np.stack([_prompt_ids(tokenizer, list(captions)) for captions in world.captions])
    empty = _prompt_ids(tokenizer, [""])[0]
    objective = diffusion_objective(
        unet, text_encoder, ids, empty, settings.diffusion.unconditional
    )
    params = _first_params(settings, text_encoder, unet, ids, start)
    average = _train_diffusion(settings, world, latents, params, objective, workdir)

    partial = workdir / "pipeline.partial"
    shutil.rmtree(partial, ignore_errors=True)
    params = {"vae": vae_params, **average}
    unet = _unet(settings, latents.shape[-1])
    save_pipeline(partial, _autoencoder(settings, scaling), text_encoder, tokenizer, unet, params)
    write_json(partial / SETTINGS, as_dict(settings, TrainingSettings))
    sample_sheet(partial, _names_shown(world), partial / "samples.png")
    return _put_in_place(partial, workdir / "pipeline")


def _tokenizer(
    settings: TrainingSettings, world: World, folder: Path, start: Start | None
) -> CLIPTokenizer:
    """Returns the tokenizer of a world's captions, which has the tokens of an earlier one first.

    Raises:
      UserError: it cannot be read, or the text encoder would see only a part of a caption.
    """
    captions, positions = world.all_captions, settings.text_encoder.positions
    kept: list[str] = []
    if settings.world.others == EARLIER:
        kept = [caption for own in world.captions[world.id_classes :] for caption in own]
    earlier = None if start is None else start.folder / "tokenizer"
    tokenizer = train_tokenizer(captions, positions, folder, earlier, kept)
    print(f"tokenizer: {len(tokenizer)} tokens")
    _check_lengths(tokenizer, captions, positions)
    return tokenizer


def _first_params(
    settings: TrainingSettings,
    text_encoder: FlaxCLIPTextModel,
    unet: FlaxUNet2DConditionModel,
    ids: Shaped[np.ndarray, "names captions positions"],
    start: Start | None,
) -> dict[str, Any]:
    """Returns the parameters of text encoder and UNet that the training begins with."""
    if start is None:
        key = stage_key(settings.seed, "diffusion")
        return {"text_encoder": text_encoder.params, "unet": initial_parameters(unet, key)}
    key = stage_key(settings.seed, "new tokens")
    text = kept_text_encoder(start, text_encoder.params, set(ids.ravel().tolist()), key)
    return {"text_encoder": text, "unet": kept_unet(start, unet)}


def _autoencoder(
    settings: TrainingSettings, scaling: float = 1.0, precision: str = "float32"
) -> FlaxAutoencoderKL:
    world = settings.world
    shape = world.image_size, world.channels
    return build_autoencoder(settings.autoencoder, *shape, scaling, precision)


def _unet(
    settings: TrainingSettings, latent_size: int, precision: str = "float32"
) -> FlaxUNet2DConditionModel:
    channels, width = settings.autoencoder.latent_channels, settings.text_encoder.width
    return build_unet(settings.unet, width, latent_size, channels, precision)


def _names_shown(world: World) -> list[str]:
    """Returns a caption of each ID class, and of ten other names spread over the world."""
    first = [captions[0] for captions in world.captions]
    others = first[world.id_classes :]
    return first[: world.id_classes] + others[:: max(1, len(others) // 10)][:10]


def _check_lengths(tokenizer: CLIPTokenizer, captions: list[str], positions: int) -> None:
    """Raises UserError if the text encoder would see only a part of a caption."""
    distinct = sorted(set(captions))
    lengths = [len(ids) for ids in tokenizer(distinct).input_ids]
    if max(lengths) > positions:
        longest = distinct[lengths.index(max(lengths))]
        raise UserError(
            f"config.text_encoder.positions is {positions}; it must be at least {max(lengths)}, "
            f"the tokens of the caption {longest!r} with its start and end"
        )


def _scaling(latents: Float[np.ndarray, "n channels height width"]) -> float:
    """Returns 1 / standard deviation of the latents."""
    deviation = latents.std()
    if not (np.isfinite(deviation) and deviation > 1e-6):
        raise UserError(
            f"autoencoder: its latents have a standard deviation of {deviation:g}, so they tell "
            f"nothing about the pictures; lower config.autoencoder.kl_weight"
        )
    return float(1 / deviation)


def _put_in_place(partial: Path, folder: Path) -> Path:
    """Renames a folder once all of it is on the disk, in place of one that is there."""
    for path in (*sorted(partial.rglob("*")), partial):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    shutil.rmtree(folder, ignore_errors=True)
    return partial.rename(folder)


def _prompt_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Shaped[np.ndarray, "n positions"]:
    return np.asarray(tokenizer(texts, padding="max_length", truncation=True).input_ids)


def _batches(
    config: TrainingSettings, world: World, table: Mapping[str, np.ndarray], batch_size: int
) -> Batches:
    """Returns batches of a table with an entry for each picture of the world."""
    # Numbers instead of the world: what chooses the batches must hold on to no pictures.
    first, others, seed = world.id_images, len(world.images) - world.id_images, config.seed
    return Batches(table, lambda step: batch_indices(first, others, batch_size, step, seed))


def _fit(
    config: TrainingSettings,
    part: str,
    world: World,
    workdir: Path,
    objective: Objective,
    variables: dict[str, Any],
    table: Mapping[str, np.ndarray],
    average_decay: float | None = None,
) -> TrainState:
    """Trains a part, by its name in the settings, to the end; its folder has the same name."""
    settings, folder = getattr(config, part), workdir / part
    optimizer = adamw(settings.optimizer, settings.steps)
    key, averaged = stage_key(config.seed, part), average_decay is not None
    with Checkpoints(folder) as checkpoints:
        return fit(
            objective,
            create_state(variables, optimizer, key, average=averaged),
            _batches(config, world, table, settings.batch_size),
            optimizer,
            steps=settings.steps,
            checkpoints=checkpoints,
            save_every=config.save_every,
            progress=part,
            curves=_curves(config, settings, folder),
            average_decay=average_decay,
        )


def _train_perceptual(config: TrainingSettings, world: World, workdir: Path) -> FeatureMaps:
    """Returns the feature maps of a classifier of the world's names."""
    settings = config.perceptual
    kind = ARCHITECTURES[settings.arch]
    dtype = jnp.dtype(config.precision)
    network = ResNet(kind, settings.width, "small", len(world.captions), dtype)
    variables = init_model(network, stage_key(config.seed, "perceptual"), world.images.shape[1:])
    table = {"images": world.images, "labels": world.labels}
    objective = classification_objective(network)
    state = _fit(config, "perceptual", world, workdir, objective, variables, table)
    return feature_maps(network, {"params": state.params, **state.model_state})


def _train_autoencoder(config: TrainingSettings, world: World, workdir: Path) -> dict[str, Any]:
    """Returns the parameters of the autoencoder."""
    settings = config.autoencoder
    vae = _autoencoder(config, precision=config.precision)
    maps = _train_perceptual(config, world, workdir) if settings.perceptual_weight else None
    objective = autoencoder_objective(vae, settings.kl_weight, maps, settings.perceptual_weight)
    params = initial_parameters(vae, stage_key(config.seed, "autoencoder"))
    table = {"images": world.images}
    return _fit(config, "autoencoder", world, workdir, objective, {"params": params}, table).params


def _curves(
    config: TrainingSettings,
    part: PerceptualSettings | AutoencoderSettings | DiffusionSettings,
    folder: Path,
) -> Curves:
    """Returns where the metrics of a part go."""
    rate = adamw_rate(part.optimizer, part.steps)
    return Curves(folder, learning_rate=rate, project=config.wandb)


def _encode(
    world: World, vae: FlaxAutoencoderKL, params: Mapping[str, Any], *, mirrored: bool
) -> Float[np.ndarray, "n versions channels height width"]:
    """Returns the latents of the world's pictures, in the autoencoder's own scale.

    Args:
      mirrored: whether a second version of each is that of the mirror image.
    """

    def encode(params, batch):
        pixels = to_model_range(to_float(batch["images"]))
        versions = [pixels, pixels[..., ::-1]] if mirrored else [pixels]
        means = [
            vae.apply({"params": params}, version, method=vae.encode).latent_dist.mean
            for version in versions
        ]
        return jnp.transpose(jnp.stack(means, 1), (0, 1, 4, 2, 3))

    encoded = devices.MappedFunction(encode, params, 256)
    return encoded({"images": world.images}, "encoding the world")


def _train_diffusion(
    config: TrainingSettings,
    world: World,
    latents: Float[np.ndarray, "n versions channels height width"],
    params: dict[str, Any],
    objective: Objective,
    workdir: Path,
) -> dict[str, Any]:
    """Returns the averaged parameters of text encoder and UNet, which learn together.

    Args:
      params: those that the training begins with.
    """
    table = {"latents": latents, "labels": world.labels}
    own = objective, {"params": params}, table, config.diffusion.average_decay
    return _fit(config, "diffusion", world, workdir, *own).average
