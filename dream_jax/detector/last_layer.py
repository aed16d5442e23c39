"""What the last layer of a classifier hides from its energy, and three ways to hide less.

Features that differ by a vector of the null space of the last layer W (classes × d) have the same
logits, and so the same energy; and nearly so along the right singular vector of its smallest
singular value σ_min. FEVER-OOD (Isaac-Medina, Che, Gaus, Akcay, Breckon, "FEVER-OOD: Free Energy
Vulnerability Elimination for Robust Out-of-Distribution Detection", arXiv 2412.01596) therefore

- reduces the null space: a layer before the last one makes fewer features (`feature_dimension`);
- adds a term to the loss that makes σ_min larger ("smallest_singular_value"),
- or one that makes the condition number σ_max / σ_min smaller ("condition_number").

From the paper is what is done. From its published code are the forms: the terms are 1 / σ_min and
σ_max / σ_min of the last layer's weights without the bias, with a weight of 0.1 in its example for
CIFAR-10; σ_min is the last of the min(classes, d) singular values; the layer before is linear with
a ReLU, of 64 features for CIFAR-10 and 114 for ImageNet-100. Our reading: which trainings have
these settings. The paper has them for VOS and Dream-OOD; here every training has them whose logits
are linear in the features; the detector does not matter. GODIN and NPOS replace the last layer by
functions of their own. Fewer features than classes leave no null space at all.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from dream_jax import rules
from dream_jax.detector.inputs import Head
from dream_jax.detector.options import Options, choice, number
from dream_jax.rules import Option
from dream_jax.training.terms import Term

KIND, WEIGHT, DIMENSION = "regulariser", "regulariser_weight", "feature_dimension"
KINDS = ("smallest_singular_value", "condition_number")
# Of every training with a last layer that its logits come from.
OPTIONS: Mapping[str, Option] = {
    KIND: choice("smallest_singular_value", KINDS),
    WEIGHT: number(0.0, 0.0, 1e3),  # of the term; 0: there is none; FEVER-OOD's example: 0.1
    # Features before the last layer; 0: as many as the network has.
    DIMENSION: Option(0, rules.whole(0, 2**16)),
}


def regulariser(kind: str, kernel: Float[Array, "d classes"]) -> Float[Array, ""]:
    """Returns 1 / σ_min, or σ_max / σ_min, of a layer's weights.

    Args:
      kind: one of `KINDS`.
    """
    # Of the values alone, the gradient is finite also where two are equal.
    values = jnp.linalg.svd(kernel, full_matrices=False, compute_uv=False)
    return (values[0] if kind == "condition_number" else 1.0) / values[-1]


def regularised(terms: dict[str, Term], head: Head, options: Options) -> dict[str, Term]:
    """Returns the terms of a loss and, where its weight is above 0, the regulariser's.

    Args:
      options: all settings of a training, which need not have these.
    """
    if not options.get(WEIGHT):
        return terms
    value = regulariser(options[KIND], head.kernel)[None]
    return terms | {options[KIND]: Term(value, jnp.ones_like(value), options[WEIGHT])}


def feature_dimension(options: Options) -> int:
    """Returns how many features the layer before the last makes; 0 where there is none."""
    return options.get(DIMENSION, 0)
