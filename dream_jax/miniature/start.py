"""The finished pipeline from which a second round of training starts."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from dream_jax.errors import UserError
from dream_jax.files import read_json
from dream_jax.generator.folders import REPOSITORY, check_folder, fingerprint, read_config
from dream_jax.generator.load import reading
from dream_jax.generator.weights import read_weights
from dream_jax.miniature.settings import TrainingSettings, WorldSettings
from dream_jax.settings import expand, value_of

SETTINGS = "training.json"  # the configuration that a pipeline was trained by, in its folder
# What both rounds have in common: the networks, and how the autoencoder was made, which is kept.
KEPT = (
    *("world.image_size", "world.channels"),
    *("perceptual", "autoencoder", "text_encoder", "unet"),
)
EMBEDDING = ("text_model", "embeddings", "token_embedding", "embedding")


@dataclass(frozen=True)
class Start:
    """A finished pipeline.

    Attributes:
      folder: of the pipeline.
      settings: of the training that made it.
      before: the pipeline that it started from itself, where its world is that one's too.
    """

    folder: Path
    settings: TrainingSettings
    before: Start | None = None

    @property
    def worlds(self) -> tuple[WorldSettings, ...]:
        """The settings of its world, and of those that this one holds."""
        return (self.settings.world, *(self.before.worlds if self.before else ()))

    def fingerprint(self) -> dict[str, Any]:
        """Returns what identifies the files of its parts."""
        return fingerprint(str(self.folder))


def find_start(path: str) -> Path:
    """Returns the folder of a finished pipeline, by a path that may be relative to the project's.

    Raises:
      UserError: there is no such folder, or it lacks what a pipeline of this project has.
    """
    folder = next((p for p in (Path(path), REPOSITORY / path) if p.is_dir()), None)
    if folder is None or not (folder / SETTINGS).is_file():
        fault = "there is no such folder" if folder is None else f"which lacks {SETTINGS}"
        raise UserError(
            f"config.start_from is {path!r}, {fault}; it must be a pipeline that "
            f"launch/train_generator.py has made"
        )
    with naming_start():
        check_folder(folder)
    return folder


@contextlib.contextmanager
def naming_start() -> Iterator[None]:
    """Makes the errors about a generator name the setting of the training."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace("generator.path", "config.start_from", 1)) from error


def check_kept(settings: TrainingSettings, start: Start) -> None:
    """Checks that the networks of both rounds are the same.

    Raises:
      UserError: names the first setting that differs.
    """
    for field in expand(KEPT, TrainingSettings):
        value, kept = value_of(settings, field), value_of(start.settings, field)
        if value != kept:
            raise UserError(
                f"config.{field} is {value!r}; it must be {kept!r}, as of the pipeline that "
                f"config.start_from = {settings.start_from!r} names"
            )


def kept_autoencoder(start: Start, vae: Any) -> tuple[dict[str, Any], float]:
    """Returns the parameters of the autoencoder, and the factor that scales its latents."""
    with naming_start():
        scaling = read_config(start.folder, "vae").get("scaling_factor")
    if not isinstance(scaling, float):
        raise UserError(f"config.start_from: {start.folder / 'vae'} has no scaling_factor")
    return _read(start, "vae", jax.eval_shape(vae.init_weights, jax.random.key(0))), scaling


def kept_unet(start: Start, unet: Any) -> dict[str, Any]:
    """Returns the parameters of the UNet."""
    return _read(start, "unet", jax.eval_shape(unet.init_weights, jax.random.key(0)))


def kept_text_encoder(
    start: Start, fresh: Mapping[str, Any], used: Collection[int], key: Array
) -> dict[str, Any]:
    """Returns the parameters of the text encoder, with rows of its table for further tokens.

    Args:
      fresh: parameters of the larger text encoder.
      used: ids of the tokens in the captions; the rows of those that are not new were learned.
      key: of the random rows.
    """
    from flax.traverse_util import flatten_dict, unflatten_dict

    shapes = flatten_dict(fresh)
    size, width = shapes[EMBEDDING].shape
    known = len(read_json(start.folder / "tokenizer" / "vocab.json", "get the pipeline again"))
    shapes[EMBEDDING] = jax.ShapeDtypeStruct((known, width), np.float32)
    params = flatten_dict(_read(start, "text_encoder", unflatten_dict(shapes)))
    table = params[EMBEDDING]
    words = [token for token in sorted(used) if token < known] or list(range(known))
    params[EMBEDDING] = np.concatenate([table, new_rows(table[words], size - known, key)])
    return unflatten_dict(params)


def new_rows(
    words: Float[np.ndarray, "words width"], count: int, key: Array
) -> Float[np.ndarray, "count width"]:
    """Draws first embeddings of new tokens, like those of the tokens that were learned.

    They have the mean and the deviation of the given rows in each dimension, so that a text with a
    new word begins as a text with an unknown one of the old words.

    References:
      Hewitt, "Initializing New Word Embeddings for Pretrained Language Models", 2021.
    """
    noise = np.asarray(jax.random.normal(key, (count, words.shape[1])))
    return (words.mean(0) + words.std(0) * noise).astype(words.dtype)


def _read(start: Start, part: str, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters of a part, float32."""
    with naming_start(), reading(start.folder, part):
        return read_weights(start.folder, part, shapes, np.dtype(np.float32))
