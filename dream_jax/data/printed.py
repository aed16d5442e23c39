"""Images of printed characters from matplotlib's fonts, white on black."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dream_jax.data.framing import resize, set_rng, with_channels
from dream_jax.data.glyphs import random_affine, render_glyph
from dream_jax.data.image_sets import DataOptions, ImageSet
from dream_jax.data.images import Images

FRAME = 32
FONT_PIXELS = 24  # capitals are 18 pixels tall, MNIST's digits 20; the widest W just fits


def printed(
    name: str,
    glyphs: list[tuple[str, str]],
    render: Callable[[str, str], np.ndarray],
    options: DataOptions,
) -> ImageSet:
    """Draws `options.count` of the (character, font) pairs, each once before any comes again."""
    rng = set_rng(name, options.seed)
    rounds = -(-options.count // len(glyphs))
    order = np.concatenate([rng.permutation(len(glyphs)) for _ in range(rounds)])
    images = [random_affine(render(*glyphs[row]), rng) for row in order[: options.count]]
    values = resize(np.stack(images), options.image_size) / 255
    return ImageSet(name, Images.of(with_channels(values, options.channels)))


@functools.cache
def _font(file: str) -> ImageFont.FreeTypeFont:
    import matplotlib

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", file)
    return ImageFont.truetype(path, FONT_PIXELS, layout_engine=ImageFont.Layout.BASIC)


def render(char: str, file: str) -> np.ndarray:
    """Draws a character with its ink centred, uint8 (FRAME, FRAME), white on black."""
    font = _font(file)
    canvas = Image.new("L", (FRAME, FRAME))
    left, top, right, bottom = font.getbbox(char)
    position = ((FRAME - left - right) / 2, (FRAME - top - bottom) / 2)
    ImageDraw.Draw(canvas).text(position, char, fill=255, font=font)
    return np.asarray(canvas)


def render_fitting(char: str, face: str) -> np.ndarray:
    """Draws as `render` does, but scaled down where the ink would not fit."""
    return render_glyph(char, face, FONT_PIXELS, FRAME)
