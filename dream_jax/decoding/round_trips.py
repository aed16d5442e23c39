"""Round trips: ID images after the generator's autoencoder, encoded and decoded."""

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import UInt8

from dream_jax.data.images import Images
from dream_jax.errors import UserError
from dream_jax.files import read_json, write_json
from dream_jax.generator.interface import Generator
from dream_jax.training import hosts

READ_AT_ONCE = 2**24  # bytes
# Rows of this process's share that are done → the batches of the others, in order.
Rest = Callable[[int], Iterable[UInt8[np.ndarray, "batch ..."]]]


def write_round_trips(
    path: Path, generator: Generator, images: Images, batch_size: int, title: str
) -> None:
    """Writes the round trips of images as a .npy file, uint8 (n, H, W, C), unless it is there.

    Args:
      batch_size: images at once over the devices of all processes.
      title: of the split, for the progress bar.
    """

    def rest(done: int) -> Iterable[UInt8[np.ndarray, "batch H W C"]]:
        return generator.round_trip(images, batch_size, f"round trips, {title}", done)

    if not hosts.from_main(path.exists):
        write_shares(path, images.shape, rest)
    elif hosts.is_main():
        _Begun(path, images.shape).finish()


def write_shares(path: Path, shape: tuple[int, ...], rest: Rest) -> None:
    """Writes a .npy file of bytes, batch by batch; each process writes its share of the images.

    The images are never in memory together, and the file is whole or not there. Interrupted and
    called again by as many processes, it continues with the batch that was not finished.

    Args:
      shape: of all images together.
      rest: makes this process's share.

    Raises:
      ValueError: the batches are not this process's share.
    """
    begun = _Begun(path, shape)
    if hosts.is_main() and not begun.fits():
        begun.create()
    hosts.barrier(f"{path.name} begun")
    share, size = hosts.share_of(shape[0]), math.prod(shape[1:])
    # Not through a memory map: if two hosts write to one page, one undoes the other's part.
    with begun.file.open("r+b") as file:
        start = np.lib.format.open_memmap(begun.file, "r").offset + share.start * size
        file.seek(start)
        done, digest = begun.resume(file, size)
        file.seek(start + done * size)
        for batch in rest(done):
            data = np.ascontiguousarray(batch, np.uint8).data
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            digest.update(data)
            done += len(batch)
            begun.note(done, digest.hexdigest())
    if share.start + done != share.stop:
        raise ValueError(
            f"{path}: rows up to {share.start + done} came, {share.stop} were announced"
        )
    hosts.barrier(f"{path.name} written")
    if hosts.is_main():
        begun.finish()
    hosts.barrier(f"{path.name} whole")


class _Begun:
    """A file that is being written by shares, with a note of each process of how far it is.

    Args:
      path: of the file when it is whole.
      shape: of its array.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]):
        self.path, self.shape = path, shape
        self.folder = path.with_name(f"unfinished-{path.stem}")
        self.file = self.folder / path.name

    def _note_of(self, process: int) -> Path:
        return self.folder / f"process-{process}.json"

    def fits(self) -> bool:
        """Returns whether as many processes began a file of this shape."""
        try:
            begun = read_json(self.folder / "begun.json")
            array = np.lib.format.open_memmap(self.file, "r")
        except (UserError, OSError, ValueError):  # missing or damaged: it is begun anew
            return False
        return begun == self._head() and array.shape == self.shape and array.dtype == np.uint8

    def _head(self) -> dict:
        return {"shape": list(self.shape), "processes": hosts.count()}

    def create(self) -> None:
        """Begins the file, from nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        np.lib.format.open_memmap(self.file, "w+", np.uint8, self.shape).flush()
        write_json(self.folder / "begun.json", self._head())

    def resume(self, file: BinaryIO, size: int) -> tuple[int, Any]:
        """Returns how many rows of this process's share are done, and the digest of their bytes.

        Args:
          file: of which the next bytes are those of the share.
          size: bytes of a row.
        """
        try:
            note = read_json(self._note_of(hosts.index()))
            rows, expected = int(note["rows"]), note["sha256"]
        except (UserError, KeyError, TypeError, ValueError):  # none, or damaged: from the start
            return 0, hashlib.sha256()
        digest, left = hashlib.sha256(), rows * size
        while left > 0 and (part := file.read(min(left, READ_AT_ONCE))):
            digest.update(part)
            left -= len(part)
        return (rows, digest) if digest.hexdigest() == expected else (0, hashlib.sha256())

    def note(self, rows: int, digest: str) -> None:
        """Keeps that some rows of this process's share are on the disk."""
        write_json(self._note_of(hosts.index()), {"rows": rows, "sha256": digest})

    def finish(self) -> None:
        """Gives the file its name, unless it has it, and deletes the notes."""
        if not self.path.exists():
            os.replace(self.file, self.path)
        shutil.rmtree(self.folder, ignore_errors=True)
