"""The table of scored images, as CSV or Parquet: written and read a part at a time."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dream_jax.errors import UserError
from dream_jax.files import write_whole

COLUMNS = ("file", "class", "probability", "score", "is_id", "p_value")
ENDINGS = (".csv", ".parquet")
ROWS_AT_ONCE = 4096  # that are read


@dataclass(frozen=True, eq=False)
class Rows:
    """Some scored images, a column each.

    Attributes:
      files: paths, printable.
      classes: the predicted classes' names.
      probability: of the predicted class.
      score: higher is more ID.
      is_id: whether the score reaches the threshold.
      p_value: of the score among the ID test images'.
    """

    files: list[str]
    classes: list[str]
    probability: Float[np.ndarray, " n"]
    score: Float[np.ndarray, " n"]
    is_id: Bool[np.ndarray, " n"]
    p_value: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.files)


def write_table(path: Path, parts: Iterable[Rows]) -> None:
    """Writes a table by the ending of its path, whole or not at all.

    Raises:
      UserError: the package for Parquet is missing.
    """
    write = _write_csv if path.suffix == ".csv" else _write_parquet
    write_whole(path, lambda partial: write(partial, parts))


def read_table(path: Path) -> Iterator[Rows]:
    """Yields the rows of a table that `write_table` wrote, some at a time.

    Raises:
      UserError: it cannot be read as such a table.
    """
    try:
        yield from _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
    except (UserError, OSError):
        raise
    except Exception as error:  # csv, PyArrow and NumPy raise many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read as a table of scores ({reason})") from error


def check_format(path: Path) -> None:
    """Raises UserError if the package is missing that the ending of a table's path asks for."""
    if path.suffix == ".parquet":
        _pyarrow()


def _write_csv(path: Path, parts: Iterable[Rows]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for rows in parts:
            is_id = ["true" if value else "false" for value in rows.is_id]
            p_value = [f"{value:.10g}" for value in rows.p_value]
            probability, score = _texts(rows.probability), _texts(rows.score)
            columns = (rows.files, rows.classes, probability, score, is_id, p_value)
            table.writerows(zip(*columns, strict=True))


def _texts(values: Float[np.ndarray, " n"]) -> list[str]:
    """Returns float32 as the shortest texts that give them back."""
    return [str(value) for value in np.asarray(values, np.float32)]


def _read_csv(path: Path) -> Iterator[Rows]:
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.reader(file)
        if tuple(next(table, ())) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        lines: list[list[str]] = []
        for line in table:
            lines.append(line)
            if len(lines) == ROWS_AT_ONCE:
                yield _rows_of(lines)
                lines = []
        if lines:
            yield _rows_of(lines)


def _rows_of(lines: list[list[str]]) -> Rows:
    files, classes, probability, score, is_id, p_value = map(list, zip(*lines, strict=True))
    return Rows(
        files,
        classes,
        np.asarray(probability, np.float32),
        np.asarray(score, np.float32),
        np.asarray(is_id) == "true",
        np.asarray(p_value, np.float64),
    )


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            "--out: Parquet needs the Python package pyarrow; get it with `pip install pyarrow`, "
            "or give a path that ends in .csv"
        ) from error
    return pyarrow


def _write_parquet(path: Path, parts: Iterable[Rows]) -> None:
    arrow = _pyarrow()
    kinds = (
        arrow.string(),
        arrow.dictionary(arrow.int32(), arrow.string()),
        *(arrow.float32(), arrow.float32(), arrow.bool_(), arrow.float64()),
    )
    schema = arrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    with arrow.parquet.ParquetWriter(path, schema) as table:
        for rows in parts:
            columns = (rows.files, rows.classes, rows.probability, rows.score)
            columns += (rows.is_id, rows.p_value)
            table.write_table(
                arrow.table(
                    [arrow.array(c, kind) for c, kind in zip(columns, kinds, strict=True)],
                    schema=schema,
                )
            )


def _read_parquet(path: Path) -> Iterator[Rows]:
    arrow = _pyarrow()
    with arrow.parquet.ParquetFile(path) as table:
        if tuple(table.schema_arrow.names) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        for batch in table.iter_batches(ROWS_AT_ONCE):
            files, classes, *numbers = (batch.column(name) for name in COLUMNS)
            values = [column.to_numpy(zero_copy_only=False) for column in numbers]
            yield Rows(files.to_pylist(), classes.to_pylist(), *values)
