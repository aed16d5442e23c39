"""Names and shapes of PyTorch weights in Flax's parameter trees, for which torch is not needed.

diffusers and transformers have converters too; theirs draw the whole model at random first and let
leaves be missing.
"""

import re
from collections.abc import Collection

import numpy as np

LeafPath = tuple[str, ...]  # from the root of a parameter tree

WEIGHTS = ("kernel", "scale", "embedding")  # what PyTorch's `weight` is called in Flax
# The attention of the autoencoder, in PyTorch's present names; its former ones are Flax's.
VAE_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out_0": "proj_attn"}
BUFFERS = ("text_model.embeddings.position_ids", "embeddings.position_ids")  # no parameters


def flax_path(name: str, leaves: Collection[LeafPath]) -> LeafPath | None:
    """Where a PyTorch weight stands in a Flax tree.

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


def flax_layout(array: np.ndarray, path: LeafPath, dimensions: int) -> np.ndarray:
    """A PyTorch weight with its axes in Flax's order.

    A 1×1 convolution and a matrix are the same map, and checkpoints have either where the model
    has the other: attention of former autoencoders, projections of the UNet's transformers.

    Args:
      array: (out, in, height, width) of a convolution, (out, in) of a matrix, or any other.
      path: of the leaf.
      dimensions: how many the leaf has in the model.

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
