"""Dream-ID: imagined inliers, with their labels, in cross-entropy training (Du et al., 2023)."""

from dream_jax.detector.methods import energy
from dream_jax.detector.methods.base import Method

METHOD = Method(
    name="dream_id",
    title="Dream-ID",
    paper="Du et al., Dream the Impossible, NeurIPS 2023 (inliers, for generalisation)",
    terms=energy.METHOD.terms,  # over all rows with a label, imagined or not
    score=energy.METHOD.score,
    extra="inliers",
)
