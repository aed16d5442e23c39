"""The batches of a classifier's training: ID images, and what the training shows with them."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int

from dream_jax.data.image_sets import ImageSet
from dream_jax.data.images import Images, Patches, for_training
from dream_jax.detector.extra_images import ExtraImages
from dream_jax.detector.recipe import Recipe
from dream_jax.training.batches import Batches, Column, Stacked, epoch_index


def make_batches(recipe: Recipe, train: ImageSet, extra: ExtraImages | None) -> Batches:
    """Returns the batches: ID images, and after them the extra ones if the training uses any.

    Of the ID images a share `by_name_share` was sampled by name, and of the rest a share
    `round_trip_share` is shown after a round trip: the classifier meets the decoder's traces on
    ID images too, and cannot take them for the mark of an outlier.
    """
    size, seed, real_count = recipe.batch_size, recipe.seed, len(train)
    if extra is None:
        table = _table(recipe, (train.images, train.labels, 1))
        return Batches(
            table, lambda step: epoch_index(real_count, step, size, seed), recipe.workers
        )

    parts: list[tuple[Images, np.ndarray, int]] = [(train.images, train.labels, 1)]
    if extra.round_trips is not None:
        parts.append((extra.round_trips, train.labels, 1))
    by_name = 0
    if extra.by_name is not None and extra.by_name_labels is not None:
        by_name = round(size * recipe.by_name_share)
        parts += [(extra.by_name, extra.by_name_labels, 1)] if by_name else []
    first_extra = sum(len(images) for images, _, _ in parts)
    extra_count, is_id = sum(map(len, extra.images)), int(extra.labels is not None)
    labels = np.zeros(extra_count, np.int32) if extra.labels is None else extra.labels
    starts = np.cumsum([0, *map(len, extra.images)])
    for images, start in zip(extra.images, starts, strict=False):
        parts.append((images, labels[start : start + len(images)], is_id))
    # `rows` goes to the workers, and must not take the images along.
    round_trips = extra.round_trips is not None
    by_name_count = len(extra.by_name) if by_name and extra.by_name is not None else 0

    def rows(step: int) -> Int[np.ndarray, " batch"]:
        real = epoch_index(real_count, step, size - by_name, seed)
        if round_trips:
            rng = np.random.default_rng((seed, 1, step))
            real = real + real_count * (rng.random(len(real)) < recipe.round_trip_share)
        chosen = [real]
        if by_name:
            index = epoch_index(by_name_count, step, by_name, seed + 1)
            chosen.append(first_extra - by_name_count + index)
        index = epoch_index(extra_count, step, recipe.extra_batch_size, seed + 2)
        chosen.append(first_extra + index)
        return np.concatenate(chosen)

    return Batches(_table(recipe, *parts), rows, recipe.workers)


def _table(
    recipe: Recipe, *parts: tuple[Images, np.ndarray, int]
) -> dict[str, np.ndarray | Column]:
    """Returns images, their labels and whether they are ID, of several sets one after the other."""
    images, labels, is_id = zip(*parts, strict=True)
    size = images[0].size

    def column(index: int) -> Column:
        part, seed = images[index], recipe.seed + index
        if recipe.outlier_view == "patches" and not is_id[index]:
            # Worker processes are not sent the pixels, but read the files.
            return Patches(replace(part, held=None) if recipe.workers else part, size, seed)
        return for_training(part, recipe.augment, seed)

    return {
        "images": Stacked([column(index) for index in range(len(parts))]),
        "labels": np.concatenate(labels),
        "is_id": np.repeat(np.float32(is_id), [len(part) for part in images]),
    }
