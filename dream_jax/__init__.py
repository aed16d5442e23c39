"""Dream-OOD in JAX: imagine outliers with a diffusion model, train a classifier that knows them.

`load_run(folder)` opens what a run left, `exploring` asks more of it, `plots` draws it; `detectors`
are the post-hoc detectors for the features and logits of any network; `ood_metrics` measures
scores. See docs/library.md.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dream_jax import detectors, exploring, plots
    from dream_jax.evaluation.metrics import ood_metrics
    from dream_jax.loaded_run import load_run
    from dream_jax.vectors import walk

__version__ = "0.1.0"
__all__ = ["detectors", "exploring", "load_run", "ood_metrics", "plots", "walk"]
_MODULES = ("detectors", "exploring", "plots")
_HOMES = {
    "load_run": "dream_jax.loaded_run",
    "ood_metrics": "dream_jax.evaluation.metrics",
    "walk": "dream_jax.vectors",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for, so that importing the package alone stays quick."""
    if name in _MODULES:
        return importlib.import_module(f"dream_jax.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dream_jax' has no attribute {name!r}")
