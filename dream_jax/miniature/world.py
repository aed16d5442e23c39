"""The world of a miniature generator: captioned pictures of more than the ID classes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from dream_jax.data import glyphs, tfds
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.registry import check_available, load_id
from dream_jax.errors import UserError
from dream_jax.miniature.settings import EARLIER, GLYPHS, WorldSettings
from dream_jax.training.batches import epoch_index


class World(NamedTuple):
    """Captioned pictures, first those of the ID set, then the others.

    Attributes:
      images: bytes.
      labels: which name each image has.
      captions: of each name, all that an image of it may have; equally many of all names.
      id_images: the number of images of the ID set.
      id_classes: the number of its classes, which are the first names.
    """

    images: UInt8[np.ndarray, "n H W C"]
    labels: Int[np.ndarray, " n"]
    captions: list[tuple[str, ...]]
    id_images: int
    id_classes: int

    @property
    def all_captions(self) -> list[str]:
        """All captions, of one name after the other."""
        return [caption for captions in self.captions for caption in captions]


def build_world(config: WorldSettings, *earlier: WorldSettings) -> World:
    """Returns the training images of the ID set and those of the others, with their captions.

    Args:
      earlier: the settings of the world that is the others where `config.others` is EARLIER, and of
        those that it holds in its turn.

    Raises:
      UserError: there is no set of a name, or no class of one in `config.id_words`.
      DataUnavailable: its data are not on this machine.
    """
    for one in (config, *earlier):
        _check_available(one)
    rng = np.random.default_rng(20230913)  # the world is one, whatever the seed of the training
    id_set, _ = load_id(config.id, _options(config))
    captions = [
        _captions(config.id_prompts, name, *words)
        for name, words in _words(id_set.class_names, config).items()
    ]
    images, labels = id_set.images.pixels(slice(None)), id_set.labels
    if config.affine_versions:
        versions = range(config.affine_versions)
        moved = [glyphs.random_affine(image[..., 0], rng) for _ in versions for image in images]
        images, labels = np.stack(moved)[..., None], np.tile(labels, config.affine_versions)
    if config.others == EARLIER:
        before = build_world(*earlier)
        others, other_labels, other_captions = before.images, before.labels, before.captions
    elif config.others == GLYPHS:
        others, other_labels, names = _glyphs(config.image_size, rng)
        other_captions = [_captions(config.other_prompts, name) for name in names]
    else:
        found, other_labels, names = tfds.load_split(config.others, "train", _options(config))
        others = found.pixels(slice(None))
        other_captions = [_captions(config.other_prompts, name) for name in names]
    return World(
        np.concatenate([images, others]),
        np.concatenate([labels, len(id_set.class_names) + other_labels]).astype(np.int32),
        _equally_many([*captions, *other_captions]),
        len(images),
        len(id_set.class_names),
    )


def _options(config: WorldSettings) -> DataOptions:
    return DataOptions(image_size=config.image_size, channels=config.channels)


def _check_available(config: WorldSettings) -> None:
    """Raises UserError if a set is not on this machine, before any images are read."""
    for name in (config.id, config.others):
        if name not in (GLYPHS, EARLIER):
            check_available(name, _options(config))


def _glyphs(
    size: int, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "n H W 1"], Int[np.ndarray, " n"], list[str]]:
    """Draws all named glyphs, each under a small random affine map."""
    drawn = list(glyphs.world_glyphs())
    pictures = [
        glyphs.random_affine(glyphs.render_glyph(character, face, size=size), rng)
        for character, face, _ in tqdm(drawn, desc="rendering glyphs")
    ]
    numbers: dict[str, int] = {}
    labels = [numbers.setdefault(name, len(numbers)) for _, _, name in drawn]
    return np.stack(pictures)[..., None], np.asarray(labels), list(numbers)


def _words(names: Sequence[str], config: WorldSettings) -> dict[str, list[str]]:
    """Returns what captions call each ID class besides its name.

    Raises:
      UserError: `config.id_words` names no class, or two classes have one name.
    """
    given = config.id_words
    for name, word in given.items():
        if name not in names:
            raise UserError(
                f"config.world.id_words has {name!r}, which is no class of {config.id}; it has "
                f"{len(names)}, the first {', '.join(names[:5])}"
            )
        if word in names or list(given.values()).count(word) > 1:
            raise UserError(
                f"config.world.id_words calls {name!r} {word!r}, as another class of {config.id} "
                f"is called; each must have a word of its own"
            )
    return {name: [given[name]] if name in given else [] for name in names}


def _captions(prompts: Sequence[str], *names: str) -> tuple[str, ...]:
    return tuple(prompt.format(name=name) for name in names for prompt in prompts)


def _equally_many(captions: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Repeats the captions of each name, to their least common number."""
    count = np.lcm.reduce([len(own) for own in captions])
    return [own * int(count // len(own)) for own in captions]


def batch_indices(
    id_images: int, others: int, batch_size: int, step: int, seed: int
) -> Int[np.ndarray, " batch_size"]:
    """Returns the indices of a training step's pictures: one half of the ID set, one half others.

    Args:
      id_images: of the ID set, which come first.
      others: the number of the others.
    """
    half = batch_size // 2
    first = epoch_index(id_images, step, half, seed)
    second = id_images + epoch_index(others, step, batch_size - half, seed + 1)
    return np.concatenate([first, second])
