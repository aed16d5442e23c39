"""Names and shapes of PyTorch weights in Flax's parameter trees; torch is not needed.

diffusers and transformers have converters too, but those first draw the whole model at random, and
accept weights that lack some leaves.
"""

import re
from collections.abc import Collection

import numpy as np
from jaxtyping import Shaped

LeafPath = tuple[str, ...]  # from the root of a parameter tree

WEIGHTS = ("kernel", "scale", "embedding")  # what PyTorch's `weight` is called in Flax
# The attention of the autoencoder, in PyTorch's present names; its former ones are Flax's.
VAE_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out_0": "proj_attn"}
BUFFERS = ("text_model.embeddings.position_ids", "embeddings.position_ids")  # no parameters


def flax_path(name: str, leaves: Collection[LeafPath]) -> LeafPath | None:
    """Returns where a PyTorch weight stands in a Flax tree.

    Args:
      name: such as "down_blocks.0.resnets.1.conv1.weight".
      leaves: the paths of the model's leaves.

    Returns:
      One of `leaves`, or None where the model has no such leaf.
    """
    *listed, last = name.split(".")
    numbered = re.sub(r"\.(\d+)(?=\.|$)", r"_\1", ".".join(listed)).split(".")
    modules = [
        listed,  # transformers: layers.0 → layers, 0
        ["text_model", *listed],  # saved without its prefix
        numbered,  # diffusers: resnets.0 → resnets_0
        [VAE_ATTENTION.get(module, module) for module in numbered],
    ]
    names = WEIGHTS if last == "weight" else (last,)
    paths = ((*module, leaf) for module in modules for leaf in names)
    return next((path for path in paths if path in leaves), None)


def flax_layout(
    array: Shaped[np.ndarray, "..."], path: LeafPath, dimensions: int
) -> Shaped[np.ndarray, "..."]:
    """Returns a PyTorch weight with its axes in Flax's order.

    A 1×1 convolution and a matrix are the same map, and some checkpoints have one where the model
    has the other: the attention of former autoencoders, the projections of the UNet's transformers.

    Args:
      array: (out, in, height, width) of a convolution, (out, in) of a matrix, or any other.
      path: of the leaf.
      dimensions: the number of axes that the leaf has in the model.

    Returns:
      (height, width, in, out) or (in, out); other arrays as they are.
    """
    if path[-1] != "kernel":
        return array
    array = np.moveaxis(array, (0, 1), (-1, -2))
    if array.ndim == 2 and dimensions == 4:
        return array[None, None]
    if array.shape[:-2] == (1, 1) and dimensions == 2:
        return array[0, 0]
    return array
