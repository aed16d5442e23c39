"""③ Which images are decoded, and their folders, continued where they were interrupted."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from dream_jax.generator.decode import decode
from dream_jax.generator.load import Generator
from dream_jax.generator.prompts import placeholder_ids, prompt_ids
from dream_jax.images import write_image, write_metadata
from dream_jax.keys import stage_key
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
        pictures.append(
            Picture(
                file_name=f"{_folder_name(class_names[label])}/{index:06d}.png",
                label=label,
                embedding=chosen[index],
                prompt=prompt if embeddings else config.decoding.id_prompt,
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
    """Decodes the pictures that are not in `folder` yet, then writes metadata.jsonl.

    Each image has a random key of its own, folded from its kind and index: it comes out the same
    whatever was decoded beside it.

    Args:
      tokens: per class the word that the prompt says, whose token the embedding replaces.
      embeddings: (classes, n, width), or None for plain class names.
    """
    missing = [i for i, p in enumerate(pictures) if not (folder / p.file_name).exists()]
    if missing:
        vocabulary = len(generator.table)
        rows, vectors = [], []
        for index in missing:
            picture = pictures[index]
            if picture.embedding is None:
                name = class_names[picture.label]
                rows.append(prompt_ids(generator.tokenizer, picture.prompt, name))
            else:
                word = tokens[picture.label]
                rows.append(
                    placeholder_ids(generator.tokenizer, picture.prompt, word, word, vocabulary)
                )
                vectors.append(embeddings[picture.label, picture.embedding])
        keys = _image_keys(config.seed, "decode", kind, missing)
        size = config.data.image_size
        images = decode(
            generator,
            np.stack(rows),
            np.stack(vectors) if vectors else None,
            keys,
            steps=config.decoding.steps,
            guidance=config.decoding.guidance,
            batch_size=config.decoding.batch_size,
            vae_batch_size=config.decoding.vae_batch_size,
            image_shape=(size, size, config.data.channels),
        )
        with tqdm(
            total=len(pictures),
            initial=len(pictures) - len(missing),
            unit="image",
            desc=f"decoding {kind}",
        ) as bar:
            position = 0
            for batch in images:
                for image in batch:
                    write_image(folder / pictures[missing[position]].file_name, image)
                    position += 1
                bar.update(len(batch))
    write_metadata(
        folder,
        [
            {
                "file_name": p.file_name,
                "class": class_names[p.label],
                "label": p.label,
                "embedding": p.embedding,
                "seed": config.seed,
                "prompt": p.prompt,
            }
            for p in pictures
        ],
    )
