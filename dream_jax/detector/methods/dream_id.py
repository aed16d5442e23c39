"""Dream-ID: imagined inliers, with their labels, in cross-entropy training (Du et al., 2023)."""

from dream_jax.detector.methods import cross_entropy
from dream_jax.detector.methods.base import Training

TRAINING = Training(
    name="dream_id",
    title="Dream-ID",
    paper="Du et al., Dream the Impossible, NeurIPS 2023 (inliers, for generalisation)",
    terms=cross_entropy.terms,  # over all examples with a label, imagined or not
    detector="energy",
    extra="inliers",
)
