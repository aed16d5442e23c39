"""Embeddings of all classes, class by class, scaled to the anchors' norms."""

import shutil
from pathlib import Path

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from dream_jax.files import read_npz, write_npz
from dream_jax.keys import stage_key
from dream_jax.run import Features
from dream_jax.sampling.rounds import SamplerSettings, sample_embeddings
from dream_jax.training import hosts


def sample_classes(
    seed: int, settings: SamplerSettings, known: Features, folder: Path, kind: str = "outliers"
) -> Float[np.ndarray, "classes embeddings d"]:
    """Samples v = u · |T(y)| for every class (paper, section 3.2); processes share the classes.

    Args:
      seed: of the run.
      settings: of the sampler.
      known: features of the ID training images, and the anchors T(y).
      folder: a class that is done is kept there, so that an interruption loses at most one.
      kind: "outliers" or "inliers", for the random keys and the progress bar.

    Returns:
      The embeddings, float32.
    """
    stage = "sample" if kind == "outliers" else f"sample {kind}"
    classes = len(known.anchors)
    most = int(np.bincount(known.labels, minlength=classes).max())
    paths = [folder / "classes" / f"{label}.npz" for label in range(classes)]
    own = range(hosts.index(), classes, hosts.count())
    for label in tqdm(own, desc=f"sampling {kind}", unit="class"):
        if not paths[label].exists():
            features = known.features[known.labels == label]
            unit = sample_embeddings(features, stage_key(seed, stage, label), settings, most)
            write_npz(paths[label], unit=unit)
    hosts.barrier("classes sampled")
    norms = np.linalg.norm(known.anchors, axis=1)
    embeddings = np.stack(
        [read_npz(path)["unit"] * norm for path, norm in zip(paths, norms, strict=True)]
    )
    hosts.barrier("classes read")
    if hosts.is_main():
        shutil.rmtree(folder / "classes")
    return embeddings.astype(np.float32)
