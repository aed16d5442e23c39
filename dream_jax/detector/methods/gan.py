"""GAN: a generator imagines samples near the data, for which the softmax is made uniform.

Lee et al., Training Confidence-calibrated Classifiers for Detecting Out-of-Distribution Samples,
ICLR 2018. Classifier, generator and discriminator (DCGANs, Radford et al., ICLR 2016) are trained
together: one step of each on the same samples, where the published code takes one after the other.
"""

from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dream_jax.detector import last_layer
from dream_jax.detector.methods.base import Examples, Own, Shape, Training, classification_terms
from dream_jax.detector.methods.outlier_exposure import outlier_exposure_loss
from dream_jax.detector.options import Options, number, whole
from dream_jax.errors import UserError
from dream_jax.models.norm import BatchNorm
from dream_jax.settings import OptimizerSettings
from dream_jax.training.loop import Term

_INIT = nn.initializers.normal(0.02)  # of all weights, as for the DCGAN
# A row's key is split for its augmentation; this number gives a key that is none of those.
_NOISE = 2**32 - 1


def uniform_divergence(logits: jax.Array) -> jax.Array:
    """KL(U ‖ softmax), the confidence loss, per row: (n, c) → (n,)."""
    return outlier_exposure_loss(logits) - jnp.log(logits.shape[-1])


def stages(size: int) -> tuple[int, tuple[int, ...]]:
    """The first image size of a generator, and by how many times `width` its stages are wide.

    Each stage doubles the size. At 64 pixels this is the DCGAN, at 32 that of the published code.

    Raises:
      UserError: the size is not reached.
    """
    doublings = max(size // 4, 1).bit_length() - 1
    first = size >> doublings
    if doublings < 2 or first << doublings != size:
        raise UserError(
            f"config.data.image_size is {size}; with the training gan it must be 4, 5, 6 or 7 "
            f"times a power of two from 4 on, such as 28, 32, 64 or 224"
        )
    return first, tuple(max(8 >> stage, 1) for stage in range(doublings))


def overlap(taps: jax.Array) -> jax.Array:
    """The sums of a transposed convolution with 4×4 kernels and stride 2, of doubled size.

    (n, h, w, 4, 4, c) of what each place gives to the 4×4 around it → (n, 2h, 2w, c). With one
    matrix product before, on the CPU it is much faster than XLA's gradients of that convolution.
    """

    def shift(x, axis, by):
        return jax.lax.pad(
            x, 0.0, [(by, -by, 0) if a == axis else (0, 0, 0) for a in range(x.ndim)]
        )

    def along(taps, axis):
        """(4, ...) → (...) of twice the length; tap t of place i is for place 2i + t - 1."""
        even, odd = taps[1] + shift(taps[3], axis, 1), taps[2] + shift(taps[0], axis, -1)
        pairs = jnp.stack([even, odd], axis + 1)
        return pairs.reshape(*even.shape[:axis], -1, *even.shape[axis + 1 :])

    taps = jnp.moveaxis(taps, (3, 4), (0, 1))
    return along(along(taps, 2), 2)


class Generator(nn.Module):
    """Noise (n, d) to images (n, size, size, channels) in (0, 1)."""

    size: int
    channels: int
    width: int

    @nn.compact
    def __call__(self, noise: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        first, widths = stages(self.size)
        widths = [self.width * w for w in widths]
        x = nn.Dense(first * first * widths[0], use_bias=False, kernel_init=_INIT)(noise)
        x = x.reshape(-1, first, first, widths[0])
        for features in (*widths[1:], self.channels):
            x = nn.relu(BatchNorm()(x, train, mask))
            taps = nn.Dense(16 * features, use_bias=False, kernel_init=_INIT)(x)
            x = overlap(taps.reshape(*x.shape[:-1], 4, 4, features))
        return nn.sigmoid(x)


class Discriminator(nn.Module):
    """Images (n, size, size, channels) in [0, 1] to logits (n,), above 0 for real ones."""

    width: int

    @nn.compact
    def __call__(self, images: jax.Array, train: bool, mask: jax.Array | None = None) -> jax.Array:
        _, widths = stages(images.shape[1])
        x = images
        for stage, width in enumerate(reversed(widths)):
            features = self.width * width
            x = nn.Conv(features, (4, 4), (2, 2), 1, use_bias=False, kernel_init=_INIT)(x)
            x = BatchNorm()(x, train, mask) if stage else x
            x = nn.leaky_relu(x, 0.2)
        return nn.Dense(1, use_bias=False, kernel_init=_INIT)(x.reshape(len(x), -1))[:, 0]


def _run(module: nn.Module, params: dict, state: dict, x: jax.Array, mask: jax.Array):
    """Outputs in training mode, and the running statistics after them."""
    variables = {"params": params, "batch_stats": state}
    out, changed = module.apply(variables, x, train=True, mask=mask, mutable=["batch_stats"])
    return out, changed["batch_stats"]


def _check(options: Options, image: tuple[int, int, int], labels: np.ndarray, epochs: int) -> None:
    stages(image[0])


def _init(key: jax.Array, shape: Shape, options: Options) -> Own:
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
