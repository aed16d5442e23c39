"""GAN: a generator imagines samples near the data, for which the softmax is made uniform.

Lee et al., Training Confidence-calibrated Classifiers for Detecting Out-of-Distribution Samples,
ICLR 2018. Classifier, generator and discriminator (DCGANs, Radford et al., ICLR 2016) are trained
together: one step of each on the same samples, where the published code takes one after the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import jax
import jax.numpy as jnp
import numpy as np

from dream_jax.detector import last_layer
from dream_jax.detector.methods.base import Examples, Own, Shape, Training, classification_terms
from dream_jax.detector.methods.outlier_exposure import outlier_exposure_loss
from dream_jax.detector.options import Options, number, whole
from dream_jax.settings import OptimizerSettings
from dream_jax.training.terms import Term

if TYPE_CHECKING:
    import flax.linen as nn
    import optax

# A row's key is split for its augmentation; this number gives a key that is none of those.
_NOISE = 2**32 - 1


def uniform_divergence(logits: jax.Array) -> jax.Array:
    """KL(U ‖ softmax), the confidence loss, per row: (n, c) → (n,)."""
    return outlier_exposure_loss(logits) - jnp.log(logits.shape[-1])


def _run(module: nn.Module, params: dict, state: dict, x: jax.Array, mask: jax.Array):
    """Outputs in training mode, and the running statistics after them."""
    variables = {"params": params, "batch_stats": state}
    out, changed = module.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"])
    return out, changed["batch_stats"]


def _check(options: Options, image: tuple[int, int, int], labels: np.ndarray, epochs: int) -> None:
    from dream_jax.models.dcgan import stages  # Flax: slow to import

    stages(image[0])


def _init(key: jax.Array, shape: Shape, options: Options) -> Own:
    from dream_jax.models.dcgan import Discriminator, Generator

    size, _, channels = shape.image
    inputs = {
        "generator": (Generator(size, channels, options["width"]), (1, options["noise"])),
        "discriminator": (Discriminator(options["width"]), (1, *shape.image)),
    }
    params, state = {}, {}
    for index, (name, (module, x)) in enumerate(inputs.items()):
        init = jax.jit(module.init, static_argnames="train")
        own = init(jax.random.fold_in(key, index), jnp.zeros(x), train=True, mask=jnp.ones(1))
        params[name], state[name] = own["params"], own["batch_stats"]
    return Own(params, state)


def _generate(
    own: Own, images: jax.Array, mask: jax.Array, keys: jax.Array, options: Options
) -> tuple[jax.Array, dict]:
    """As many images as there are in the batch, each from its row's key."""
    from dream_jax.models.dcgan import Generator

    generator = Generator(images.shape[1], images.shape[3], options["width"])
    noise_keys = jax.vmap(lambda key: jax.random.fold_in(key, _NOISE))(keys)
    noise = jax.vmap(lambda key: jax.random.normal(key, (options["noise"],)))(noise_keys)
    made, state = _run(generator, own.params["generator"], own.state["generator"], noise, mask)
    return made, own.state | {"generator": state}


def _terms(own: Own, shown: Examples, options: Options) -> tuple[dict[str, Term], dict]:
    """The joint confidence loss, with the generator's loss in its usual other form,
    -log D(G(z)).

    Each network has its own gradient alone: the classifier that of cross-entropy and KL, the
    generator that of its loss and the KL, the discriminator that of telling real from made.
    """
    from dream_jax.models.dcgan import Discriminator

    half = len(shown.images) // 2
    real, made = shown.images[:half], shown.images[half:]
    masks = shown.mask[:half], shown.mask[half:]
    discriminator = Discriminator(options["width"])
    params, state = own.params["discriminator"], own.state["discriminator"]
    of_real, state = _run(discriminator, params, state, real, masks[0])
    still = jax.lax.stop_gradient
    of_made, state = _run(discriminator, params, state, still(made), masks[1])
    fooled, _ = _run(discriminator, still(params), state, made, masks[1])
    judged = jnp.concatenate([of_real, of_made])
    told = jax.nn.softplus(judged * jnp.where(shown.is_id > 0, -1, 1))
    right = ((judged > 0) == (shown.is_id > 0)).astype(jnp.float32)
    outliers, held = shown.mask * (1 - shown.is_id), cast(jax.Array, shown.held)
    terms = classification_terms(shown.logits, shown.labels, shown.mask * shown.is_id) | {
        "kl": Term(uniform_divergence(shown.logits), outliers, options["beta"]),
        "generator_kl": Term(uniform_divergence(held), outliers, options["beta"]),
        "generator": Term(jax.nn.softplus(-fooled), masks[1]),
        "discriminator": Term(told, shown.mask, 2.0),  # the sum of two means, real and made
        "discriminator_accuracy": Term(right, shown.mask, 0.0),
    }
    return terms, own.state | {"discriminator": state}


def _optimizer(
    optimizer: optax.GradientTransformation,
    settings: OptimizerSettings,
    steps: int,
    options: Options,
) -> optax.GradientTransformation:
    """Adam of the published code for generator and discriminator: at a tenth after 60 %."""
    import optax  # slow to import, and a finished run trains nothing

    rate = optax.piecewise_constant_schedule(options["learning_rate"], {round(0.6 * steps): 0.1})
    adam = optax.adam(rate, b1=0.5, b2=0.999)
    return optax.multi_transform(
        {"network": optimizer, "method": adam}, {"network": "network", "method": "method"}
    )


TRAINING = Training(
    name="gan",
    title="GAN",
    paper="Lee et al., Training Confidence-calibrated Classifiers for Detecting "
    "Out-of-Distribution Samples, ICLR 2018",
    terms=_terms,
    detector="msp",
    options={
        "beta": number(0.1, 0.0, 1e3),  # of the KL; the paper's for CIFAR-10, SVHN's is 1
        "width": whole(64, 1),  # channels of a DCGAN's stages are 8, 4, 2 times this
        "noise": whole(100, 1),  # dimension of the generator's input
        "learning_rate": number(2e-4, 0.0, 1.0),  # of generator and discriminator
        **last_layer.OPTIONS,
    },
    init=_init,
    check=_check,
    generate=_generate,
    optimizer=_optimizer,
)
