"""Cross-entropy training with the energy score (Liu et al., NeurIPS 2020): the plain classifier."""

import jax

from dream_jax.detector.inputs import Inputs
from dream_jax.detector.methods.base import Method, Options, Own, Rows, classification_terms
from dream_jax.detector.scores import energy_score
from dream_jax.training.loop import Term


def _terms(own: Own, rows: Rows, options: Options) -> tuple[dict[str, Term], dict]:
    return classification_terms(rows.logits, rows.labels, rows.mask * rows.is_id), own.state


def score_by_energy(state: dict, inputs: Inputs, options: Options) -> jax.Array:
    """The energy score of the logits, as a method's `score`."""
    return energy_score(inputs.logits)


METHOD = Method(
    name="energy",
    title="Energy",
    paper="Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020",
    terms=_terms,
    score=score_by_energy,
)
