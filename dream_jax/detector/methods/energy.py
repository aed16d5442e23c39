"""Cross-entropy training with the energy score (Liu et al., NeurIPS 2020)."""

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from dream_jax.detector.methods.base import Method
from dream_jax.training.loop import Term


def energy_score(logits: jax.Array) -> jax.Array:
    """E(x) = logsumexp over the classes, the negative free energy: (n, classes) → (n,)."""
    return jax.nn.logsumexp(logits, axis=-1)


def classification_terms(logits: jax.Array, batch: dict) -> dict[str, Term]:
    """Cross-entropy over the ID rows, and their accuracy as a metric."""
    labels, mask = batch["labels"], batch["mask"] * batch["is_id"]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    correct = (jnp.argmax(logits, -1) == labels).astype(jnp.float32)
    return {"ce": Term(loss, mask), "accuracy": Term(correct, mask, 0.0)}


def _terms(own: dict, logits: jax.Array, batch: dict, config: ConfigDict) -> dict[str, Term]:
    return classification_terms(logits, batch)


METHOD = Method(
    name="energy",
    title="Energy",
    paper="Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020",
    uses_decoded=False,
    terms=_terms,
    score=energy_score,
)
