"""③ Decodes embeddings to images, names to images, and takes ID images through the autoencoder.

Every kind of image is a stage of its own, so that a setting outdates the images that depend on it
and no others, and so that more kinds can be decoded in a finished run.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from dream_jax.config_tree import shown
from dream_jax.errors import UserError
from dream_jax.generator.cached import generator_of, vocabulary_of
from dream_jax.generator.folders import generator_folder, read_config
from dream_jax.generator.interface import DeepCache, Sampling, Vocabulary
from dream_jax.results import (
    FROM_TEXT,
    IMAGINED,
    OUTLIERS,
    Row,
    decode_stage,
    images_of_kind,
    kind_shown,
    sample_stage,
)
from dream_jax.rules import LONGEST_NAME
from dream_jax.run import ID_FIELDS, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage

if TYPE_CHECKING:
    from dream_jax.decoding.pictures import Order

GENERATOR = ("generator.path", "generator.revision", "generator.precision")
DECODING = (
    *ID_FIELDS,
    *GENERATOR,
    *("seed", "generator.scheduler", "decoding.name_suffixes", "decoding.image_size"),
    *("decoding.steps", "decoding.guidance", "decoding.batch_size", "decoding.vae_batch_size"),
    *("decoding.resize", "decoding.cache_interval", "decoding.cache_branch"),
)
OF_KIND = {
    **dict.fromkeys(OUTLIERS, ("decoding.prompts", "decoding.outliers")),
    "inliers": ("decoding.id_prompt", "inliers.images"),
    "by_name": ("decoding.id_prompt", "decoding.by_name"),
    "by_name_test": ("decoding.id_prompt", "decoding.by_name_test"),
}
TEXT = {"prompts": ("sampling.method",), "text": ("sampling.method", "sampling.scale")}
SAMPLED = {kind: sample_stage(kind) for kind in IMAGINED}


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns a stage for each kind of image that the rows need."""
    shown = {kind_shown(settings, row.extra) for row in rows}
    kinds = ["outliers", *(["by_name"] if settings.decoding.by_name else []), "by_name_test"]
    kinds += [kind for kind in ("bood", "inliers") if kind in shown]
    parts = ["test", *(["train"] if settings.classifier.round_trip_share else [])]
    method = settings.sampling.method
    of_text = {"outliers": TEXT[method]} if method in FROM_TEXT else {}
    return [
        *(_decoding(kind, of_text.get(kind, ())) for kind in kinds),
        *map(_round_trips, parts),
    ]


def _decoding(kind: str, of_text: tuple[str, ...]) -> Stage:
    """Returns the stage of a kind of images.

    Args:
      of_text: the fields that pictures of texts depend on; () for pictures of embeddings.
    """
    tokens = ("data.class_tokens",) if kind in SAMPLED else ()
    return Stage(
        decode_stage(kind),
        "decode",
        f"images/{kind}",
        (*DECODING, *OF_KIND[kind], *(of_text or tokens)),
        partial(decode, kind=kind),
        (SAMPLED[kind],) if kind in SAMPLED else (),
        check=partial(check, kind=kind),
    )


def _round_trips(part: str) -> Stage:
    reads = (*ID_FIELDS, *GENERATOR, "decoding.vae_batch_size")
    made = partial(round_trips, part=part)
    folder = f"images/round_trips_{part}"
    return Stage(f"round trips {part}", "decode", folder, reads, made, check=check_generator)


def check_generator(work: Work) -> None:
    """Loads the generator, which shows whether it can be read."""
    generator_of(work)


def check(work: Work, kind: str) -> None:
    """Checks steps, names of classes and prompts, then loads the generator."""
    from dream_jax.generator.deep_cache import check_branch  # flax: slow to import
    from dream_jax.generator.schedulers import check_steps  # diffusers: slow to import

    own, decoding = work.settings.generator, work.settings.decoding
    work.check_classes("decoding.name_suffixes", decoding.name_suffixes)
    folder = generator_folder(own.path, own.revision)
    check_steps(own.scheduler, read_config(folder, "scheduler"), decoding.steps)
    check_branch(decoding.cache_branch, read_config(folder, "unet"))
    _check_pictures(work, kind, vocabulary_of(work))
    generator_of(work)


def _check_pictures(work: Work, kind: str, vocabulary: Vocabulary) -> None:
    """Checks every prompt once, and that folders can have the names of the classes.

    Raises:
      UserError: a prompt is too long for the text encoder, or a name for a file system.
    """
    from dream_jax.decoding.pictures import plan_pictures
    from dream_jax.decoding.prompts import check_plain_prompt, prompt_with_placeholder

    order, decoding = _order(work, kind, None), work.settings.decoding
    templates = len(decoding.prompts) if kind in OUTLIERS else 1
    once = min(order.count, len(order.class_names) * templates)
    for picture in plan_pictures(replace(order, count=once), decoding):
        name, word = order.class_names[picture.label], order.words[picture.label]
        folder = picture.file_name.partition("/")[0]
        if (length := len(folder.encode())) > LONGEST_NAME:
            raise UserError(
                f"the name of class {shown(name)} is {length} bytes long; the folder of its images "
                f"can have a name of {LONGEST_NAME}: give it a shorter name by data.class_names"
            )
        with_embedding = kind in SAMPLED and order.text_noise is None
        fits = prompt_with_placeholder if with_embedding else check_plain_prompt
        fits(vocabulary, picture.prompt, word)


def decode(work: Work, kind: str) -> None:
    """Decodes the images of a kind that are not in the folder yet."""
    from dream_jax.decoding.pictures import decode_pictures, plan_pictures

    order = _order(work, kind, work.run.embeddings(kind) if kind in SAMPLED else None)
    pictures = plan_pictures(order, work.settings.decoding)
    decode_pictures(order, pictures, generator_of(work), *_sampling(work), work.folder)


def _sampling(work: Work) -> tuple[Sampling, tuple[int, int, int]]:
    """Returns how pictures are sampled, and the (H, W, C) of their files."""
    settings, decoding = work.settings, work.settings.decoding
    sampling = Sampling(
        settings.generator.scheduler,
        decoding.steps,
        decoding.guidance,
        decoding.batch_size,
        decoding.vae_batch_size,
        decoding.resize,
        cache=DeepCache(decoding.cache_interval, decoding.cache_branch),
    )
    return sampling, (decoding.image_size, decoding.image_size, settings.data.channels)


def decode_given(
    work: Work,
    embeddings: Float[np.ndarray, "n width"],
    labels: Int[np.ndarray, " n"],
    numbers: Int[np.ndarray, " n"],
    seed: int,
    prompt: str | None = None,
) -> Float[np.ndarray, "n H W C"]:
    """Returns images of embeddings that no stage sampled; `work` is that of stage "decode".

    Args:
      labels: of the classes whose words the embeddings stand for in the prompt.
      numbers, seed: see `decode_embeddings`.
      prompt: template with a {name} field; the first of `decoding.prompts` if not given.
    """
    from dream_jax.decoding.pictures import decode_embeddings

    words = _order(work, "outliers", None).words
    chosen = [words[label] for label in labels]
    prompt = work.settings.decoding.prompts[0] if prompt is None else prompt
    own = (generator_of(work), *_sampling(work))
    return decode_embeddings(embeddings, chosen, prompt, numbers.tolist(), seed, *own)


def _order(work: Work, kind: str, embeddings: np.ndarray | None) -> Order:
    from dream_jax.decoding.pictures import Order

    names, settings = work.train.class_names, work.settings
    words, noise = tuple(names), _text_noise(work)
    if kind in SAMPLED and noise is None:  # a token of the word gives way to the embedding
        words = tuple(settings.data.class_tokens.get(name, name) for name in names)
    count = images_of_kind(settings, kind)
    return Order(kind, count, names, words, settings.seed, embeddings, noise)


def _text_noise(work: Work) -> float | None:
    """Returns the scale of the noise where pictures are those of texts, and else None."""
    if "sampling.method" not in work.stage.reads:  # which no picture of an embedding depends on
        return None
    sampling = work.settings.sampling
    return sampling.scale if sampling.method == "text" else 0.0


def round_trips(work: Work, part: str) -> None:
    """Writes the images of a split after the autoencoder, (n, H, W, C) uint8, as `images.npy`."""
    from dream_jax.decoding.round_trips import write_round_trips

    generator = generator_of(work)
    generator.release()  # of what decoding keeps on the devices
    images = (work.train if part == "train" else work.test).images
    batch_size = work.settings.decoding.vae_batch_size
    write_round_trips(work.folder / "images.npy", generator, images, batch_size, part)
