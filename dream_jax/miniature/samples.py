"""A sheet of sample images of a miniature generator, for its model card."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from dream_jax.generator.interface import Sampling
from dream_jax.generator.load import load_generator
from dream_jax.keys import stage_key

SAMPLING = Sampling("dpmsolver++", steps=20, guidance=3.0, batch_size=60, vae_batch_size=60)
SCALE = 2  # pixels of the sheet for one of an image
LABEL = 190  # width of the names


def sample_sheet(folder: Path, prompts: Sequence[str], path: Path, per_prompt: int = 6) -> None:
    """Writes a PNG of samples of prompts, the first half of them on the left.

    Args:
      folder: the pipeline folder.
      per_prompt: samples of each prompt.
    """
    generator = load_generator(str(folder))
    ids = [generator.prompt_ids(generator.name_ids(prompt)) for prompt in prompts]
    keys = jax.random.split(stage_key(0, "samples"), len(ids) * per_prompt)
    batches = generator.decode(np.repeat(ids, per_prompt, 0), None, keys, SAMPLING)
    images = np.concatenate(list(batches))
    samples = images.reshape(len(prompts), per_prompt, *images.shape[1:])
    _draw(prompts, samples).save(path)


def _draw(names: Sequence[str], samples: Float[np.ndarray, "names per_name H W C"]) -> Image.Image:
    """Draws the names with their samples in two halves."""
    _, per_name, height, width, _ = samples.shape
    lines = -(-len(names) // 2)
    cell = height * SCALE + 4
    half = LABEL + per_name * cell + 16
    sheet = Image.new("RGB", (2 * half, lines * cell), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, name in enumerate(names):
        left, top = index // lines * half, index % lines * cell
        draw.text((left + LABEL - 10, top + cell // 2), name, fill="black", font=font, anchor="rm")
        for column, image in enumerate(samples[index]):
            tile = Image.fromarray((image * 255).astype(np.uint8).squeeze())
            tile = tile.resize((width * SCALE, height * SCALE), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + LABEL + column * cell, top))
    return sheet
