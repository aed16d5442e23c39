"""② Outlier embeddings of all classes, class by class, scaled to the anchors' norms."""

import shutil
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from dream_jax.keys import stage_key
from dream_jax.records import read_npz, write_npz
from dream_jax.sampling.boundary import SamplerSettings, sample_embeddings
from dream_jax.training import hosts


def sample_classes(
    config: ConfigDict,
    features: np.ndarray,
    labels: np.ndarray,
    anchors: np.ndarray,
    folder: Path,
) -> np.ndarray:
    """v = u · |T(y)| for every class (paper, section 3.2); processes share out the classes.

    Args:
      config: `sampling` and `seed` are used.
      features: (n, d) of the ID training images, `labels` (n,).
      anchors: (classes, d).
      folder: a class that is done is kept there, so that an interruption loses at most one.

    Returns:
      (classes, embeddings per class, d) float32.
    """
    settings = SamplerSettings(**config.sampling)
    most = int(np.bincount(labels, minlength=len(anchors)).max())
    paths = [folder / "classes" / f"{label}.npz" for label in range(len(anchors))]
    own = range(hosts.index(), len(anchors), hosts.count())
    for label in tqdm(own, desc="sampling outliers", unit="class"):
        if not paths[label].exists():
            unit = sample_embeddings(
                features[labels == label], stage_key(config.seed, "sample", label), settings, most
            )
            write_npz(paths[label], unit=unit)
    hosts.barrier("classes sampled")
    norms = np.linalg.norm(anchors, axis=1)
    embeddings = np.stack(
        [read_npz(path)["unit"] * norm for path, norm in zip(paths, norms, strict=True)]
    )
    hosts.barrier("classes read")
    if hosts.is_main():
        shutil.rmtree(folder / "classes")
    return embeddings.astype(np.float32)
