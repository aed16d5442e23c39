"""Scoring the images of folders: what launch/score.py does."""

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dream_jax import ending, lock
from dream_jax.data.names import printable
from dream_jax.errors import UserError
from dream_jax.files import checksum, read_json, write_json
from dream_jax.scoring_files import image_list, table
from dream_jax.scoring_files.calibration import Calibration
from dream_jax.scoring_files.page import page_environment, write_page
from dream_jax.scoring_files.parts import Parts, refuse_other_job, rows_per_part, score_parts
from dream_jax.scoring_files.scorer import ImageScorer

FORMAT = 1
NAMED = 20  # unreadable images in the record
UNREADABLE = ("", "stop", "skip")


@dataclass(frozen=True)
class Request:
    """What launch/score.py is asked for.

    Attributes:
      images: folders, files or patterns; see `image_list.list_images`.
      run: the folder of a finished run; or "".
      detector: the folder of a detector that launch/export.py wrote; or "".
      row: of the run's results; "" for dream_ood.
      keep: the share of the ID test images that counts as ID.
      out: the table, .csv or .parquet.
      page: an HTML page; or "".
      unreadable: "stop" or "skip"; "" for what the run does.
    """

    images: Sequence[str]
    run: str = ""
    detector: str = ""
    row: str = ""
    keep: float = 0.95
    out: str = "scores.csv"
    page: str = ""
    unreadable: str = ""


@dataclass
class Counts:
    """What is counted of a table as it is written."""

    images: int = 0
    is_id: int = 0
    by_class: Counter = field(default_factory=Counter)
    id_by_class: Counter = field(default_factory=Counter)

    def add(self, rows: table.Rows) -> None:
        """Counts some rows."""
        self.images += len(rows)
        self.is_id += int(rows.is_id.sum())
        self.by_class.update(rows.classes)
        names = zip(rows.classes, rows.is_id, strict=True)
        self.id_by_class.update(name for name, is_id in names if is_id)


def score_files(request: Request) -> dict[str, Any]:
    """Scores images, writes the table and the page, and prints a summary.

    A scoring that was interrupted goes on when it is asked for again. The table is then the one of
    a scoring that was not.

    Returns:
      The record, which lies next to the table as `<table>.json`.

    Raises:
      UserError: bad input, in one line before any work; or an image cannot be read, and that stops.
    """
    _check(request)
    return score_by(open_scorer(request), request)


def score_by(scorer: ImageScorer, request: Request) -> dict[str, Any]:
    """Does what `score_files` does, by any scorer."""
    images = image_list.list_images(request.images)
    out = Path(request.out).expanduser()
    job = {
        "format": FORMAT,
        **scorer.identity,
        "images": image_list.names_digest(images),
        "images at once": rows_per_part(scorer),
    }
    calibration = Calibration(scorer.known["id"], request.keep)
    parts = Parts(out.with_name(f"{out.name}.parts"), images, rows_per_part(scorer))
    record_path = out.with_name(f"{out.name}.json")
    record = _finished(out, record_path, job, request.keep, images)
    if record is None:
        ending.program.workdir = parts.folder
        with _lock(parts.folder):
            parts.begin(job)
            if note := image_list.colour_note(images, scorer.channels):
                print(note, file=sys.stderr)
            score_parts(scorer, parts, request.unreadable or scorer.unreadable)
            _refuse_none(parts)
            record = _write(out, record_path, job, parts, scorer, calibration)
        shutil.rmtree(parts.folder)
    print(_summary(record, out))
    if request.page:
        page = Path(request.page).expanduser()
        write_page(page, out, images, record, scorer, calibration)
        print(f"page: {request.page}")
    return record


def _lock(folder: Path) -> AbstractContextManager[None]:
    """Locks the folder of the parts; another process that takes it over ends this one."""
    return lock.hold(folder, lambda line: ending.end(f"error: {line}", 2), "--out: the folder")


def open_scorer(request: Request) -> ImageScorer:
    """Returns what the request scores by; it is not prepared yet."""
    if request.detector:
        from dream_jax.scoring_files.from_folder import open_detector

        return open_detector(Path(request.detector).expanduser())
    from dream_jax.scoring_files.from_run import open_row  # Flax, Orbax: not needed otherwise

    return open_row(Path(request.run).expanduser(), request.row or "dream_ood")


def _check(request: Request) -> None:
    """Raises UserError for what is wrong with a request by itself."""
    if bool(request.run) == bool(request.detector):
        raise UserError(
            f"--run is {request.run!r} and --detector is {request.detector!r}; one of them must be "
            f"given: the folder of a run, or of a detector that launch/export.py wrote"
        )
    if request.detector and request.row:
        raise UserError(f"--row is {request.row!r}; it goes with --run: a detector is of one row")
    if not 0 < request.keep < 1:
        raise UserError(f"--keep is {request.keep}; it must be above 0 and below 1")
    if request.unreadable not in UNREADABLE:
        raise UserError(f"--unreadable is {request.unreadable!r}; allowed: stop, skip")
    check_place("--out", request.out, table.ENDINGS)
    table.check_format(Path(request.out))
    if request.page:
        check_place("--page", request.page, (".html",))
        page_environment()


def check_place(flag: str, given: str, endings: Sequence[str]) -> None:
    """Raises UserError if a file cannot be written at a path, or has another ending."""
    path = Path(given).expanduser()
    if path.suffix not in endings:
        raise UserError(f"{flag} is {given!r}; it must end in {' or '.join(endings)}")
    if path.is_dir():
        raise UserError(f"{flag} is {given!r}, which is a folder; it must be a file")
    if not path.parent.is_dir():
        raise UserError(f"{flag} is {given!r}; there is no folder {path.parent}")


def _finished(
    out: Path, record_path: Path, job: dict[str, Any], keep: float, images: Sequence[str]
) -> dict[str, Any] | None:
    """Returns the record of a table that is there; None if there is none.

    Raises:
      UserError: it is the table of something else.
    """
    if not out.exists():
        return None
    if not record_path.exists():
        raise UserError(
            f"--out {out} is there without {record_path.name}, so nothing says what it is of; "
            f"delete it, or give another --out"
        )
    record = read_json(record_path, f"delete it and {out} to score anew")
    expected = job | {"keep": keep, "images": image_list.files_digest(images) + job["images"]}
    refuse_other_job(f"--out {out} has", record.get("job", {}), expected)
    if checksum(out) != record.get("table"):
        raise UserError(
            f"--out {out} was changed after it was written; move it away, or give another --out"
        )
    return record


def _refuse_none(parts: Parts) -> None:
    """Raises UserError if no image at all can be read."""
    if all(len(found["failed"]) == len(part.rows) for part, found in parts.read()):
        path, reason = next(parts.unreadable())
        raise UserError(
            f"--images: none of the {len(parts.images):,} images can be read; {printable(path)}: "
            f"{reason}"
        )


def _write(
    out: Path,
    record_path: Path,
    job: dict[str, Any],
    parts: Parts,
    scorer: ImageScorer,
    calibration: Calibration,
) -> dict[str, Any]:
    """Writes the table of all parts, and its record."""
    counts = Counts()
    table.write_table(out, _rows(parts, scorer, calibration, counts))
    unreadable = list(parts.unreadable())
    images = image_list.files_digest(parts.images) + job["images"]
    record = {
        "job": job | {"keep": calibration.keep, "images": images},
        "scored by": scorer.title,
        "threshold": calibration.threshold,
        "id_test_images": len(calibration.id_scores),
        "images": counts.images,
        "is_id": counts.is_id,
        "by_class": {
            name: {"images": counts.by_class[name], "is_id": counts.id_by_class[name]}
            for name in scorer.class_names
        },
        "unreadable": len(unreadable),
        "first_unreadable": {printable(path): reason for path, reason in unreadable[:NAMED]},
        "table": checksum(out),
    }
    write_json(record_path, record)
    return record


def _rows(
    parts: Parts, scorer: ImageScorer, calibration: Calibration, counts: Counts
) -> Iterator[table.Rows]:
    """Yields the rows of the table, and counts them."""
    for part, found in parts.read():
        rows = table.Rows(
            [printable(path) for path in parts.readable(part, found["failed"])],
            [scorer.class_names[label] for label in found["predicted"]],
            found["probability"],
            found["score"],
            calibration.is_id(found["score"]),
            calibration.p_values(found["score"]),
        )
        counts.add(rows)
        yield rows


def _summary(record: dict[str, Any], out: Path) -> str:
    """Returns what the program ends with."""
    count, is_id = record["images"], record["is_id"]
    share = f"{100 * is_id / count:.1f} %"
    lines = [
        f"scored: {count:,} images by {record['scored by']}",
        f"ID: {is_id:,} ({share}), with a score of at least {record['threshold']:.6g}, which keeps "
        f"{100 * record['job']['keep']:.4g} % of {record['id_test_images']:,} ID test images",
    ]
    if record["unreadable"]:
        names = ", ".join(record["first_unreadable"])
        more = ", ..." if record["unreadable"] > len(record["first_unreadable"]) else ""
        lines.append(f"unreadable: {record['unreadable']:,} ({names}{more})")
    return "\n".join([*lines, f"written: {out}"])
