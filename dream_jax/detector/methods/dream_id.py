"""Dream-ID: imagined inliers, with their labels, in cross-entropy training (Du et al., 2023)."""

from dream_jax.detector import last_layer
from dream_jax.detector.methods.base import Training
from dream_jax.detector.methods.cross_entropy import terms

TRAINING = Training(
    name="dream_id",
    title="Dream-ID",
    paper="Du et al., Dream the Impossible, NeurIPS 2023 (inliers, for generalisation)",
    terms=terms,  # over all examples with a label, imagined or not
    detector="energy",
    extra="inliers",
    options=last_layer.OPTIONS,
)
