"""The methods that a classifier can be trained by, one file each.

A method is a `Method`. Adding one is adding a file with it and naming it here, in the order of the
table.
"""

from dream_jax.detector.methods import (
    dream_id,
    dream_ood,
    energy,
    gan,
    godin,
    npos,
    outlier_exposure,
    vos,
)
from dream_jax.detector.methods.base import Method

_METHODS = (energy, godin, gan, vos, npos, outlier_exposure, dream_id, dream_ood)
METHODS: dict[str, Method] = {module.METHOD.name: module.METHOD for module in _METHODS}

__all__ = ["METHODS", "Method"]
