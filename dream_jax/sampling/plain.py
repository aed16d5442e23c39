"""Outlier embeddings without the k-NN choice: what the paper's sampler is compared with.

Dream-OOD (Du et al., NeurIPS 2023) compares its sampler with noise on the token embedding of the
class ("token"), embeddings between those of two classes ("interpolation") and the names of classes
that are not in the ID set, which are "prompts" here. Noise around features or their mean leaves out
parts of the sampler itself. The text of the paper was not at hand when this was written: how much
noise there is, and how far between two classes an embedding lies, is ours.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from dream_jax.errors import UserError
from dream_jax.sampling.settings import PlainSampler
from dream_jax.training.devices import fold_keys
from dream_jax.vectors import unit, unit_on_host

BETWEEN = 0.3, 0.7  # shares of the other class in an embedding between two


def sample_plain(
    features: Float[np.ndarray, "n d"],
    label: int,
    anchors: Float[np.ndarray, "classes d"],
    key: Key[Array, ""],
    settings: PlainSampler,
) -> Float[np.ndarray, "embeddings d"]:
    """Returns the embeddings of one class as unit vectors, each drawn by a key of its own.

    With s the scale and n a normal vector, they are, by `settings.way`:

    - "random": (z + s n) / |z + s n|, for random features z of the class;
    - "mean": the same around the direction of the mean feature;
    - "token": the same around that of the class's anchor;
    - "interpolation": ((1 - t) a + t a') / |...|, for the class's anchor a and that of a random
      other class a', both of length 1, and t uniform in `BETWEEN`;
    - "prompts", "text": the anchor's direction alone, as outliers are then decoded from texts.

    Args:
      features: features of the class, of any length.
      label: of the class.
      anchors: T(y) of all classes, of any length.
      key: random key of the class.
      settings: of the sampler.

    Raises:
      UserError: the noise is so large that vectors leave the range of float32.
    """
    own, centres = (unit_on_host(np.asarray(v, np.float32)) for v in (features, anchors))
    if settings.way not in WAYS:
        return centres[label][None]
    keys = fold_keys(key, jnp.arange(settings.count))
    made = np.asarray(WAYS[settings.way](keys, own, centres, label, settings.scale))
    if not np.all(np.abs(np.linalg.norm(made, axis=1) - 1) < 0.01):
        raise UserError(
            f"sampling.scale is {settings.scale}; its candidates leave the range of float32: lower "
            f"it"
        )
    return made


def _split(keys: Key[Array, " m"]) -> tuple[Key[Array, " m"], Key[Array, " m"]]:
    pairs = jax.vmap(jax.random.split)(keys)
    return pairs[:, 0], pairs[:, 1]


def _chosen(keys: Key[Array, " m"], count: int) -> Array:
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, count))(keys)


def _with_noise(keys: Key[Array, " m"], starts: Array, scale: float) -> Float[Array, "m d"]:
    noise = jax.vmap(lambda key: jax.random.normal(key, starts.shape[-1:]))(keys)
    return unit(starts + scale * noise)


def _around_features(keys, features, centres, label, scale):
    first, second = _split(keys)
    return _with_noise(second, jnp.asarray(features)[_chosen(first, len(features))], scale)


def _around_mean(keys, features, centres, label, scale):
    return _with_noise(keys, unit(jnp.mean(jnp.asarray(features), axis=0)), scale)


def _around_token(keys, features, centres, label, scale):
    return _with_noise(keys, jnp.asarray(centres[label]), scale)


def _between_classes(keys, features, centres, label, scale):
    first, second = _split(keys)
    others = jnp.asarray(np.delete(centres, label, axis=0))[_chosen(first, len(centres) - 1)]
    low, high = BETWEEN
    share = jax.vmap(lambda key: jax.random.uniform(key, (), minval=low, maxval=high))(second)
    return unit((1 - share[:, None]) * centres[label] + share[:, None] * others)


WAYS: Mapping[str, Callable[..., Float[Array, "m d"]]] = {
    "random": _around_features,
    "mean": _around_mean,
    "token": _around_token,
    "interpolation": _between_classes,
}
