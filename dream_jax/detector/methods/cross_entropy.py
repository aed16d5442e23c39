"""Cross-entropy on the ID images: the plain classifier."""

from dream_jax.detector import last_layer
from dream_jax.detector.methods.base import Examples, Own, Training, classification_terms
from dream_jax.detector.options import Options
from dream_jax.training.terms import Term


def terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    """Returns cross-entropy over all examples with a label."""
    return classification_terms(shown.logits, shown.labels, shown.mask * shown.is_id), own.state


TRAINING = Training(
    name="cross_entropy",
    title="Cross-entropy",
    paper="Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020, for its score",
    terms=terms,
    detector="energy",
    options=last_layer.OPTIONS,
)
