"""A sheet of sample images of the miniature generator, for its model card."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw, ImageFont

from dream_jax.decoding.prompts import plain_prompt
from dream_jax.generator.interface import Sampling
from dream_jax.generator.load import load_generator
from dream_jax.keys import stage_key

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


def sample_sheet(
    folder: Path, world: ConfigDict, names: Sequence[str], path: Path, per_prompt: int = 6
) -> None:
    """Writes a PNG: a row per prompt with `per_prompt` samples, class names left, symbols right.

    Args:
      folder: the pipeline folder.
      world: with `digit_prompt` and `glyph_prompt`.
      names: the classes' names.
    """
    generator = load_generator(str(folder))
    prompts = [(world.digit_prompt, name) for name in names]
    prompts += [(world.glyph_prompt, name) for name in SYMBOLS]
    ids = np.repeat(
        [plain_prompt(generator, prompt, name) for prompt, name in prompts], per_prompt, 0
    )
    keys = jax.random.split(stage_key(0, "samples"), len(ids))
    batches = generator.decode(ids, None, keys, Sampling("dpmsolver++", 20, 3.0, 60, 60))
    images = np.concatenate(list(batches))[..., 0].reshape(len(prompts), per_prompt, 32, 32)
    scale, label, rows = 2, 190, len(names)
    cell = 32 * scale + 4
    width = label + per_prompt * cell + 16
    sheet = Image.new("L", (2 * width, rows * cell), 255)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, (_, name) in enumerate(prompts):
        left, top = index // rows * width, index % rows * cell
        draw.text((left + label - 10, top + cell // 2), name, fill=0, font=font, anchor="rm")
        for column, image in enumerate(images[index]):
            tile = Image.fromarray((image * 255).astype(np.uint8))
            tile = tile.resize((32 * scale, 32 * scale), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + label + column * cell, top))
    sheet.save(path)
