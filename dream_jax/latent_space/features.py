"""The features of training images that stage ① stores."""

import numpy as np
from jaxtyping import Array, Float, Int

from dream_jax.data.images import Images
from dream_jax.models.resnet import build_model
from dream_jax.settings import ModelSettings
from dream_jax.training.devices import MappedFunction
from dream_jax.training.finite import Origin


def extract_features(
    model: ModelSettings, variables: dict, images: Images, width: int, batch_size: int
) -> Float[np.ndarray, "n width"]:
    """Computes the features h(x) of images, in evaluation mode.

    Args:
      model: settings of the network h.
      variables: of h, {"params", "batch_stats"}.
      images: the images, held or streamed.
      width: size of a feature, the dimension of the anchors.
      batch_size: images at once over the devices of all processes.

    Returns:
      The features, float32, in all processes.

    Raises:
      NotFinite: a feature is NaN or infinite; names the first image.
    """
    network = build_model(model, width)

    def forward(variables: dict, batch: dict) -> Float[Array, "batch width"]:
        return network.apply(variables, batch["images"])[0]

    origin = Origin("the feature extractor", "model.precision", model.precision)
    return MappedFunction(forward, variables, batch_size, origin)({"images": images}, "features")


def select_per_class(
    labels: Int[np.ndarray, " n"], count: int, classes: int, seed: int
) -> Int[np.ndarray, " chosen"]:
    """Draws the indices of up to `count` images of each class, without replacement.

    Args:
      labels: of the images.
      count: most images of a class.
      classes: number of classes.
      seed: of the draw.

    Returns:
      The indices, sorted.
    """
    chosen = []
    for label in range(classes):
        own = np.flatnonzero(labels == label)
        rng = np.random.default_rng((seed, label))
        chosen.append(rng.permutation(own)[:count])
    return np.sort(np.concatenate(chosen))
