"""RegMixup: mixtures of images in addition to the images (Pinto et al., NeurIPS 2022).

Each batch is shown twice: as it is, and with every image mixed with another one of the batch, for
which the loss has both labels in the same shares. The paper scores images by the uncertainty of
Dempster and Shafer, K / (K + Σ exp f), which orders them as the energy does.
"""

import jax
import jax.numpy as jnp

from dream_jax.detector import last_layer
from dream_jax.detector.methods.base import Batch, Examples, Own, Training, classification_terms
from dream_jax.detector.mixing import draw_share, partners
from dream_jax.detector.options import Options, number
from dream_jax.training.terms import Term, cross_entropy


def mixed_loss(
    logits: jax.Array, labels: jax.Array, others: jax.Array, share: jax.Array
) -> jax.Array:
    """Returns λ · CE(label) + (1 - λ) · CE(other label), per row: (n, c) → (n,)."""
    return share * cross_entropy(logits, labels) + (1 - share) * cross_entropy(logits, others)


def _show(batch: Batch, options: Options) -> tuple[Batch, tuple[jax.Array, jax.Array]]:
    """Adds the mixtures to the batch; says which other labels they have, and λ."""
    share = draw_share(batch.key, options["alpha"])
    others = partners(batch, batch.mask * batch.is_id)
    mixed = share * batch.images + (1 - share) * others.images
    rows = {name: jnp.concatenate([getattr(batch, name)] * 2) for name in ("labels", "is_id")}
    rows |= {name: jnp.concatenate([getattr(batch, name)] * 2) for name in ("mask", "keys")}
    images = jnp.concatenate([batch.images, mixed])
    return batch._replace(images=images, **rows), (others.labels, share)


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    others, share = shown.aside
    n, mask = len(others), shown.mask * shown.is_id
    terms = classification_terms(shown.logits[:n], shown.labels[:n], mask[:n])
    loss = mixed_loss(shown.logits[n:], shown.labels[n:], others, share)
    return terms | {"mixed": Term(loss, mask[n:], options["weight"])}, own.state


TRAINING = Training(
    name="regmixup",
    title="RegMixup",
    paper="Pinto et al., Using Mixup as a Regularizer Can Surprisingly Improve Accuracy and "
    "Out-of-Distribution Robustness, NeurIPS 2022",
    terms=_terms,
    detector="energy",
    options={
        "alpha": number(20.0, 1e-2, 1e3),  # λ is drawn from Beta(α, α); OpenOOD's for CIFAR
        "weight": number(1.0, 0.0, 1e3),  # of the mixtures' loss
        **last_layer.OPTIONS,
    },
    show=_show,
    in_all=False,
)
