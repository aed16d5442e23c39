"""Pictures of every mode, orientation and depth become the picture that a person sees."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dream_jax.data.image_sets import DataOptions
from dream_jax.data.modes import UPRIGHT, to_mode
from dream_jax.data.reader import MOST_PIXELS, NotReadable, open_image
from dream_jax.data.registry import load_ood
from dream_jax.errors import UserError
from dream_jax.generator.weights import check_weights

ROOT = Path(__file__).resolve().parents[2]
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


def png(depth: int, rows: np.ndarray, key: tuple[int, ...]) -> bytes:
    """A grey (H, W) or RGB (H, W, 3) PNG with a transparent colour; grey of up to 8 bits packed."""
    height, width = rows.shape[:2]
    kind = 2 if rows.ndim == 3 else 0
    if depth < 8:
        bits = (rows[..., None] >> np.arange(depth)[::-1]) & 1
        packed = np.packbits(bits.reshape(height, -1).astype(np.uint8), axis=1)
    else:
        packed = rows.astype(">u2" if depth == 16 else "u1").reshape(height, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in packed)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0),
        b"tRNS": struct.pack(f">{len(key)}H", *key),
        b"IDAT": zlib.compress(lines),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_grey_that_counts_as_transparent_shows_white(depth, channels):
    values = np.arange(2**depth) if depth < 16 else np.arange(256) * 257
    values, key = np.resize(values, (8, 32)), int(values[len(values) // 3])
    expected = np.where(values == key, 255, np.round(values / (2**depth - 1) * 255))
    found = read(png(depth, values, (key,)), channels).reshape(8, 32, -1)
    np.testing.assert_array_equal(found, np.repeat(expected[..., None], channels, -1))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_colour_that_counts_as_transparent_shows_white(depth):
    factor = 257 if depth == 16 else 1
    key = tuple(int(value) for value in COLOURS[2, 3])
    expected = COLOURS.copy()
    expected[2, 3] = 255
    content = png(depth, COLOURS.astype(int) * factor, tuple(v * factor for v in key))
    np.testing.assert_array_equal(read(content), expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is_0", [False, True])
@pytest.mark.parametrize("bits", [8, 16])
def test_grey_tiffs_of_both_byte_orders_and_both_ways_round(order, white_is_0, bits):
    values = GREY.astype(int) * (257 if bits == 16 else 1)
    values = 2**bits - 1 - values if white_is_0 else values
    pixels = values.astype(f"{order}u{bits // 8}").tobytes()
    height, width = GREY.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1 - white_is_0, 273: 122, 277: 1}
    tags |= {278: height, 279: len(pixels)}
    entries = b"".join(
        struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items()
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    content = head + entries + bytes(4)
    assert len(content) == 122
    if (order, white_is_0, bits) == (">", True, 16):  # which Pillow has no mode for
        with pytest.raises(NotReadable, match="TIFF or GIF, or is damaged"):
            read(content + pixels, 1)
        return
    np.testing.assert_array_equal(read(content + pixels, 1), GREY)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_animated_files_the_first_frame_is_read(form):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if form == "WEBP" else {}
    content = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3
    np.testing.assert_array_equal(read(content)[3, 3], [255, 0, 0])


def test_a_folder_of_all_suffixes(tmp_path):
    for suffix in ("webp", "bmp", "tif", "tiff", "gif", "jfif", "jpe", "png", "jpg", "JPEG"):
        form = {"jfif": "JPEG", "jpe": "JPEG"}.get(suffix)
        Image.new("L", (40, 40), 120).save(tmp_path / f"a.{suffix}", form)
    images = load_ood(f"x={tmp_path}", DataOptions(channels=3)).images
    assert len(images) == 10
    np.testing.assert_allclose(images[:] * 255, 120, atol=2)


def test_git_lfs_pointers_are_called_so(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / "a.png").write_bytes(pointer)
    with pytest.raises(UserError, match=r"a\.png.*is a Git LFS pointer; run `git lfs pull`"):
        load_ood(f"x={tmp_path}", DataOptions())
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(pointer)
    with pytest.raises(UserError, match=r"safetensors is a Git LFS pointer; run `git lfs pull`"):
        check_weights(tmp_path, "unet")


@pytest.mark.parametrize(
    "option", [{"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}]
)
@pytest.mark.parametrize("mode", ["RGB", "YCbCr"])
def test_damaged_tiffs_are_not_read_and_print_nothing(option, mode, capfd):
    """Of YCbCr, Pillow gives what libtiff decoded before the damage, and says nothing."""
    noise = Image.fromarray(RNG.integers(0, 256, (64, 64, 3), np.uint8)).convert(mode)
    content = bytearray(encoded(noise, "TIFF", **option))
    read(bytes(content))
    middle = len(content) // 2
    content[middle : middle + 400] = b"\xff" * 400
    with pytest.raises(NotReadable, match="is damaged"):
        read(bytes(content))
    assert capfd.readouterr() == ("", "")


def test_what_pillow_logs_of_a_tiff_is_not_printed():
    """In a process of its own: pytest takes what is logged."""
    reading = """
import io, struct
from PIL import Image
from dream_jax.data.reader import NotReadable, open_image

file = io.BytesIO()
Image.new("RGB", (8, 8)).save(file, "TIFF")
content = bytearray(file.getvalue())
(start,) = struct.unpack_from("<I", content, 4)
(entries,) = struct.unpack_from("<H", content, start)
for entry in range(start + 2, start + 2 + 12 * entries, 12):
    if struct.unpack_from("<H", content, entry) == (277,):  # samples per pixel
        struct.pack_into("<H", content, entry + 8, 8195)
try:
    open_image(bytes(content))
except NotReadable:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", reading], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("refused\n", "")
