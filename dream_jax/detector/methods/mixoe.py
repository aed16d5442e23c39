"""MixOE: mixtures of ID images with real outliers, and of their labels (Zhang et al., WACV 2023).

In the place of each real outlier a step shows a mixture of it with an ID image; the nearer it is to
that, the surer the network should be: its target is λ of the label and 1 - λ of the uniform
distribution. Mixed are patches ("cutmix", a patch of the outlier in the ID image) or pixels
("mixup"). The published code fine-tunes a trained network, this trains from the start, as OpenOOD.
"""

import jax
import jax.numpy as jnp

from dream_jax.detector import last_layer
from dream_jax.detector.methods.base import Batch, Examples, Own, Training, classification_terms
from dream_jax.detector.methods.outlier_exposure import outlier_exposure_loss
from dream_jax.detector.mixing import draw_box, draw_share, partners
from dream_jax.detector.options import Options, choice, number
from dream_jax.training.terms import Term, cross_entropy


def soft_loss(logits: jax.Array, labels: jax.Array, share: jax.Array) -> jax.Array:
    """Returns the cross-entropy with λ of the label and 1 - λ of all classes: (n, c) → (n,)."""
    loss = cross_entropy(logits, labels)
    return share * loss + (1 - share) * outlier_exposure_loss(logits)


def _show(batch: Batch, options: Options) -> tuple[Batch, jax.Array]:
    """Mixes each outlier with an ID image, whose label it gets; says by which λ."""
    share = draw_share(batch.key, options["alpha"])
    others = partners(batch, batch.mask * batch.is_id)
    if options["mix"] == "cutmix":
        box = draw_box(batch.key, batch.images.shape[1:3], share)
        share = 1 - jnp.mean(box, dtype=jnp.float32)
        mixed = jnp.where(box, batch.images, others.images)
    else:
        mixed = share * others.images + (1 - share) * batch.images
    is_id = batch.is_id > 0
    images = jnp.where(is_id[:, None, None, None], batch.images, mixed)
    labels = jnp.where(is_id, batch.labels, others.labels)
    return batch._replace(images=images, labels=labels), share


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    loss = soft_loss(shown.logits, shown.labels, shown.aside)
    mixed = Term(loss, shown.mask * (1 - shown.is_id), options["weight"])
    ce = classification_terms(shown.logits, shown.labels, shown.mask * shown.is_id)
    return ce | {"mixed": mixed}, own.state


TRAINING = Training(
    name="mixoe",
    title="MixOE",
    paper="Zhang et al., Mixture Outlier Exposure: Towards Out-of-Distribution Detection in "
    "Fine-grained Environments, WACV 2023",
    terms=_terms,
    detector="msp",
    extra="auxiliary",
    options={  # the published code's
        "mix": choice("cutmix", ("cutmix", "mixup")),
        "alpha": number(1.0, 1e-2, 1e3),  # λ is drawn from Beta(α, α)
        "weight": number(1.0, 0.0, 1e3),  # of the mixtures' loss
        **last_layer.OPTIONS,
    },
    show=_show,
    in_all=False,
)
