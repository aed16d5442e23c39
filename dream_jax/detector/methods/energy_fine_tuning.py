"""Energy fine-tuning: energies on either side of two margins (Liu et al., NeurIPS 2020).

The training goes on from the plain classifier, and shows real outliers. With E = -log Σ exp f, ID
images should have at most `inside`, and outliers at least `outside`; what lies between costs the
square of its distance.
"""

import jax
import numpy as np

from dream_jax.detector import last_layer
from dream_jax.detector.methods.base import Examples, Own, Training, classification_terms
from dream_jax.detector.options import Options, number
from dream_jax.detector.scores import energy_score
from dream_jax.errors import UserError
from dream_jax.training.terms import Term


def _check(options: Options, image: tuple[int, int, int], labels: np.ndarray, epochs: int) -> None:
    if options["inside"] >= options["outside"]:
        raise UserError(
            f"method energy_fine_tuning: inside is {options['inside']}; it must be below outside = "
            f"{options['outside']}, as ID images have the lower energies"
        )


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    energy, known = -energy_score(shown.logits), shown.mask * shown.is_id
    above = jax.nn.relu(energy - options["inside"]) ** 2
    below = jax.nn.relu(options["outside"] - energy) ** 2
    terms = classification_terms(shown.logits, shown.labels, known) | {
        "inside": Term(above, known, options["weight"]),
        "outside": Term(below, shown.mask * (1 - shown.is_id), options["weight"]),
    }
    return terms, own.state


TRAINING = Training(
    name="energy_fine_tuning",
    title="Energy fine-tuning",
    paper="Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020",
    terms=_terms,
    detector="energy",
    extra="auxiliary",
    options={  # the published code's for CIFAR-10; its 10 epochs are `fine_tune.epochs`
        "inside": number(-23.0, -1e4, 1e4),  # CIFAR-100: -27
        "outside": number(-5.0, -1e4, 1e4),
        "weight": number(0.1, 0.0, 1e3),  # of both losses
        **last_layer.OPTIONS,
    },
    check=_check,
    fine_tunes=True,
    in_all=False,
)
