"""③ Which images are decoded, and their folders, continued where they were interrupted."""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from dream_jax.data.parts import (
    ImageWriter,
    part_folder,
    remove_partial,
    write_metadata,
    written_images,
)
from dream_jax.decoding.prompts import placeholder_ids, prompt_ids
from dream_jax.generator.load import Generator
from dream_jax.generator.stable_diffusion import decode
from dream_jax.keys import stage_key
from dream_jax.training import hosts
from dream_jax.training.devices import fold_keys


@dataclass(frozen=True)
class Picture:
    """One image to decode; `embedding` is the row in its class's embeddings, or None."""

    file_name: str
    label: int
    embedding: int | None
    prompt: str


def plan_pictures(
    config: ConfigDict, kind: str, count: int, class_names: Sequence[str], embeddings: int | None
) -> list[Picture]:
    """`count` pictures spread evenly over the classes; a pure function of the configuration.

    Args:
      kind: names the folder and the random draws: "outliers", "by_name", ...
      embeddings: how many embeddings each class has; None for images of plain class names.
    """
    chosen = [None] * count
    if embeddings:
        keys = _image_keys(config.seed, "embedding", kind, range(count))
        draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, embeddings))
        chosen = np.asarray(draw(keys)).tolist()
    pictures = []
    for index in range(count):
        label = index % len(class_names)
        turn = index // len(class_names)
        prompt = config.decoding.prompts[turn % len(config.decoding.prompts)]
        prompt = prompt if kind == "outliers" else config.decoding.id_prompt
        suffix = config.decoding.name_suffixes.get(class_names[label])
        if suffix:
            prompt = prompt.replace("{name}", f"{{name}} {suffix}")
        pictures.append(
            Picture(
                file_name=f"{_folder_name(class_names[label])}/{index:06d}.png",
                label=label,
                embedding=chosen[index],
                prompt=prompt,
            )
        )
    return pictures


def _image_keys(seed: int, purpose: str, kind: str, images: Sequence[int]) -> jax.Array:
    """A random key per image index, which no other image shares: (n,) keys."""
    return fold_keys(stage_key(seed, purpose, kind), np.asarray(images, np.int32))


def _folder_name(name: str) -> str:
    """A class name as one path component."""
    return re.sub(r"[^\w .-]", "_", name).strip(". ") or "_"


def write_pictures(
    config: ConfigDict,
    generator: Generator,
    kind: str,
    pictures: Sequence[Picture],
    class_names: Sequence[str],
    tokens: Sequence[str],
    embeddings: np.ndarray | None,
    folder: Path,
) -> None:
    """Decodes the pictures that are not in `folder` yet, then writes the parts' metadata.jsonl.

    Each process decodes its share of those that are missing, into a part of its own. Each image
    has a random key of its own, folded from its kind and index: it comes out the same whatever
    was decoded beside it, and by whichever process.

    Args:
      tokens: per class the word that the prompt says, whose token the embedding replaces.
      embeddings: (classes, n, width), or None for plain class names.
    """

    def find_missing() -> list[int]:
        remove_partial(folder)
        written = {name for names in written_images(folder).values() for name in names}
        return [i for i, p in enumerate(pictures) if p.file_name not in written]

    missing = hosts.from_main(find_missing)
    mine = missing[hosts.share_of(len(missing))]
    done = len(pictures) - len(missing)
    with (
        ImageWriter() as write,
        tqdm(total=done + len(mine), initial=done, unit="image", desc=f"decoding {kind}") as bar,
    ):
        part = part_folder(folder, hosts.index())
        position = 0
        images = _decoded(config, generator, kind, pictures, mine, class_names, tokens, embeddings)
        for batch in images:
            for image in batch:
                write(part / pictures[mine[position]].file_name, image)
                position += 1
            bar.update(len(batch))
    hosts.barrier(f"{kind} decoded")
    _list_parts(config, pictures, class_names, folder)


def _decoded(
    config: ConfigDict,
    generator: Generator,
    kind: str,
    pictures: Sequence[Picture],
    chosen: Sequence[int],
    class_names: Sequence[str],
    tokens: Sequence[str],
    embeddings: np.ndarray | None,
) -> Iterator[np.ndarray]:
    """The images of the chosen pictures, batch by batch; see `write_pictures`."""
    if not chosen:
        return iter(())

    @functools.cache  # as many texts as classes and prompts, however many the pictures
    def ids(label: int, prompt: str) -> np.ndarray:
        if embeddings is None:
            return prompt_ids(generator.tokenizer, prompt, class_names[label])
        word = tokens[label]
        return placeholder_ids(generator.tokenizer, prompt, word, word, len(generator.table))

    rows = [pictures[index] for index in chosen]
    vectors = None
    if embeddings is not None:
        vectors = embeddings[[p.label for p in rows], [p.embedding for p in rows]]
    size = config.decoding.image_size
    return decode(
        generator,
        np.stack([ids(p.label, p.prompt) for p in rows]),
        vectors,
        _image_keys(config.seed, "decode", kind, chosen),
        steps=config.decoding.steps,
        guidance=config.decoding.guidance,
        batch_size=config.decoding.batch_size,
        vae_batch_size=config.decoding.vae_batch_size,
        image_shape=(size, size, config.data.channels),
    )


def _list_parts(
    config: ConfigDict, pictures: Sequence[Picture], class_names: Sequence[str], folder: Path
) -> None:
    """Writes the lists of the parts, also of those that an earlier run with more processes made."""
    planned = {picture.file_name: picture for picture in pictures}
    parts = list(written_images(folder).items())
    for part, names in parts[hosts.index() :: hosts.count()]:
        chosen = [planned[name] for name in names if name in planned]
        write_metadata(
            part,
            [
                {
                    "file_name": picture.file_name,
                    "class": class_names[picture.label],
                    "label": picture.label,
                    "embedding": picture.embedding,
                    "seed": config.seed,
                    "prompt": picture.prompt,
                }
                for picture in sorted(chosen, key=lambda p: Path(p.file_name).name)
            ],
        )
