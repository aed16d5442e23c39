"""The gallery of the page: outliers as thumbnails, each with what is known about it."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from dream_jax.data.images import Images
from dream_jax.data.sources import to_bytes, to_pillow
from dream_jax.legible import legible

SURE = 0.95  # a confidence from which on a picture counts as read
MOST, PER_CLASS = 600, 24  # pictures in all, and of a class
SHOWN = 4  # of each class while all classes are shown
THUMBNAIL = 128  # most pixels of a side; smaller pictures stay as they are
READINGS = {
    "own": "read as their class",
    "other": "read as another class",
    "none": "read as none",
}


class Tile(NamedTuple):
    """A picture of the gallery.

    Attributes:
      label: of the class that it was imagined near.
      more: whether it is shown only when its class is chosen.
      reading: a key of READINGS, or "" where no plain classifier has read it.
      source: the picture as a data URL.
      caption: lines of text below it.
    """

    label: int
    more: bool
    reading: str
    source: str
    caption: Sequence[str]


def tiles(
    images: Images,
    labels: Int[np.ndarray, " n"],
    read: Mapping[str, Float[np.ndarray, " n"]],
    class_names: Sequence[str],
    seed: int,
) -> list[Tile]:
    """Returns the first outliers of each class, from the nearest to the farthest.

    Args:
      images, labels: the outliers, and the classes that they were imagined near.
      read: "d_k", and "own", "read" and "surest" where the plain classifier has read them, as
        evaluators/outliers.py explains.
      seed: of the run, with which and its number an image is drawn.
    """
    most = max(1, min(PER_CLASS, MOST // len(class_names)))
    found = []
    for label in range(min(len(class_names), MOST)):
        chosen = np.flatnonzero(labels == label)[:most]
        chosen = chosen[np.argsort(read["d_k"][chosen], kind="stable")]
        # While all classes are shown, a few of each: evenly from the near ones to the far ones.
        few = set(np.linspace(0, len(chosen) - 1, SHOWN).round().astype(int).tolist())
        for place, index in enumerate(chosen):
            reading, caption = "", [f"d_k {read['d_k'][index]:.3f}"]
            if "own" in read:
                own, surest, named = (read[key][index] for key in ("own", "surest", "read"))
                reading = "none" if surest < SURE else "own" if named == label else "other"
                caption.append(f"own class {100 * own:.0f}\u00a0%")
                if named != label:
                    caption.append(f"{legible(class_names[int(named)])} {100 * surest:.0f}\u00a0%")
            caption.append(f"seed\u00a0{seed}, no.\u00a0{index}")
            source = _data_url(images[int(index)])
            found.append(Tile(label, place not in few, reading, source, caption))
    return found


def _data_url(image: Float[np.ndarray, "H W C"]) -> str:
    """Returns an image in [0, 1] as a PNG, or as a JPEG thumbnail if it is larger than that."""
    picture, out = to_pillow(to_bytes(np.asarray(image))), io.BytesIO()
    if max(picture.size) <= THUMBNAIL // 2:
        picture.save(out, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        picture.save(out, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
