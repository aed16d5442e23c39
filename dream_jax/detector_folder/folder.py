"""A detector in a folder of its own: read and run with JAX and NumPy alone.

The folder holds

- `detector.json`: what the detector is, how it takes images and how its scores are read; the
  names, sizes and checksums of the other files;
- `detector.stablehlo`: the program, in the portable serialisation of StableHLO, of
  (weights, images (n, H, W, C)) → {"logits": (n, classes), "score": (n,)}, for any n;
- `weights.npz`: the arrays of the network and of the fitted detector, by name;
- `scores.npz`: the scores of the run's test sets, "id" first;
- `README.md`: the model card.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dream_jax.errors import UserError
from dream_jax.files import checksum, read_json, read_npz
from dream_jax.record import seal

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "tpu")
DESCRIPTION, PROGRAM, WEIGHTS, SCORES = (
    *("detector.json", "detector.stablehlo"),
    *("weights.npz", "scores.npz"),
)
AGAIN = "export the detector again"

Weights = Mapping[str, Any]  # arrays by name


@dataclass(frozen=True)
class DetectorFolder:
    """A detector that was exported.

    Attributes:
      path: the folder.
      about: the content of `detector.json`.
    """

    path: Path
    about: Mapping[str, Any]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images that it takes."""
        taken = self.about["input"]
        return taken["size"], taken["size"], taken["channels"]

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.about["classes"])

    @cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """The arrays that the program takes."""
        return self._arrays(WEIGHTS)

    @cached_property
    def scores(self) -> dict[str, Float[np.ndarray, " m"]]:
        """Set → the scores of its images; "id" are the ID test images."""
        found = self._arrays(SCORES)
        return {name: found[name] for name in self.about["sets"]}

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        try:
            return read_npz(self.path / name)
        except UserError as error:
            raise UserError(f"{self.path / name}: cannot be read; {AGAIN}") from error

    @cached_property
    def program(self) -> jax.export.Exported:
        """The program, to be called with the weights and images."""
        shapes = {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in self.weights.items()}
        frame = empty_program(shapes, self.image_shape, len(self.class_names))
        found, own = self.about["calling_convention"], frame.calling_convention_version
        if found != own:
            raise UserError(
                f"{self.path}: its program has calling convention {found}, and JAX "
                f"{jax.__version__} has {own}; {AGAIN}, or install JAX "
                f"{self.about['versions']['jax']}"
            )
        module = (self.path / PROGRAM).read_bytes()
        return dataclasses.replace(frame, mlir_module_serialized=module)

    def __call__(self, weights: Weights, images: Any) -> dict[str, Array]:
        """Returns {"logits": (n, classes), "score": (n,)}; traced or not.

        Args:
          weights: `self.weights`, on any device.
          images: float32 (n, H, W, C) in [0, 1].
        """
        return self.program.call(dict(weights), images)

    def score(self, images: Float[np.ndarray, "n H W C"]) -> dict[str, np.ndarray]:
        """Returns {"logits": (n, classes), "score": (n,)} of images in memory.

        Args:
          images: float32 in [0, 1], as `about["input"]` says.

        Raises:
          UserError: they have another shape.
        """
        images = np.asarray(images, np.float32)
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise UserError(
                f"images have the shape {images.shape}; {self.path} takes (n, "
                f"{', '.join(map(str, self.image_shape))})"
            )
        return jax.tree.map(np.asarray, self(self.weights, images))


def open_folder(path: Path) -> DetectorFolder:
    """Opens the folder of a detector; all of its files are compared with their checksums.

    Raises:
      UserError: it is none, of another version, or damaged.
    """
    description = path / DESCRIPTION
    if not description.is_file():
        fault = "has no detector.json" if path.is_dir() else "is not there"
        raise UserError(f"{path} {fault}; it must be a folder that launch/export.py wrote")
    about = read_json(description, AGAIN)
    if about.get("format") != FORMAT:
        raise UserError(
            f"{path} holds a detector of format {about.get('format')!r}, and this program reads "
            f"format {FORMAT}; {AGAIN}"
        )
    if about != seal(about):
        raise UserError(f"{description}: is damaged; {AGAIN}")
    for name, expected in about["files"].items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{file}: is missing; {AGAIN}")
        if checksum(file) != expected:
            raise UserError(f"{file}: is damaged; {AGAIN}")
    return DetectorFolder(path, about)


def empty_program(
    weights: Mapping[str, jax.ShapeDtypeStruct], image_shape: tuple[int, ...], classes: int
) -> jax.export.Exported:
    """Returns a program that takes and gives what a detector's does, and computes nothing.

    It is the frame that the stored module is put into: JAX's own serialisation of the whole would
    need a package that JAX does not bring.
    """

    def nothing(weights: Weights, images: jax.Array) -> dict[str, jax.Array]:
        return {
            "logits": jnp.zeros((images.shape[0], classes)),
            "score": jnp.zeros(images.shape[0]),
        }

    return export_program(nothing, weights, image_shape)


def export_program(
    function: Any, weights: Mapping[str, jax.ShapeDtypeStruct], image_shape: tuple[int, ...]
) -> jax.export.Exported:
    """Exports (weights, images (n, H, W, C)) → arrays for any n and all `PLATFORMS`."""
    (n,) = jax.export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((n, *image_shape), np.float32)
    exporting = jax.export.export(jax.jit(function, keep_unused=True), platforms=PLATFORMS)
    return exporting(dict(weights), images)
