"""The methods that a classifier can be trained by, one file each.

A method is a `Method`. Adding one is adding a file with it and naming it in `METHODS`.
"""

from dream_jax.detector.methods import dream_id, dream_ood, energy, gan, godin, outlier_exposure
from dream_jax.detector.methods.base import Method

_METHODS = (energy, outlier_exposure, godin, gan, dream_id, dream_ood)
METHODS: dict[str, Method] = {module.METHOD.name: module.METHOD for module in _METHODS}

__all__ = ["METHODS", "Method"]
