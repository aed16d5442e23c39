"""② Embeddings of all classes, class by class, scaled to the anchors' norms."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from dream_jax.files import read_npz, write_npz
from dream_jax.keys import stage_key
from dream_jax.sampling.boundary import SamplerSettings, sample_embeddings
from dream_jax.training import hosts


def sample_classes(
    config: ConfigDict,
    features: np.ndarray,
    labels: np.ndarray,
    anchors: np.ndarray,
    folder: Path,
    kind: str = "outliers",
) -> np.ndarray:
    """v = u · |T(y)| for every class (paper, section 3.2); processes share out the classes.

    Args:
      config: `seed` and `sampling` are used, or `inliers`.
      features: (n, d) of the ID training images, `labels` (n,).
      anchors: (classes, d).
      folder: a class that is done is kept there, so that an interruption loses at most one.
      kind: "outliers", or "inliers": around any feature, where k-NN distances are smallest.

    Returns:
      (classes, embeddings per class, d) float32.
    """
    settings = SamplerSettings(**config.sampling)
    if kind == "inliers":
        given = config.inliers.to_dict()
        given = {name: given[name] for name in given if name not in ("images", "confirmed")}
        settings = dataclasses.replace(settings, largest=False, **given)
    stage = "sample" if kind == "outliers" else f"sample {kind}"
    most = int(np.bincount(labels, minlength=len(anchors)).max())
    paths = [folder / "classes" / f"{label}.npz" for label in range(len(anchors))]
    own = range(hosts.index(), len(anchors), hosts.count())
    for label in tqdm(own, desc=f"sampling {kind}", unit="class"):
        if not paths[label].exists():
            unit = sample_embeddings(
                features[labels == label], stage_key(config.seed, stage, label), settings, most
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
