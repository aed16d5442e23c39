"""Stored training features, with which KNN, NNGuide and Relation compare exactly."""

import numpy as np
from jaxtyping import Float

from dream_jax.detector.detectors.base import FitData
from dream_jax.detector.options import Options
from dream_jax.errors import UserError

# A feature of length 0 stays 0, with a cosine of 0 to all others.
SHORTEST = 1e-12


def check_neighbours(options: Options, images: int, detector: str) -> None:
    """Raises UserError if there are fewer training images than neighbours asked for."""
    if options["k"] > images:
        raise UserError(
            f"detector {detector}: k is {options['k']}; it must be at most {images}, the number of "
            f"training images"
        )


def bank(data: FitData, energies: bool = False) -> Float[np.ndarray, "n d"]:
    """Returns the features as unit vectors in float32, times their energies if asked for."""
    from scipy.special import logsumexp  # slow to import, and configurations name these detectors

    stored = np.empty(data.features.shape, np.float32)
    done = 0
    for part in data.parts():
        length = np.linalg.norm(part.features, axis=-1, keepdims=True)
        rows = part.features / np.maximum(length, SHORTEST)
        if energies:
            rows = rows * logsumexp(part.logits, axis=-1, keepdims=True)
        stored[done : done + len(rows)] = rows
        done += len(rows)
    return stored
