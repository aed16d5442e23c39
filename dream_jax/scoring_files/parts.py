"""The parts of a scoring, each in a file of its own, so that one that was killed goes on."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dream_jax.data.images import Images, open_all
from dream_jax.data.sources import Files
from dream_jax.errors import UserError
from dream_jax.files import read_json, read_npz, remove_partial, write_json, write_npz
from dream_jax.scoring_files.image_list import files_digest
from dream_jax.scoring_files.scorer import ImageScorer, Score
from dream_jax.training.devices import prefetch

# Images of a part: what is lost at most when the program is killed, and is in memory as bytes.
IMAGES, BYTES = 1024, 2**27


def rows_per_part(scorer: ImageScorer) -> int:
    """Returns how many images make up a part: whole batches, where set, and little memory."""
    batch = scorer.batch_size or 1
    fits = BYTES // (batch * scorer.size**2 * scorer.channels)
    return batch * max(1, min(-(-IMAGES // batch), fits))


@dataclass(frozen=True)
class Part:
    """The images of one part.

    Attributes:
      number: from 0.
      rows: of the list of images.
    """

    number: int
    rows: range


class Parts:
    """The folder with the parts of a scoring.

    Args:
      folder: made by `begin`.
      images: paths of all images.
      rows: images of a part.
    """

    def __init__(self, folder: Path, images: Sequence[str], rows: int):
        self.folder, self.images = folder, images
        starts = range(0, len(images), rows)
        self.all = [
            Part(number, range(start, min(start + rows, len(images))))
            for number, start in enumerate(starts)
        ]

    def begin(self, job: Mapping[str, Any]) -> None:
        """Makes the folder, or goes on in it.

        Args:
          job: what the parts depend on; JSON can hold it.

        Raises:
          UserError: the folder has parts of another job; names the first difference.
        """
        path = self.folder / "job.json"
        if path.exists():
            found = read_json(path, f"delete the folder {self.folder} to score anew")
            refuse_other_job(f"{self.folder} holds parts of", found, job)
            remove_partial(self.folder)
        elif any(self.folder.glob("part-*")):
            raise UserError(
                f"{self.folder} has parts without {path.name}, so nothing says what they are of; "
                f"delete the folder to score anew"
            )
        else:
            write_json(path, job)

    def missing(self) -> list[Part]:
        """Returns the parts that are not there; those of images that have changed are not."""
        there = [part for part in self.all if self._path(part).exists()]
        changed = [part for part in there if self._read(part)["files"] != self._digest(part)]
        if changed:
            print(
                f"{sum(len(part.rows) for part in changed)} images are scored again: some of them "
                f"have changed"
            )
        done = {part.number for part in there} - {part.number for part in changed}
        return [part for part in self.all if part.number not in done]

    def write(self, part: Part, failed: Mapping[int, str], **columns: np.ndarray) -> None:
        """Keeps the results of a part.

        Args:
          failed: place in the part → why the image cannot be read.
          columns: of the images that can be read.
        """
        places = np.asarray(sorted(failed), np.int64)
        reasons = np.asarray([failed[place] for place in places.tolist()], np.str_)
        digest = np.asarray(self._digest(part))
        write_npz(self._path(part), files=digest, failed=places, reasons=reasons, **columns)

    def read(self) -> Iterator[tuple[Part, dict[str, np.ndarray]]]:
        """Yields all parts, which must be there, with what was written."""
        for part in self.all:
            yield part, self._read(part)

    def unreadable(self) -> Iterator[tuple[str, str]]:
        """Yields the images that cannot be read, with the reason."""
        for part, found in self.read():
            for place, reason in zip(found["failed"], found["reasons"], strict=True):
                yield self.images[part.rows[place]], str(reason)

    def readable(self, part: Part, failed: np.ndarray) -> list[str]:
        """Returns the images of a part that can be read."""
        without = set(failed.tolist())
        return [self.images[row] for place, row in enumerate(part.rows) if place not in without]

    def _path(self, part: Part) -> Path:
        return self.folder / f"part-{part.number:06d}.npz"

    def _read(self, part: Part) -> dict[str, np.ndarray]:
        return read_npz(self._path(part))

    def _digest(self, part: Part) -> str:
        return files_digest(self.images[part.rows.start : part.rows.stop])


def refuse_other_job(where: str, found: Mapping[str, Any], job: Mapping[str, Any]) -> None:
    """Raises UserError if something was made by another job than this one.

    Args:
      where: what the message begins with.
    """
    for key, value in job.items():
        if found.get(key) != value:
            was = found.get(key, "unknown")
            shown = "other images" if key == "images" else f"{key} {was}, not {value}"
            raise UserError(
                f"{where} a scoring of {shown}; give another --out, or delete it to score anew"
            )


def score_parts(scorer: ImageScorer, parts: Parts, unreadable: str) -> None:
    """Scores the images of all parts that are not there, and names those that cannot be read.

    A thread reads the images of the next part while the devices are at one.

    Args:
      unreadable: what an image that cannot be read does: "stop" or "skip".

    Raises:
      UserError: an image cannot be read, and that stops.
    """
    missing = parts.missing()
    if not missing:
        return
    score = scorer.prepare()
    source = Files("", parts.images)

    def read(part: Part) -> tuple[Part, Images, dict[int, str]]:
        indices = np.arange(part.rows.start, part.rows.stop)
        images = Images(source, indices, scorer.size, scorer.channels)
        return (part, *open_all(images, hold=True))

    count = sum(len(part.rows) for part in missing)
    total = len(parts.images)
    with tqdm(total=total, initial=total - count, desc="scoring", unit=" images") as progress:
        for part, images, failed in prefetch(read, missing, ahead=1):
            for place, reason in failed.items():
                if unreadable == "stop":
                    raise UserError(
                        f"{images.name(place)}: not a readable image ({reason}); replace it, or "
                        f"skip such images by --unreadable=skip: what is scored is kept"
                    )
                tqdm.write(f"skipped image {images.name(place)}: {reason}", sys.stderr)
            parts.write(part, failed, **_columns(score, images, failed))
            progress.update(len(part.rows))


def _columns(score: Score, images: Images, failed: Mapping[int, str]) -> dict[str, np.ndarray]:
    """Returns the results for those images of a part that can be read."""
    kept = np.setdiff1d(np.arange(len(images)), list(failed))
    if not len(kept):
        empty = np.empty(0, np.float32)
        return {"predicted": np.empty(0, np.int32), "probability": empty, "score": empty}
    logits, scores = score(images.take(kept))
    logits = np.asarray(logits, np.float64)
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return {
        "predicted": logits.argmax(-1).astype(np.int32),
        "probability": (1 / shifted.sum(-1)).astype(np.float32),
        "score": np.asarray(scores, np.float32),
    }
