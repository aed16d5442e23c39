"""The features of training images that stage ① stores."""

import numpy as np
from jaxtyping import Array, Float, Int

from dream_jax.data.images import Images
from dream_jax.models.resnet import build_model
from dream_jax.settings import ModelSettings
from dream_jax.training.devices import MappedFunction


def extract_features(
    model: ModelSettings, variables: dict, images: Images, width: int, batch_size: int
) -> Float[np.ndarray, "n width"]:
    """Returns the features h(x) of images, in evaluation mode.

    Args:
      variables: of h, {"params", "batch_stats"}.
      width: of the features.
      batch_size: images at once over the devices of all processes.
    """
    network = build_model(model, width)

    def forward(variables: dict, batch: dict) -> Float[Array, "batch width"]:
        return network.apply(variables, batch["images"])[0]

    return MappedFunction(forward, variables, batch_size)({"images": images}, "features")


def select_per_class(
    labels: Int[np.ndarray, " n"], count: int, classes: int, seed: int
) -> Int[np.ndarray, " chosen"]:
    """Returns the indices of up to `count` images of each class, drawn without replacement."""
    chosen = []
    for label in range(classes):
        own = np.flatnonzero(labels == label)
        rng = np.random.default_rng((seed, label))
        chosen.append(rng.permutation(own)[:count])
    return np.sort(np.concatenate(chosen))
