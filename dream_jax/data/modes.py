"""Pictures of any mode as 8-bit grey or RGB: upright, and on white where they are transparent."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import ExifTags, Image

from dream_jax.data.libtiff import all_decoded
from dream_jax.data.reader import NotReadable

# EXIF's orientation → what puts the picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Which value is white is not said in files of floats and of 32-bit integers: the range says it.
FLOAT_WHITES = (1, 255, 65535)
INTEGER_WHITES = (255, 65535)
STRIP = 2**20  # pixels that are converted at a time, so that large images take little memory


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """Returns an image of any mode as 8-bit grey (1 channel) or RGB (3).

    It is put upright by its EXIF orientation, and transparent parts show white. Grey images with
    more than 8 bits are scaled, where Pillow would cut off all above 255: see `_white`.

    Raises:
      NotReadable: values are not finite, or their range does not say which is white.
    """
    _bring_key_to_8_bits(image)
    with all_decoded():
        image.load()
    turn = UPRIGHT.get(orientation(image))
    if image.mode[:1] in ("I", "F") or _tag(image, "SampleFormat", 1) == 2:
        image = _deep_to_bytes(image)
    elif image.has_transparency_data:
        image = _on_white(image)
    elif image.mode == "LAB":
        image = image.convert("RGB")
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    return image.transpose(turn) if turn is not None else image


def orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation of a loaded image, 1 to 8.

    Without one that can be read, the image counts as upright, 1, as in image viewers.
    """
    if not image.info.keys() & {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}:
        return 1  # TIFF's are upright when they are loaded
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of damaged EXIF, Pillow raises many kinds
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # grey, already multiplied by its alpha
        image = image.convert("LA")
    image = image.convert("RGBA") if image.mode != "RGBA" else image
    ground = Image.new("RGB", image.size, "white")
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def _bring_key_to_8_bits(image: Image.Image) -> None:
    """Brings a PNG's transparent colour to the depth to which Pillow brings the pixels."""
    key = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("L", "RGB") or key is None:
        return
    raw = _raw_mode(image)
    if image.mode == "RGB":
        key = tuple(value >> 8 if "16" in raw else value & 255 for value in key)
    else:
        most = 2 ** int(raw.partition(";")[2] or 8) - 1
        key = (key & most) * 255 // most
    image.info["transparency"] = key


def _raw_mode(image: Image.Image) -> str:
    """Returns what the pixels are in the file of an image that is not loaded: "L;4", "RGB;16B"."""
    tiles = getattr(image, "tile", None)
    return str(tiles[0].args) if tiles else image.mode


def _tag(image: Image.Image, name: str, default: int) -> int:
    """Returns the value of a TIFF's tag, the first if there are several."""
    tags = getattr(image, "tag_v2", {})
    found = tags.get(ExifTags.Base[name], default)
    return (found[0] if found else default) if isinstance(found, tuple) else found


def _deep_to_bytes(image: Image.Image) -> Image.Image:
    """Returns a grey image of floats, of signed integers or of more than 8 bits in 8 bits."""
    white = _white(image)
    key = image.info.get("transparency")
    out = np.empty((image.height, image.width), np.uint8)
    for rows, values in _strips(image):
        out[rows] = np.clip(np.round(values.astype(np.float32) / (white / 255)), 0, 255)
        if _tag(image, "PhotometricInterpretation", 1) == 0:  # white is 0
            out[rows] = 255 - out[rows]
        if isinstance(key, int):
            out[rows][values == key] = 255
    return Image.fromarray(out)


def _white(image: Image.Image) -> float:
    """Returns the value that is white; black is 0, and what lies outside of both is clipped.

    - Unsigned integers of 8 to 16 bits: their largest value.
    - Signed integers of 8 and 16 bits: their largest with the lower bits zero. Negative ones are
      black.
    - Floats: 1, 255 or 65535; integers of 32 bits: 255, 65535 or their largest. Taken is the
      first that no value exceeds by more than a tenth, if the brightest is a sixteenth of it.

    Raises:
      NotReadable: values are not finite, or no such value fits.
    """
    bits, signed = _tag(image, "BitsPerSample", 16), _tag(image, "SampleFormat", 1) == 2
    if image.mode != "F" and bits < 32:
        return 255 << (bits - 9) if signed and bits > 8 else 2 ** (bits - signed) - 1
    whites: Sequence[float] = FLOAT_WHITES
    if image.mode != "F":
        whites = (*INTEGER_WHITES, 255 << (23 if signed else 24))
    extremes = np.asarray([(v.min(), v.max()) for _, v in _strips(image)], np.float64)
    if not np.isfinite(extremes).all():  # NumPy's extremes are NaN where one value is
        raise NotReadable("it has values that are not finite")
    low, high = extremes[:, 0].min(), extremes[:, 1].max()
    for white in whites:
        dark = high < white / 16 and high > 0 and white != 1
        if -white / 10 <= low and high <= white * 1.1 and not dark:
            return white
    raise NotReadable(
        f"its values reach from {low:g} to {high:g}, which does not say which one is white; "
        f"allowed: from 0 to {', '.join(f'{white:g}' for white in whites[:-1])} or {whites[-1]:g}"
    )


def _strips(image: Image.Image) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the rows of some part of a grey image, and their values."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        values = np.asarray(image.crop((0, top, image.width, bottom)))
        if _tag(image, "BitsPerSample", 16) == 32 and _tag(image, "SampleFormat", 1) == 1:
            values = values.view(np.uint32)
        if image.mode == "L":  # signed bytes
            values = values.view(np.int8)
        yield slice(top, bottom), values
