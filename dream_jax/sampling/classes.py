"""Embeddings of all classes, class by class, scaled to the norms of the anchors."""

import shutil
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int
from tqdm import tqdm

from dream_jax.files import read_npz, write_npz
from dream_jax.keys import stage_key
from dream_jax.results import sample_stage
from dream_jax.sampling.bood import cross_boundary, embeddings_per_class
from dream_jax.sampling.plain import sample_plain
from dream_jax.sampling.rounds import sample_embeddings
from dream_jax.sampling.settings import BoodSampler, PlainSampler, SamplerSettings
from dream_jax.training import hosts


class Known(Protocol):
    """What stage ① has learned: the features h(x) of ID images, their classes, the anchors T(y)."""

    @property
    def features(self) -> Float[np.ndarray, "n d"]: ...
    @property
    def labels(self) -> Int[np.ndarray, " n"]: ...
    @property
    def anchors(self) -> Float[np.ndarray, "classes d"]: ...


def sample_classes(
    seed: int,
    settings: SamplerSettings | BoodSampler | PlainSampler,
    known: Known,
    folder: Path,
    kind: str = "outliers",
) -> Float[np.ndarray, "classes embeddings d"]:
    """Samples v = u · |T(y)| for every class (Dream-OOD, section 3.2).

    Processes share out the classes, and all return all embeddings.

    Args:
      seed: of the run.
      settings: of the sampler.
      known: features to sample around, with their labels, and the anchors.
      folder: keeps each class that is done until all are, so that an interruption loses at most
        one class.
      kind: "outliers", "bood" or "inliers"; names the random keys and the progress bar.

    Returns:
      The embeddings, float32.
    """
    classes = len(known.anchors)
    most = int(np.bincount(known.labels, minlength=classes).max())
    paths = [folder / "classes" / f"{label}.npz" for label in range(classes)]
    own = range(hosts.index(), classes, hosts.count())
    for label in tqdm(own, desc=f"sampling {kind}", unit="class"):
        if not paths[label].exists():
            features = known.features[known.labels == label]
            key = stage_key(seed, sample_stage(kind), label)
            if isinstance(settings, BoodSampler):
                count = embeddings_per_class(known.labels, classes, settings.share)
                unit = cross_boundary(features, label, known.anchors, settings, count, most)
            elif isinstance(settings, PlainSampler):
                unit = sample_plain(features, label, known.anchors, key, settings)
            else:
                unit = sample_embeddings(features, key, settings, most)
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
