"""The imagined outliers one by one: how far they are from their class, and how they are read."""

from functools import partial

import numpy as np
from jaxtyping import Float, Int

from dream_jax.data.parts import read_listing
from dream_jax.files import read_json, write_npz
from dream_jax.results import PLAIN, Row, has_plain, images_of_kind, seeds_of, stage_of
from dream_jax.run import Run, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts

NAME = "evaluate outliers"
FILE = "outliers.npz"
PARTS = ("used", "too_sure", "too_unsure")  # of the outliers, by the filter of the training


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns one stage, in which the plain classifier of the first seed reads the outliers.

    A run without a plain classifier has distances alone.
    """
    plain, seed = has_plain(rows), seeds_of(settings)[0]
    judge = [stage_of("train", PLAIN, seed, settings.seed)] if plain else []
    made = partial(make, judge=seed if plain else None)
    inputs, own = ("learn", "sample", "decode", *judge), {"seed": seed}
    reads = ("sampling.k",)
    return [Stage(NAME, "evaluate", "evaluation/outliers", reads, made, inputs, own, derived=True)]


def make(work: Work, judge: int | None) -> None:
    """Writes outliers.npz, in the order of the images: d_k, and how the plain classifier reads.

    `d_k` is the squared distance of the unit embedding that an image was decoded from to the k-th
    nearest feature of its class, k being `sampling.k`; `own` the probability of that class,
    `read` the class that is most probable, and `surest` its probability.
    """
    run, found = work.run, {}
    if judge is not None:
        from scipy.special import softmax

        images, labels = run.decoded("outliers")
        probabilities = softmax(run.classifier(PLAIN, judge).logits(images), axis=-1)
        found = {
            "own": probabilities[np.arange(len(labels)), labels],
            "read": probabilities.argmax(-1).astype(np.int32),
            "surest": probabilities.max(-1),
        }
    if hosts.is_main():
        listed = read_listing(run.folder("decode"), images_of_kind(run.settings, "outliers"))
        chosen = np.asarray([[entry["label"], entry["embedding"]] for _, entry in listed])
        write_npz(work.folder / FILE, d_k=_distances(work, chosen), **found)


def _distances(work: Work, chosen: Int[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """Returns d_k of embeddings, given by their class and their number in it."""
    from dream_jax.knn import d_k  # compiles with JAX: slow to import

    known, embeddings = work.run.features, work.run.embeddings("outliers")
    distances = np.empty(len(chosen), np.float32)
    for label in np.unique(chosen[:, 0]):
        own = chosen[:, 0] == label
        features, vectors = known.features[known.labels == label], embeddings[label, chosen[own, 1]]
        distances[own] = d_k(vectors, features, work.settings.sampling.k)
    return distances


def results(run: Run, seed: int) -> dict[str, dict]:
    """Returns, for each row that trains on outliers, what shares of them were used and left out."""
    found = {}
    for row in run.rows:
        if row.extra == "outliers":
            trained = run.folder(stage_of("train", row.training, seed, run.settings.seed))
            judged = read_json(trained / "outliers.json")
            parts = {name: judged[name] / judged["outliers"] for name in PARTS}
            found[row.key] = {"outliers": parts}
    return found
