"""A sheet of sample images of the miniature generator, for its model card."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from dream_jax.generator.interface import Sampling
from dream_jax.generator.load import load_generator
from dream_jax.keys import stage_key
from dream_jax.miniature.settings import WorldSettings

SYMBOLS = (
    "black chess queen",
    "white chess knight",
    "rightwards arrow",
    "black star",
    "greek small letter omega",
    "cyrillic small letter zhe",
    "black square",
    "infinity",
    "black spade suit",
    "hebrew letter alef",
)
SAMPLING = Sampling("dpmsolver++", steps=20, guidance=3.0, batch_size=60, vae_batch_size=60)
SCALE = 2  # pixels of the sheet for one of an image
LABEL = 190  # width of the names


def sample_sheet(
    folder: Path, world: WorldSettings, class_names: Sequence[str], path: Path, per_prompt: int = 6
) -> None:
    """Writes a PNG of samples: class names in the left half, symbols in the right.

    Args:
      folder: the pipeline folder.
      world: with `digit_prompt` and `glyph_prompt`.
      class_names: of the digits.
      per_prompt: samples of each name.
    """
    generator = load_generator(str(folder))
    names = [*class_names, *SYMBOLS]
    prompts = [world.digit_prompt.format(name=name) for name in class_names]
    prompts += [world.glyph_prompt.format(name=name) for name in SYMBOLS]
    ids = [generator.prompt_ids(generator.name_ids(prompt)) for prompt in prompts]
    keys = jax.random.split(stage_key(0, "samples"), len(ids) * per_prompt)
    batches = generator.decode(np.repeat(ids, per_prompt, 0), None, keys, SAMPLING)
    images = np.concatenate(list(batches))[..., 0]
    samples = images.reshape(len(names), per_prompt, *images.shape[1:])
    _draw(names, samples, len(class_names)).save(path)


def _draw(
    names: Sequence[str], samples: Float[np.ndarray, "names per_name H W"], lines: int
) -> Image.Image:
    """Draws the names with their samples, `lines` of them one below the other, then a new half."""
    _, per_name, height, width = samples.shape
    cell = height * SCALE + 4
    half = LABEL + per_name * cell + 16
    sheet = Image.new("L", (2 * half, lines * cell), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, name in enumerate(names):
        left, top = index // lines * half, index % lines * cell
        draw.text((left + LABEL - 10, top + cell // 2), name, fill=0, font=font, anchor="rm")
        for column, image in enumerate(samples[index]):
            tile = Image.fromarray((image * 255).astype(np.uint8))
            tile = tile.resize((width * SCALE, height * SCALE), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + LABEL + column * cell, top))
    return sheet
