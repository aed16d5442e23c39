"""Which pictures are decoded, and their folders, continued where they were interrupted."""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from dream_jax.data.parts import (
    ImageWriter,
    part_folder,
    write_metadata,
    written_images,
)
from dream_jax.decoding.prompts import plain_prompt, prompt_with_placeholder
from dream_jax.errors import UserError
from dream_jax.files import remove_partial
from dream_jax.generator.interface import Generator, Sampling
from dream_jax.generator.resizing import MIXED, WAYS, ways_of
from dream_jax.keys import stage_key
from dream_jax.results import OUTLIERS
from dream_jax.settings import DecodingSettings
from dream_jax.training import hosts
from dream_jax.training.devices import fold_keys
from dream_jax.training.finite import NotFinite, check_arrays


@dataclass(frozen=True)
class Order:
    """What pictures to decode: those of a kind.

    Attributes:
      kind: names the folder and the random draws: "outliers", "by_name", ...
      count: the number of pictures, spread evenly over the classes.
      class_names: of the ID set.
      words: for each class what prompts say: its name, or the word whose token stands for it.
      seed: of the run.
      embeddings: (classes, n, width) that take the place of the words' tokens; None for pictures
        of plain class names.
      text_noise: None, or whether outliers are pictures of texts: the prompts are shown as they
        are, with noise of this scale on the text encoder's output, and `embeddings` are not used.
    """

    kind: str
    count: int
    class_names: Sequence[str]
    words: Sequence[str]
    seed: int
    embeddings: Float[np.ndarray, "classes n width"] | None = None
    text_noise: float | None = None

    @property
    def from_text(self) -> bool:
        """Whether the prompts are shown as they are, without an embedding in a name's place."""
        return self.embeddings is None or self.text_noise is not None


@dataclass(frozen=True)
class Picture:
    """One picture; `embedding` is the index of its embedding in its class, or None."""

    file_name: str
    label: int
    embedding: int | None
    prompt: str


def plan_pictures(order: Order, decoding: DecodingSettings) -> list[Picture]:
    """Returns the pictures of an order; a pure function, the same in all processes."""
    chosen: list = [None] * order.count
    if order.embeddings is not None:
        most = order.embeddings.shape[1]
        keys = _image_keys(order, "embedding", range(order.count))
        draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, most))
        chosen = np.asarray(draw(keys)).tolist()
    templates = decoding.prompts if order.kind in OUTLIERS else (decoding.id_prompt,)
    pictures = []
    for index in range(order.count):
        label = index % len(order.class_names)
        turn = index // len(order.class_names)
        name, prompt = order.class_names[label], templates[turn % len(templates)]
        if suffix := decoding.name_suffixes.get(name):
            prompt = prompt.replace("{name}", f"{{name}} {suffix}")
        file_name = f"{_folder_name(name)}/{index:06d}.png"
        pictures.append(Picture(file_name, label, chosen[index], prompt))
    return pictures


def _image_keys(order: Order, purpose: str, indices: Sequence[int]) -> jax.Array:
    """Returns a random key for each picture, which no other picture shares: (n,) keys."""
    key = stage_key(order.seed, purpose, order.kind)
    return fold_keys(key, jnp.asarray(indices, jnp.int32))


def _folder_name(name: str) -> str:
    """Returns a class name as one component of a path."""
    return re.sub(r"[^\w .-]", "_", name).strip(". ") or "_"


def decode_pictures(
    order: Order,
    pictures: Sequence[Picture],
    generator: Generator,
    sampling: Sampling,
    image_shape: tuple[int, int, int],
    folder: Path,
) -> None:
    """Decodes the pictures that `folder` lacks, then writes a list of each part's pictures.

    Each process decodes its share of the missing ones, into a part of its own. A picture's random
    key is folded from its kind and index, so neither the other pictures of its batch nor the number
    of processes change it.

    Args:
      pictures: all of the order, see `plan_pictures`.
      image_shape: (H, W, C) of the files.

    Raises:
      UserError: a prompt does not hold the class's name, the embeddings are not of the generator's
        width or not finite, or a picture is not finite; those before it stay.
    """

    def find_missing() -> list[int]:
        remove_partial(folder)
        written = {name for names in written_images(folder).values() for name in names}
        return [i for i, picture in enumerate(pictures) if picture.file_name not in written]

    if order.embeddings is not None:
        of_classes = dict(zip(order.class_names, order.embeddings, strict=True))
        advice = "redo them with --stages=sample --overwrite"
        check_arrays(of_classes, f"embeddings of the {order.kind}", advice)
    missing = hosts.from_main(find_missing)
    mine = missing[hosts.share_of(len(missing))]
    done = len(pictures) - len(missing)
    title = f"decoding {order.kind}"
    part = part_folder(folder, hosts.index())
    paths = [part / pictures[number].file_name for number in mine]
    fault = None
    with (
        ImageWriter() as write,
        tqdm(total=done + len(mine), initial=done, unit="image", desc=title) as bar,
    ):
        following = iter(paths)
        try:
            for batch in _decoded(order, pictures, mine, generator, sampling, image_shape):
                for image in batch:
                    write(next(following), image)
                bar.update(len(batch))
        except NotFinite as error:  # raised below, when what came before it is written
            fault = error
    if fault is not None:
        raise UserError(f"{paths[fault.row]}: {fault.fault}") from fault
    hosts.barrier(f"{order.kind} decoded")
    _list_parts(order, pictures, sampling, folder)


def _decoded(
    order: Order,
    pictures: Sequence[Picture],
    chosen: Sequence[int],
    generator: Generator,
    sampling: Sampling,
    image_shape: tuple[int, int, int],
) -> Iterator[Float[np.ndarray, "batch H W C"]]:
    """Returns the images of the chosen pictures, batch by batch."""
    if not chosen:
        return iter(())
    prompt_of = plain_prompt if order.from_text else prompt_with_placeholder

    @functools.cache  # many pictures have the same text
    def ids(label: int, prompt: str) -> np.ndarray:
        return prompt_of(generator, prompt, order.words[label])

    wanted = [pictures[index] for index in chosen]
    vectors = None
    if order.embeddings is not None and not order.from_text:
        vectors = np.stack([order.embeddings[p.label, p.embedding] for p in wanted])
    return generator.decode(
        np.stack([ids(picture.label, picture.prompt) for picture in wanted]),
        vectors,
        _image_keys(order, "decode", chosen),
        replace(sampling, text_noise=order.text_noise or 0.0),
        image_shape,
    )


def _list_parts(
    order: Order, pictures: Sequence[Picture], sampling: Sampling, folder: Path
) -> None:
    """Writes the list of every part, including those of an earlier run with more processes.

    Where pictures are resized in several ways, it tells the way of each.
    """
    planned = {picture.file_name: picture for picture in pictures}
    ways: dict[str, dict[str, str]] = {}
    if sampling.resize == MIXED:
        keys = jax.random.key_data(_image_keys(order, "decode", range(len(pictures))))
        names = [[*WAYS][way] for way in np.asarray(ways_of(keys))]
        ways = {p.file_name: {"resize": name} for p, name in zip(pictures, names, strict=True)}
    parts = list(written_images(folder).items())
    for part, names in parts[hosts.index() :: hosts.count()]:
        found = [planned[name] for name in names if name in planned]
        entries = [
            {
                "file_name": picture.file_name,
                "class": order.class_names[picture.label],
                "label": picture.label,
                "embedding": picture.embedding,
                "seed": order.seed,
                "prompt": picture.prompt,
                **ways.get(picture.file_name, {}),
            }
            for picture in sorted(found, key=lambda p: Path(p.file_name).name)
        ]
        write_metadata(part, entries)


def decode_embeddings(
    embeddings: Float[np.ndarray, "n width"],
    words: Sequence[str],
    prompt: str,
    numbers: Sequence[int],
    seed: int,
    generator: Generator,
    sampling: Sampling,
    image_shape: tuple[int, int, int],
) -> Float[np.ndarray, "n H W C"]:
    """Returns images in [0, 1] of any embeddings.

    Args:
      words: what each embedding stands for in the prompt.
      prompt: template with a {name} field.
      numbers: of the noise that each image starts from; equal numbers, equal noise.
      seed: of the noise.
      image_shape: (H, W, C) of the images.

    Raises:
      UserError: the prompt does not hold a word, or the width is not the generator's.
      NotFinite: an image is not finite.
    """
    ids = np.stack([prompt_with_placeholder(generator, prompt, word) for word in words])
    keys = fold_keys(stage_key(seed, "decode", "given"), jnp.asarray(numbers, jnp.int32))
    batches = generator.decode(ids, np.asarray(embeddings), keys, sampling, image_shape)
    return np.concatenate(list(batches))
