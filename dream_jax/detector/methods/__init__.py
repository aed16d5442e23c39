"""The methods that a classifier can be trained by, one file each.

A method is a `Method`. Adding one is adding a file with it and naming it in `METHODS`.
"""

from dream_jax.detector.methods import dream_id, dream_ood, energy, npos, outlier_exposure, vos
from dream_jax.detector.methods.base import Method

METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        energy.METHOD,
        outlier_exposure.METHOD,
        vos.METHOD,
        npos.METHOD,
        dream_id.METHOD,
        dream_ood.METHOD,
    )
}

__all__ = ["METHODS", "Method"]
