"""The outlier embeddings of each class: how varied they are, and where they lie."""

import numpy as np

from dream_jax.files import write_json
from dream_jax.results import Row
from dream_jax.run import ID_FIELDS, Run, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts

NAME = "evaluate embeddings"
READS = (*ID_FIELDS, "sampling.k", "sampling.boundary")
MEANS = ("distinct_share", "effective_rank")


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns one stage: embeddings are those of the run's seed, whatever the rows."""
    inputs = ("learn", "sample")
    return [Stage(NAME, "evaluate", "evaluation/embeddings", READS, make, inputs, derived=True)]


def make(work: Work) -> None:
    """Writes results.json, the part `embeddings` of metrics.json.

    `classes` has the measures of `variety.measure` by the name of the class, and `distinct_share`;
    `mean` those of `MEANS`, over the classes; `count`, `grouped` and `placed` are the embeddings of
    a class, and of how many of them the groups and the places were measured.
    """
    if not hosts.is_main():
        return
    from tqdm import tqdm

    from dream_jax import variety  # compiles with JAX: slow to import

    embeddings = work.run.embeddings("outliers")
    sampling, names = work.settings.sampling, work.train.class_names
    count = embeddings.shape[1]
    grouped, placed = (min(count, most) for most in (variety.MOST_GROUPED, variety.MOST_PLACED))
    measured = variety.measure(work.run.features, embeddings, sampling.k, sampling.boundary)
    bar = tqdm(measured, desc="measuring embeddings", unit="class", total=len(names))
    classes = {
        name: {"distinct_share": own["distinct"] / grouped} | own
        for name, own in zip(names, bar, strict=True)
    }
    results = {
        "count": count,
        "grouped": grouped,
        "placed": placed,
        "same_cosine": variety.SAME,
        "k": sampling.k,
        "mean": {key: float(np.mean([own[key] for own in classes.values()])) for key in MEANS},
        "classes": classes,
    }
    write_json(work.folder / "results.json", results)


def results(run: Run, seed: int) -> dict[str, dict]:
    """Returns nothing: this is about the embeddings, not about a row."""
    return {}
