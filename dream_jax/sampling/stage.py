"""② Samples outlier embeddings at the edge of each class, and inlier embeddings where used."""

import json
from collections.abc import Mapping
from functools import partial

import numpy as np
from jaxtyping import Float

from dream_jax.errors import UserError
from dream_jax.files import write_npz
from dream_jax.generator.cached import vocabulary_of
from dream_jax.results import FROM_TEXT, Features, Row, kind_shown, sample_stage
from dream_jax.run import ID_FIELDS, Work
from dream_jax.sampling.settings import (
    BY_DISTANCE,
    VOCABULARY,
    BoodSampler,
    PlainSampler,
    SamplerSettings,
    bounded_by_class,
)
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts
from dream_jax.training.finite import check_arrays

BOOD = (*ID_FIELDS, "seed", "bood", "latent_space.temperature")
WAY = (*ID_FIELDS, "seed", "sampling.method")
COUNT = ("sampling.rounds", "sampling.per_round", "sampling.keep")
DISTANCE = (
    *("sampling.k", "sampling.boundary", "sampling.candidates", "sampling.scale"),
    *("sampling.noise", "sampling.selection"),
)
TOKENS = ("data.class_tokens", "generator.path", "generator.revision")
# By `sampling.method`.
OUTLIERS = {
    **dict.fromkeys(BY_DISTANCE, (*WAY, *COUNT, *DISTANCE)),
    **dict.fromkeys(("random", "mean", "token"), (*WAY, *COUNT, "sampling.scale")),
    "interpolation": (*WAY, *COUNT),
    VOCABULARY: (*WAY, "sampling.words", "decoding.prompts", *TOKENS),
    **dict.fromkeys(FROM_TEXT, WAY),
    "bood": (*BOOD, "sampling.method"),
}
INLIERS = (
    *(*ID_FIELDS, "seed", "sampling.noise", "sampling.selection", "inliers.k"),
    *("inliers.per_round", "inliers.candidates", "inliers.scale", "inliers.keep", "inliers.rounds"),
)


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns "sample", and a stage for each other kind of embeddings that a training uses."""
    shown = {kind_shown(settings, row.extra) for row in rows}
    found = [_stage("outliers", "embeddings", OUTLIERS[settings.sampling.method])]
    for kind, reads in (("bood", BOOD), ("inliers", INLIERS)):
        if kind in shown:
            found.append(_stage(kind, f"embeddings/{kind}", reads))
    return found


def _stage(kind: str, folder: str, reads: tuple[str, ...]) -> Stage:
    name, made = sample_stage(kind), partial(make, kind=kind)
    return Stage(name, "sample", folder, reads, made, ("learn",), check=partial(check, kind=kind))


def _by_bood(settings: Settings, kind: str) -> bool:
    return kind == "bood" or (kind == "outliers" and settings.sampling.method == "bood")


def check(work: Work, kind: str) -> None:
    """Checks that the classes are as many, and as large, as the sampler needs, and the words."""
    settings = work.settings
    if _by_bood(settings, kind):
        return _check_classes(work, "BOOD (a row, or sampling.method)")
    if kind == "inliers":
        return _check_sizes(work, {"inliers.k": settings.inliers.k})
    if settings.sampling.method == "interpolation":
        _check_classes(work, "sampling.method = 'interpolation'")
    if settings.sampling.method == VOCABULARY:
        from dream_jax.sampling.words import other_words  # imports JAX: slow

        other_words(vocabulary_of(work), _names(work))
    _check_sizes(work, bounded_by_class(settings.sampling))


def _names(work: Work) -> list[str]:
    """Returns what no word may be of: names of classes, words given for them, and prompts."""
    prompts = [prompt.replace("{name}", " ") for prompt in work.settings.decoding.prompts]
    return [*work.train.class_names, *work.settings.data.class_tokens.values(), *prompts]


def _check_sizes(work: Work, needed: Mapping[str, int]) -> None:
    """Checks that each class has as many images as each of some settings."""
    if not needed:
        return
    sizes = np.bincount(work.train.labels, minlength=len(work.train.class_names))
    smallest = int(sizes.argmin())
    for field, value in needed.items():
        if value > sizes[smallest]:
            raise UserError(
                f"config.{field} is {value}; it must be at most {sizes[smallest]}, the number of "
                f"images of class {work.train.class_names[smallest]!r}"
            )


def _check_classes(work: Work, asked: str) -> None:
    """Checks that there is something between classes, which `asked` needs."""
    if len(work.train.class_names) < 2:
        raise UserError(
            f"config.data.id is {work.settings.data.id!r}; {asked} needs two classes or more, with "
            f"a boundary between them"
        )


def make(work: Work, kind: str) -> None:
    """Writes `<kind>.npz`: (classes, n, d) embeddings with the settings and the seed.

    Where they are words, `words` has these, (n,). Says in one line if outlier embeddings
    have collapsed; inliers lie near each other by design.
    """
    from dream_jax.variety import collapse_note, count_distinct  # compiles with JAX: slow to import

    settings = work.settings
    known, path = work.run.features, work.run.folder("learn") / "features.npz"
    advice = "redo it with --stages=learn --overwrite"
    check_arrays({"features": known.features, "anchors": known.anchors}, str(path), advice)
    if kind == "outliers" and settings.sampling.method == VOCABULARY:
        embeddings, more = _words(work, known)
    else:
        embeddings, more = _vectors(work, known, kind), {}
    if hosts.is_main():
        parameters = work.run.record(work.stage.name).settings
        write_npz(
            work.folder / f"{kind}.npz",
            embeddings=embeddings,
            parameters=np.array(json.dumps(parameters)),
            seed=np.array(settings.seed),
            **more,
        )
        if kind == "outliers":
            distinct, count = count_distinct(embeddings)
            of_classes = dict(zip(work.train.class_names, distinct, strict=True))
            if note := collapse_note(of_classes, count):
                print(f"warning: {note}", flush=True)


def _vectors(work: Work, known: Features, kind: str) -> Float[np.ndarray, "classes n d"]:
    """Returns the embeddings of a kind that are sampled class by class."""
    from dream_jax.sampling.classes import sample_classes

    settings = work.settings
    sampler: BoodSampler | SamplerSettings | PlainSampler
    if _by_bood(settings, kind):
        sampler = BoodSampler.of(settings)
    elif kind == "inliers":
        sampler = SamplerSettings.of_inliers(settings.inliers, settings.sampling)
    elif settings.sampling.method in BY_DISTANCE:
        sampler = SamplerSettings.of_outliers(settings.sampling)
    else:
        sampler = PlainSampler.of(settings.sampling)
    return sample_classes(settings.seed, sampler, known, work.folder, kind)


def _words(
    work: Work, known: Features
) -> tuple[Float[np.ndarray, "classes n d"], dict[str, np.ndarray]]:
    """Returns embeddings that are words, and the words; says how many there are."""
    from dream_jax.sampling.words import sample_words

    count = work.settings.sampling.words
    embeddings, words = sample_words(vocabulary_of(work), _names(work), known.anchors, count)
    if hosts.is_main():
        fewer = "" if len(words) == count else f", fewer than sampling.words = {count:,}"
        print(f"outliers are of {len(words):,} words{fewer}: {', '.join(words[:16])}", flush=True)
    return embeddings, {"words": np.array(words)}
