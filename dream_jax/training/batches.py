"""Batches of a training: which rows of a table a step sees, and where they come from."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int, Shaped

from dream_jax.training import devices

# Tables up to this size are kept on every device, larger ones stay on the host.
HOLD_BYTES = 2**30
TAKEN = (*devices.ADDED, "rows", "step", "key")  # what else batches have by name


class Column(Protocol):
    """A column of a table that is no array, such as images.

    Attributes:
      in_memory: whether all rows are, and are the same in every step.
      nbytes: of all rows, where they are in memory.
    """

    @property
    def in_memory(self) -> bool: ...

    @property
    def nbytes(self) -> int: ...

    def __len__(self) -> int: ...

    def at(self, rows: Int[np.ndarray, " batch"], step: int) -> Shaped[np.ndarray, "batch ..."]:
        """Returns the rows that a step sees, perhaps with changes drawn at random for it."""
        ...


class Array:
    """An array (n, ...) as a column."""

    in_memory = True

    def __init__(self, values: Shaped[np.ndarray, "n ..."]):
        self._values = values
        self.nbytes = values.nbytes

    def __len__(self) -> int:
        return len(self._values)

    def at(self, rows: Int[np.ndarray, " batch"], step: int) -> Shaped[np.ndarray, "batch ..."]:
        return self._values[rows]


class Stacked:
    """Columns of one type, one behind the other, as one column."""

    def __init__(self, parts: Sequence[Column]):
        self.parts = parts
        self.in_memory = all(part.in_memory for part in parts)
        self.nbytes = sum(part.nbytes for part in parts)
        self._starts = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def at(self, rows: Int[np.ndarray, " batch"], step: int) -> Shaped[np.ndarray, "batch ..."]:
        part_of = np.searchsorted(self._starts, rows, side="right") - 1
        found = {
            part: self.parts[part].at(rows[part_of == part] - self._starts[part], step)
            for part in np.unique(part_of)
        }
        first = next(iter(found.values()))
        out = np.empty((len(rows), *first.shape[1:]), first.dtype)
        for part, values in found.items():
            out[part_of == part] = values
        return out


class Batches(NamedTuple):
    """The batches of a training: rows of a table of examples.

    Where the table is held on the devices, a step is given the numbers of its rows and gathers them
    inside the compiled program; otherwise they are gathered on the host, ahead of the step. The
    batches are the same.

    Attributes:
      table: equally long columns, by names other than `TAKEN`; others raise ValueError.
      rows: step → the rows (batch,) of its global batch, as many for every step. A pure function,
        so that a resumed run sees the same data. It is called in a thread and in worker processes,
        and should hold on to no images.
      workers: processes that make the batches of a table that is not held; 0 for threads.
    """

    table: Mapping[str, np.ndarray | Column]
    rows: Callable[[int], Int[np.ndarray, " batch"]]
    workers: int = 0

    @property
    def _columns(self) -> dict[str, Column]:
        devices.check_names("a column of the table", self.table, TAKEN)
        return {
            name: Array(column) if isinstance(column, np.ndarray) else column
            for name, column in self.table.items()
        }

    @property
    def fit_on_device(self) -> bool:
        """Whether the table is in memory and small enough to be held on every device."""
        columns = self._columns.values()
        in_memory = all(column.in_memory for column in columns)
        return in_memory and sum(column.nbytes for column in columns) <= HOLD_BYTES

    def whole(self) -> dict[str, np.ndarray]:
        """Returns the table with its columns as arrays."""
        return {name: c.at(np.arange(len(c)), 0) for name, c in self._columns.items()}

    def at(self, step: int) -> dict[str, np.ndarray]:
        """Returns the global batch of a step."""
        return self._gathered(self.rows(step), step)

    def share(self, step: int, layout: devices.Layout, hold: bool) -> dict[str, np.ndarray]:
        """Returns a process's part of a step's batch (see `devices.shard_rows`).

        Args:
          hold: whether the table is on the devices and the part is only the numbers of its rows.
        """
        part = devices.shard_rows(self.rows(step), layout)
        if hold:
            return part
        rows = part.pop("rows")
        columns = self._gathered(rows.ravel(), step)
        return part | {n: c.reshape(*rows.shape, *c.shape[1:]) for n, c in columns.items()}

    def _gathered(self, rows: Int[np.ndarray, " batch"], step: int) -> dict[str, np.ndarray]:
        return {name: column.at(rows, step) for name, column in self._columns.items()}


def epoch_index(count: int, step: int, batch_size: int, seed: int) -> Int[np.ndarray, " batch"]:
    """Returns the rows of the batch of a step: each epoch is a fresh permutation of `count` rows.

    Batches run on across the ends of epochs, so each has `batch_size` rows, also where that does
    not divide `count` or is larger.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // count
    index = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        index[epochs == epoch] = _permutation(count, seed, int(epoch))[
            positions[epochs == epoch] % count
        ]
    return index


@lru_cache(maxsize=8)  # a batch of several sources is in several epochs; drawing one takes a while
def _permutation(count: int, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    return np.random.default_rng((seed, epoch)).permutation(count)
