"""LogitNorm: cross-entropy of logits of one length (Wei et al., ICML 2022).

The norm of the logits grows in training with cross-entropy, also where the classification does not
change, and makes the network too sure. Here the loss is of the logits' direction alone, divided by
a temperature; in testing the logits are the network's own.
"""

from dream_jax.detector import last_layer
from dream_jax.detector.methods.base import Examples, Own, Training, classification_terms
from dream_jax.detector.options import Options, number
from dream_jax.training.terms import Term
from dream_jax.vectors import unit


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    logits = unit(shown.logits) / options["temperature"]
    return classification_terms(logits, shown.labels, shown.mask * shown.is_id), own.state


TRAINING = Training(
    name="logit_norm",
    title="LogitNorm",
    paper="Wei et al., Mitigating Neural Network Overconfidence with Logit Normalization, ICML "
    "2022",
    terms=_terms,
    detector="msp",
    options={
        "temperature": number(0.04, 1e-4, 1e3),  # the paper's for CIFAR-10
        **last_layer.OPTIONS,
    },
    in_all=False,
)
