"""`noise`: a synthetic OOD set for choosing hyper-parameters, never reported."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dream_jax.data.framing import resize, set_rng, with_channels
from dream_jax.data.image_sets import DataOptions, ImageSet, OodSet
from dream_jax.data.images import Images

FRAME = 32


def noise(options: DataOptions) -> ImageSet:
    """Six kinds in equal parts, in turn: noise without objects, and objects without meaning.

    Gaussian, uniform and smooth noise over the whole image; strokes, rectangles and filled blobs,
    light on black as digits are. Grey in every channel.
    """
    rng = set_rng("noise", options.seed)
    kinds = (_gaussian, _uniform, _smooth, _strokes, _rectangles, _blob)
    images = np.stack([kinds[i % len(kinds)](rng) for i in range(options.count)])
    images = resize(images.clip(0, 1), options.image_size)
    return ImageSet("noise", Images.of(with_channels(images, options.channels)))


def _gaussian(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(rng.uniform(0, 0.7), rng.uniform(0.1, 0.4), (FRAME, FRAME))


def _uniform(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, rng.uniform(0.3, 1), (FRAME, FRAME))


def _smooth(rng: np.random.Generator) -> np.ndarray:
    """White noise blurred to a random grain and stretched to the full range."""
    from scipy.ndimage import gaussian_filter

    clouds = gaussian_filter(rng.normal(size=(FRAME, FRAME)), rng.uniform(0.8, 5))
    return (clouds - clouds.min()) / np.ptp(clouds)


def _strokes(rng: np.random.Generator) -> np.ndarray:
    """One to four bent pen strokes."""
    canvas, draw = _canvas()
    for _ in range(rng.integers(1, 5)):
        points = rng.uniform(5, FRAME - 5, (rng.integers(3, 6), 2))
        draw.line([tuple(p) for p in points], 255, width=int(rng.integers(1, 5)), joint="curve")
    return _softened(canvas, 0.6)


def _rectangles(rng: np.random.Generator) -> np.ndarray:
    """One to three rectangles, filled or outlined, each with its own grey."""
    canvas, draw = _canvas()
    for _ in range(rng.integers(1, 4)):
        extent = rng.integers(4, 22, 2)
        corner = rng.integers(2, FRAME - 2 - extent)
        box, grey = [*corner, *(corner + extent)], int(rng.integers(100, 256))
        if rng.random() < 0.5:
            draw.rectangle(box, fill=grey)
        else:
            draw.rectangle(box, outline=grey, width=int(rng.integers(1, 4)))
    return _softened(canvas, 0.4)


def _blob(rng: np.random.Generator) -> np.ndarray:
    """One smooth filled outline with a cloudy surface: a thick shape, unlike any stroke."""
    canvas, draw = _canvas()
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = np.arange(2, 7)
    bumps = rng.normal(0, 0.5, waves.shape) / waves
    radius = rng.uniform(6, 12) * (1 + np.sin(np.outer(angles, waves) + bumps * 9) @ bumps)
    x, y = FRAME / 2 + radius * np.stack([np.cos(angles), np.sin(angles)])
    draw.polygon(list(zip(x, y, strict=True)), fill=255)
    return _softened(canvas, 0.6) * (1 - rng.uniform(0, 0.6) * _smooth(rng))


def _canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    canvas = Image.new("L", (FRAME, FRAME))
    return canvas, ImageDraw.Draw(canvas)


def _softened(canvas: Image.Image, radius: float) -> np.ndarray:
    """(FRAME, FRAME) in [0, 1] with soft edges, which PIL's drawing lacks."""
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


SET = OodSet("noise", noise, role="tuning")
