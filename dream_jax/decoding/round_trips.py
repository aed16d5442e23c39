"""Round trips: ID images after the generator's autoencoder, encoded and decoded."""

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from dream_jax.data.images import Images
from dream_jax.generator.interface import Generator
from dream_jax.training import hosts


def write_round_trips(
    path: Path, generator: Generator, images: Images, batch_size: int, title: str
) -> None:
    """Writes the round trips of images as a .npy file, uint8 (n, H, W, C), unless it is there.

    Args:
      batch_size: images at once over the devices of all processes.
      title: of the split, for the progress bar.
    """
    if not hosts.from_main(path.exists):
        batches = generator.round_trip(images, batch_size, f"round trips, {title}")
        write_shares(path, images.shape, batches)


def write_shares(
    path: Path, shape: tuple[int, ...], batches: Iterable[UInt8[np.ndarray, "batch ..."]]
) -> None:
    """Writes a .npy file of bytes, batch by batch; each process writes its share of the images.

    The images are never in memory together, and the file is whole or not there.

    Args:
      shape: of all images together.
      batches: this process's share, in order.

    Raises:
      ValueError: the batches are not this process's share.
    """
    partial = path.with_name(f".partial-{path.name}")
    if hosts.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(partial, "w+", np.uint8, shape).flush()
    hosts.barrier(f"{path.name} begun")
    whole = np.lib.format.open_memmap(partial, "r")
    share = hosts.share_of(shape[0])
    start = share.start
    # Not through the memory map: if two hosts write to one page, one undoes the other's part.
    with partial.open("r+b") as file:
        file.seek(whole.offset + start * math.prod(shape[1:]))
        for batch in batches:
            file.write(np.ascontiguousarray(batch, np.uint8).data)
            start += len(batch)
    if start != share.stop:
        raise ValueError(f"{path}: rows up to {start} came, {share.stop} were announced")
    hosts.barrier(f"{path.name} written")
    if hosts.is_main():
        os.replace(partial, path)
    hosts.barrier(f"{path.name} whole")
