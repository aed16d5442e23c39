"""Vectors drawn in two dimensions, by t-SNE or UMAP."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from jaxtyping import Float

from dream_jax.errors import UserError

TITLES = {"tsne": "t-SNE", "umap": "UMAP"}
NEIGHBOURS = {"tsne": 30, "umap": 15}  # the perplexity, and the neighbours of a point: the defaults


def check_map(method: str, setting: str) -> None:
    """Checks that a method can be used.

    Args:
      method: "tsne" or "umap".
      setting: what messages call it.

    Raises:
      UserError: there is no such method, or its package is not installed.
    """
    if method not in TITLES:
        raise UserError(f"{setting} is {method!r}; it must be one of {', '.join(TITLES)}")
    if method == "umap":
        try:
            version("umap-learn")
        except PackageNotFoundError as error:
            raise UserError(
                f"{setting} is 'umap', which needs the package umap-learn, and that is not "
                f"installed; `pip install umap-learn`, or set it to 'tsne'"
            ) from error


def flat_map(
    parts: Sequence[Float[np.ndarray, "n d"]], seed: int, method: str = "tsne"
) -> list[Float[np.ndarray, "n 2"]]:
    """Maps all `parts` together, on the unit sphere, where the method measures its distances."""
    from threadpoolctl import threadpool_limits

    joint = np.concatenate(parts).astype(np.float64)
    joint /= np.maximum(np.linalg.norm(joint, axis=1, keepdims=True), 1e-12)
    mapper = (_umap if method == "umap" else _tsne)(len(joint), seed)
    # The threads of t-SNE wait for each other at every one of 1,000 iterations: where other work
    # has the cores, two of them took 14 s for 160 points that one maps in 0.5 s. Only libraries
    # that are loaded by now are limited.
    with threadpool_limits(1):
        flat = mapper.fit_transform(joint)
    return np.split(flat, np.cumsum([len(part) for part in parts])[:-1])


def _tsne(count: int, seed: int) -> Any:
    from sklearn.manifold import TSNE

    perplexity = min(NEIGHBOURS["tsne"], (count - 1) / 3)
    return TSNE(perplexity=perplexity, init="pca", random_state=seed)


def _umap(count: int, seed: int) -> Any:
    from umap import UMAP

    few = count <= NEIGHBOURS["umap"]
    return UMAP(
        n_neighbors=max(2, count - 1) if few else NEIGHBOURS["umap"],
        init="random" if few else "spectral",  # a spectrum of few points may not exist
        random_state=seed,
        n_jobs=1,  # the only number with which the same seed gives the same map
    )
