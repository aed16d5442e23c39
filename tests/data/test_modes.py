"""Pictures of every mode, orientation and depth become the picture that a person sees."""

import io

import numpy as np
import pytest
from PIL import Image

from dream_jax.data.modes import UPRIGHT, to_mode
from dream_jax.data.reader import MOST_PIXELS, NotReadable, open_image

RNG = np.random.default_rng(0)
GREY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOURS = RNG.integers(0, 256, (6, 8, 3), np.uint8)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def read(content: bytes, channels: int = 3) -> np.ndarray:
    with open_image(content) as image:
        return np.asarray(to_mode(image, channels))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation(form, turn):
    upright = Image.fromarray(COLOURS).resize((64, 48), Image.Resampling.BILINEAR)
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(
        turn, UPRIGHT.get(turn)
    )
    stored = upright if inverse is None else upright.transpose(inverse)
    exif = Image.Exif()
    exif[274] = turn
    options = {"quality": 98} if form in ("JPEG", "WEBP") else {}
    found = read(encoded(stored, form, exif=exif, **options)).astype(int)
    assert found.shape == (48, 64, 3)
    assert np.abs(found - np.asarray(upright)).mean() < 4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_show_white(mode, channels):
    image = Image.fromarray(COLOURS).convert("RGBA")
    alpha = np.repeat(np.array([0, 255], np.uint8), 24).reshape(6, 8)
    if mode == "P":
        flat = Image.fromarray((alpha > 0).astype(np.uint8), "P")
        flat.putpalette([0, 0, 0, 9, 9, 9])
        content = encoded(flat, "PNG", transparency=b"\0\xff")
        expected = np.where(alpha > 0, 9, 255)
    else:
        image.putalpha(Image.fromarray(alpha))
        content = encoded(image.convert(mode), "PNG")
        opaque = np.asarray(image.convert("RGB").convert("L" if mode == "LA" else "RGB"))
        opaque = np.asarray(Image.fromarray(opaque).convert("L" if channels == 1 else "RGB"))
        mask = alpha > 0 if channels == 1 else (alpha > 0)[..., None]
        np.testing.assert_array_equal(read(content, channels), np.where(mask, opaque, 255))
        return
    np.testing.assert_array_equal(read(content, channels).reshape(6, 8, -1)[..., 0], expected)


@pytest.mark.parametrize(
    ("values", "top"),
    [
        (GREY.astype(np.uint16) * 257, 0),
        (GREY.astype(np.int32) << 23, 0),
        (GREY.astype(np.float32) / 255, 0),
        (GREY.astype(np.float32), 0),
        (GREY.astype(np.float32) * 257, 0),
    ],
)
def test_depths_keep_their_brightness(values, top):
    np.testing.assert_array_equal(read(encoded(Image.fromarray(values), "TIFF"), 1), GREY)


def test_what_has_no_clear_range_is_not_read():
    for value in (np.nan, np.inf, -7.0, 3.5):
        values = (GREY / 255).astype(np.float32)
        values[2, 3] = value
        with pytest.raises(NotReadable):
            read(encoded(Image.fromarray(values), "TIFF"), 1)


def test_what_is_no_image_is_named(tmp_path):
    with pytest.raises(NotReadable, match="is PostScript"):
        open_image(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    with pytest.raises(NotReadable, match="Git LFS pointer; run `git lfs pull`"):
        open_image(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    large = Image.new("1", (2**14, MOST_PIXELS // 2**14 + 1))
    with pytest.raises(NotReadable, match="allowed: 67,108,864"):
        open_image(encoded(large, "PNG"))
