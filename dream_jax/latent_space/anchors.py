"""Anchors: token embeddings of the class names, which the image features are aligned with."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dream_jax.errors import UserError


def compute_anchors(
    table: Float[np.ndarray, "vocabulary d"], token_ids: Sequence[Sequence[int]]
) -> Float[np.ndarray, "classes d"]:
    """Computes T(y), a token embedding for each class (Dream-OOD, section 3.1).

    The anchor of a name of one token is its row of the table. That of a name of several tokens is
    the mean of their rows, rescaled to their mean norm: a mean of nearly orthogonal vectors would
    be too short for the text encoder.

    Args:
      table: token embeddings of the text encoder.
      token_ids: for each class the ids of its name's tokens.

    Returns:
      The anchors, float32.

    Raises:
      UserError: there are no classes, or a name has no tokens.
    """
    if not token_ids:
        raise UserError("data.class_names is empty; at least one class name is needed")
    anchors = []
    for index, ids in enumerate(token_ids):
        if not len(ids):
            raise UserError(f"data.class_names[{index}] has no tokens; a name needs at least one")
        tokens = table[np.asarray(ids)].astype(np.float64)
        mean = tokens.mean(0)
        anchors.append(mean * np.linalg.norm(tokens, axis=1).mean() / np.linalg.norm(mean))
    return np.asarray(anchors, np.float32)
