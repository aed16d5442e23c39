"""④ BOOD: Dream-OOD's training with outliers from behind the boundary (Liao et al., ICML 2025).

What makes it another row are its outliers: see `sampling/bood.py`.
"""

from dataclasses import replace

from dream_jax.detector.methods.dream_ood import TRAINING as DREAM_OOD

TRAINING = replace(
    DREAM_OOD,
    name="bood",
    title="BOOD",
    paper="Liao et al., Boundary-based Out-Of-Distribution Data Generation, ICML 2025",
    extra="bood",
)
