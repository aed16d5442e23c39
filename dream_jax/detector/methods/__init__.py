"""The methods that a classifier can be trained by, one file each.

A method is a `Method`. Adding one is adding a file with it and naming it in `METHODS`.
"""

from dream_jax.detector.methods import dream_ood, energy, gan, godin, outlier_exposure
from dream_jax.detector.methods.base import Method

METHODS: dict[str, Method] = {
    m.name: m
    for m in (energy.METHOD, outlier_exposure.METHOD, godin.METHOD, gan.METHOD, dream_ood.METHOD)
}

__all__ = ["METHODS", "Method"]
