"""What a run has done: a record per stage, and files that are whole or not there."""

import json
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dream_jax.errors import UserError
from dream_jax.training import hosts


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` on a path beside `path` and renames when that returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    write(partial)
    os.replace(partial, path)


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, written whole."""
    write_whole(path, lambda p: p.write_text(json.dumps(value, indent=2) + "\n"))


def read_json(path: Path) -> Any:
    """Raises UserError where a file cannot be read as JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON ({error}); delete it to redo it"
        ) from error


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Arrays in one compressed file, written whole."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)

    write_whole(path, write)


def write_rows(path: Path, shape: tuple[int, ...], batches: Iterable[np.ndarray]) -> None:
    """Rows as a uint8 .npy file, written whole; each process gives the batches of its share.

    shape: of all rows, which never are in memory together.
    """
    partial = path.with_name(f".partial-{path.name}")
    if hosts.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(partial, "w+", np.uint8, shape).flush()
    hosts.barrier(f"{path.name} begun")
    whole = np.lib.format.open_memmap(partial, "r")
    share = hosts.share_of(shape[0])
    start = share.start
    # Not through the memory map: of a page that two hosts write, one would undo the other's part.
    with partial.open("r+b") as file:
        file.seek(whole.offset + start * math.prod(shape[1:]))
        for batch in batches:
            file.write(np.ascontiguousarray(batch, np.uint8))
            start += len(batch)
    if start != share.stop:
        raise ValueError(f"{path}: rows up to {start} came, {share.stop} were announced")
    hosts.barrier(f"{path.name} written")
    if hosts.is_main():
        os.replace(partial, path)
    hosts.barrier(f"{path.name} whole")


def read_npy(path: Path) -> np.ndarray:
    """An array whose rows are read when they are used. Raises UserError where it is damaged."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy and the system raise many kinds
        raise UserError(f"{path}: cannot be read ({error}); delete it to redo its stage") from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Raises UserError where a file is damaged. Pickled objects are never loaded."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib, numpy and the system raise many kinds
        raise UserError(f"{path}: cannot be read ({error}); delete it to redo its stage") from error


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


class Stage:
    """A stage's folder and its record `stage.json`: settings, whether done, time and memory.

    Of several processes the main one writes the record, and all learn from it what is done.

    Args:
      name: as shown to the user.
      folder: where its results go.
      settings: all that the result depends on, as in the configuration.
      derived: whether the result is soon made from those of other stages: with other settings it is
        made anew, where another stage's is refused.
    """

    def __init__(self, name: str, folder: Path, settings: dict, derived: bool = False):
        self.name, self.folder, self.derived = name, folder, derived
        self.settings = json.loads(json.dumps(settings))  # tuples become lists, as on disk
        self._record = folder / "stage.json"

    def check_settings(self) -> None:
        """Raises UserError if the folder was begun with other settings; names the first."""
        if self.derived or not self._record.exists():
            return
        before, now = flatten(read_json(self._record)["settings"]), flatten(self.settings)
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name):
                raise UserError(
                    f"{self.folder}: stage {self.name} was made with {name}="
                    f"{before.get(name, 'unset')!r}, the configuration has "
                    f"{now.get(name, 'unset')!r}; use --overwrite to redo it, or another --workdir"
                )

    @property
    def outdated(self) -> bool:
        """Whether this is a derived stage that was made with other settings."""
        made = self.derived and self._record.exists()
        return made and read_json(self._record)["settings"] != self.settings

    @property
    def done(self) -> bool:
        return self._record.exists() and read_json(self._record)["done"] and not self.outdated

    def _write(self, done: bool, seconds: float, **more: Any) -> None:
        if hosts.is_main():
            content = {"settings": self.settings, "done": done, "seconds": seconds}
            write_json(self._record, content | more)

    @property
    def record(self) -> dict:
        return read_json(self._record)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def running(self) -> Iterable[None]:
        """Records the settings at the start, and at the end that the stage is done.

        All processes enter and leave together.
        """
        interrupted = self._record.exists() and not self.done
        spent = self.record.get("seconds", 0.0) if interrupted else 0.0
        begin = time.perf_counter()
        hosts.barrier(f"begin {self.name}")
        self._write(False, spent)
        print(f"── {self.name}", flush=True)
        try:
            yield
        except BaseException:
            self._write(False, round(spent + time.perf_counter() - begin, 2))
            raise
        hosts.barrier(f"end {self.name}")
        seconds = spent + time.perf_counter() - begin
        self._write(True, round(seconds, 2), peak_memory_mb=round(peak_memory_mb()))
        print(f"   done in {seconds:.0f} s", flush=True)
        hosts.barrier(f"recorded {self.name}")


def peak_memory_mb() -> float:
    """The largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
