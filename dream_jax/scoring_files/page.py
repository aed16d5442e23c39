"""The page of a scoring: histograms, and pictures of the most and the least ID images."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from dream_jax.data.modes import to_mode
from dream_jax.data.names import printable
from dream_jax.data.reader import decoding, open_image, reason
from dream_jax.errors import UserError
from dream_jax.files import write_text
from dream_jax.legible import legible
from dream_jax.scoring_files.calibration import Calibration
from dream_jax.scoring_files.scorer import ImageScorer
from dream_jax.scoring_files.table import Rows, read_table

SHOWN = 24  # pictures of all classes, at either end
SHOWN_PER_CLASS, SHOWN_OF_CLASSES = 8, 800  # at either end; of all classes together, about
BINS = 60
SIDE = 144  # pixels of a picture, at most
PNG, JPEG = {"format": "PNG"}, {"format": "JPEG", "quality": 80}
PIXELATED = 64  # pixels: smaller pictures are stored without loss, and enlarged as they are


class Card(NamedTuple):
    """A picture on the page.

    Attributes:
      file: its path, printable.
      name: of the predicted class.
      on_top: whether it is shown where all classes are.
    """

    file: str
    name: str
    probability: float
    score: float
    is_id: bool
    p_value: float
    on_top: bool = False


@dataclass
class Extremes:
    """The images of the highest and the lowest scores, of all classes and of each.

    Args:
      classes: how many there are.
    """

    classes: int
    scores: list[Float[np.ndarray, " n"]] = field(default_factory=list)
    _ends: dict[tuple[str, int], list[Card]] = field(default_factory=dict)

    def add(self, rows: Rows) -> None:
        """Looks at some rows of the table."""
        self.scores.append(rows.score)
        order = np.argsort(rows.score, kind="stable")
        self._take("", order, rows, SHOWN)
        names = np.asarray(rows.classes, np.str_)[order]
        for name in dict.fromkeys(rows.classes):
            self._take(name, order[names == name], rows, self._per_class)

    @property
    def _per_class(self) -> int:
        return max(1, min(SHOWN_PER_CLASS, SHOWN_OF_CLASSES // (2 * self.classes)))

    def _take(self, name: str, order: np.ndarray, rows: Rows, count: int) -> None:
        """Keeps the ends of some rows, in ascending order, if they go beyond those before."""
        for sign, own in ((1, order[:count]), (-1, order[::-1][:count])):
            cards = [_card(rows, row) for row in own.tolist()]
            known = self._ends.get((name, sign), [])
            both = sorted([*known, *cards], key=lambda card: sign * card.score)
            self._ends[name, sign] = both[:count]

    def cards(self, most: bool) -> list[Card]:
        """Returns the pictures of one end, the most extreme first, each once."""
        sign = -1 if most else 1
        found: dict[str, Card] = {}
        for (name, own), cards in self._ends.items():
            for card in cards if own == sign else ():
                if not name or card.file not in found:
                    found[card.file] = card._replace(on_top=not name)
        return sorted(found.values(), key=lambda card: sign * card.score)


def _card(rows: Rows, row: int) -> Card:
    numbers = (float(rows.probability[row]), float(rows.score[row]), bool(rows.is_id[row]))
    return Card(rows.files[row], rows.classes[row], *numbers, float(rows.p_value[row]))


def write_page(
    page: Path,
    table: Path,
    images: Sequence[str],
    record: Mapping[str, Any],
    scorer: ImageScorer,
    calibration: Calibration,
) -> None:
    """Writes the page of a table, one file that loads nothing.

    Args:
      images: the paths of all images.
      record: of the table; see `program`.

    Raises:
      UserError: the package for it is missing, or an image cannot be read any more.
    """
    environment = page_environment()
    extremes = Extremes(len(scorer.class_names))
    for rows in read_table(table):
        extremes.add(rows)
    ends = {
        "Most in-distribution": extremes.cards(True),
        "Least in-distribution": extremes.cards(False),
    }
    pictures = _pictures(images, (card.file for cards in ends.values() for card in cards))
    sets = {"Your images": np.concatenate(extremes.scores), **scorer.known}
    text = environment.get_template("page.html.j2").render(
        record=record,
        keep=calibration.keep,
        histograms=histograms(sets, calibration.threshold),
        classes={
            legible(name): counts for name, counts in record["by_class"].items() if counts["images"]
        },
        ends=ends,
        pictures=pictures,
        table=table.name,
    )
    write_text(page, text)


def page_environment() -> Any:
    """Returns the environment of the page's template.

    Raises:
      UserError: the package for it is missing.
    """
    try:
        import jinja2  # slow to import, and not needed without a page
    except ImportError as error:
        raise UserError(
            "--page needs the Python package jinja2; get it with `pip install jinja2`"
        ) from error
    return jinja2.Environment(
        loader=jinja2.PackageLoader("dream_jax", "scoring_files"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def histograms(sets: Mapping[str, Float[np.ndarray, " n"]], threshold: float) -> dict[str, Any]:
    """Returns what the page draws of the scores of sets, all on one axis.

    The axis reaches from the 0.5th to the 99.5th percentile; what lies beyond counts in the first
    and the last bar.

    Args:
      sets: scores by the name of the set; "id" are the ID test images.
    """
    limits = [np.percentile(scores, (0.5, 99.5)) for scores in sets.values()]
    low = min(threshold, *(float(ends[0]) for ends in limits))
    high = max(threshold, *(float(ends[1]) for ends in limits))
    high = high if high > low else low + 1
    edges = np.linspace(low, high, BINS + 1)
    drawn = []
    for name, scores in sets.items():
        counts = np.histogram(np.clip(scores, low, high), edges)[0]
        heights = counts / max(1, counts.max())
        drawn.append(
            {
                "name": "ID test images" if name == "id" else legible(name),
                "kind": {"id": "id", "Your images": "own"}.get(name, "ood"),
                "count": len(scores),
                "share": float(np.mean(np.asarray(scores, np.float64) >= threshold)),
                "path": "".join(
                    f"M{x} 100h1v{-100 * h:.1f}h-1z" for x, h in enumerate(heights) if h
                ),
            }
        )
    place = BINS * (threshold - low) / (high - low)
    return {"sets": drawn, "low": low, "high": high, "threshold": place, "bins": BINS}


def _pictures(images: Sequence[str], wanted: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns the pictures of some files by their printable paths, small, as base64."""
    names = set(wanted)
    paths = {name: path for path in images if (name := printable(path)) in names}
    return {name: _picture(path) for name, path in paths.items()}


def _picture(path: str) -> dict[str, Any]:
    """Returns one picture."""
    content = io.BytesIO()
    try:
        with open_image(path) as image, decoding(image):
            shown = to_mode(image, 3)
            shown.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
            small = max(shown.size) < PIXELATED
            shown.save(content, **(PNG if small else JPEG))
    except Exception as error:  # Pillow raises many kinds
        raise UserError(
            f"{printable(path)}: not a readable image ({reason(error)}), though it was one when it "
            f"was scored"
        ) from error
    data = base64.b64encode(content.getvalue()).decode("ascii")
    return {"kind": "png" if small else "jpeg", "data": data, "small": small}
