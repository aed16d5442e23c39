"""Folders of images with a metadata.jsonl, in the ImageFolder convention of Hugging Face."""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from dream_jax.errors import UserError


def write_image(path: Path, image: np.ndarray) -> None:
    """(H, W, C) in [0, 1] as an 8-bit PNG, renamed into place when whole."""
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(partial, "PNG")
    os.replace(partial, path)


def read_image(path: Path, channels: int) -> np.ndarray:
    """An image file as float32 (H, W, channels) in [0, 1].

    Raises:
      UserError: the file is empty, unreadable or cut short.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"), np.float32)
    except Exception as error:  # Pillow raises many kinds
        raise UserError(
            f"{path}: not a readable image ({os.path.getsize(path) if path.exists() else 'no'} "
            f"bytes, {type(error).__name__}); delete it to make it again"
        ) from error
    return pixels.reshape(*pixels.shape[:2], channels) / 255


def write_metadata(folder: Path, rows: list[dict]) -> None:
    """One JSON object a line; each names its `file_name` relative to the folder."""
    partial = folder / ".metadata.partial"
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    os.replace(partial, folder / "metadata.jsonl")


def read_metadata(folder: Path) -> list[dict]:
    """The rows of metadata.jsonl. Raises UserError if they cannot be read."""
    listing = folder / "metadata.jsonl"
    try:
        return [json.loads(line) for line in listing.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{listing}: cannot be read ({error}); redo with --overwrite") from error


def read_folder(folder: Path, channels: int) -> tuple[np.ndarray, list[dict]]:
    """All images that metadata.jsonl lists: (n, H, W, channels) and their rows.

    Raises:
      UserError: the list or one of the images cannot be read.
    """
    rows = read_metadata(folder)
    return np.stack([read_image(folder / row["file_name"], channels) for row in rows]), rows
