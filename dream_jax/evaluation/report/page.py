"""What is on the page of a report: figures and facts, from what a run has left."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from dream_jax.data.images import Images
from dream_jax.evaluation.report import (
    charts,
    comparison,
    embedding_table,
    embeddings,
    gallery,
    image_sheets,
    scores,
)
from dream_jax.evaluation.report.layouts import GROUP_TITLES, readable
from dream_jax.evaluation.report.maps import TITLES
from dream_jax.evaluation.report.write import Page, write_report
from dream_jax.legible import legible
from dream_jax.results import FROM_TEXT

MAX_HISTOGRAMS = 6  # with more rows, one grid shows the scores of all
KEPT = ("round_trips", "sampled_by_name")
# Where embeddings are with regard to their class, by `sampling.method`.
PLACES = {
    "knn": "at its edge",
    "bood": "behind its boundary",
    "core": "around its core",
    "random": "around random features of it",
    "mean": "around its mean feature",
    "token": "around its token's embedding",
    "interpolation": "between its token's and another class's",
    "vocabulary": "at the tokens of words far from all classes",
}
# Labelled images: of a split, or decoded ones with the classes that they were made for.
Labelled = tuple[Images, Int[np.ndarray, " n"]]


@dataclass(frozen=True, eq=False)
class RunResults:
    """What a finished run shows.

    Attributes:
      name: of the configuration.
      config_json: the configuration as text.
      metrics: the content of metrics.json.
      class_names: of the ID classes.
      features, feature_labels, anchors: of stage ①.
      embeddings: of stage ②.
      train, test: ID images.
      outliers: decoded outliers.
      round_trips: of the test images.
      by_name: images sampled by plain class names.
      scores: per row the scores of every set.
      titles: what tables call the rows.
      sections: titles of the groups of rows, or None.
      judgements: the content of outliers.json by the title of each training that has one.
      legible: the share of `by_name` that the plain classifier reads as asked, where it was
        measured.
      stages: {"stage", "seconds", "peak_memory_mb", "start_memory_mb"} of each stage; see
        `write.Page`.
      seed: of the run, or the first of several.
      readings: of the outliers, see evaluators/outliers.py; {} where there are none.
      curves: of each training, by its title.
      command: that made the run, or "".
      versions: of what it was made with, by name.
      figure_class: whose outlier embeddings are drawn; "" for the class in the middle.
      map: "tsne" or "umap".
      bood: BOOD's decoded outliers, where they are not those of the run.
      method: `sampling.method`.
    """

    name: str
    config_json: str
    metrics: Mapping
    class_names: Sequence[str]
    features: Float[np.ndarray, "n d"]
    feature_labels: Int[np.ndarray, " n"]
    anchors: Float[np.ndarray, "classes d"]
    embeddings: Float[np.ndarray, "classes m d"]
    train: Labelled
    test: Labelled
    outliers: Labelled
    round_trips: Images
    by_name: Labelled
    scores: Mapping[str, Mapping[str, np.ndarray]]
    titles: Mapping[str, str]
    sections: Mapping[str, str] | None
    judgements: Mapping[str, Mapping[str, Any]]
    legible: float | None
    stages: Sequence[Mapping]
    seed: int
    readings: Mapping[str, np.ndarray] = field(default_factory=dict)
    curves: Mapping[str, charts.Curves] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    figure_class: str = ""
    map: str = "tsne"
    bood: Labelled | None = None
    method: str = "knn"

    @property
    def seeds(self) -> list:
        return list(self.metrics.get("by_seed", [self.seed]))

    def ood(self, row: str) -> list[str]:
        """Returns the names of the OOD sets that a row was measured on."""
        return [name for name in self.metrics["methods"][row]["ood"] if name != "mean"]


class Shown(NamedTuple):
    """A figure on the page."""

    path: Path
    title: str
    caption: str


def _source(method: str) -> str:
    """Returns what outliers are decoded from, by `sampling.method`."""
    return "texts" if method in FROM_TEXT else f"embeddings {PLACES[method]}"


def outliers(r: RunResults, folder: Path) -> list[Shown]:
    """Draws imagined outliers next to ID images."""
    path = folder / "outliers.png"
    image_sheets.image_grid_by_class(*r.train, *r.outliers, r.class_names, path)
    caption = (
        f"Per class: images of the training set, and outliers decoded from {_source(r.method)}."
    )
    shown = [Shown(path, "Imagined outliers", caption)]
    if r.bood is not None:
        path = folder / "outliers_bood.png"
        image_sheets.image_grid_by_class(*r.train, *r.bood, r.class_names, path)
        caption = "The same with embeddings from behind the boundary of the class."
        shown.append(Shown(path, "Imagined outliers of BOOD", caption))
    return shown


def decoded_id(r: RunResults, folder: Path) -> list[Shown]:
    """Draws decoded images of the classes."""
    path = folder / "decoded_id.png"
    image_sheets.decoded_id_sheet(*r.test, r.round_trips, *r.by_name, r.class_names, path)
    caption = (
        "Test images, the same through the autoencoder and back, and images sampled by plain class "
        "name. A detector that knows outliers by the decoder's traces would refuse the last two."
    )
    return [Shown(path, "Decoded images of the classes", caption)]


def latent_space(r: RunResults, folder: Path) -> list[Shown]:
    """Draws a map of the features with the anchors."""
    path = folder / f"{r.map}_classes.png"
    known = (r.features, r.feature_labels, r.anchors)
    embeddings.map_anchors(*known, r.class_names, path, r.seed, r.map)
    caption = (
        f"{TITLES[r.map]} of the features of training images with the anchors, the classes' token "
        f"embeddings (as the paper's figure 3)."
    )
    return [Shown(path, "Text-conditioned latent space", caption)]


def outlier_embeddings(r: RunResults, folder: Path) -> list[Shown]:
    """Draws a map of one class's features and its outlier embeddings."""
    chosen = r.figure_class or r.class_names[len(r.class_names) // 2]
    path, label = folder / f"{r.map}_outliers.png", [*r.class_names].index(chosen)
    own, name = r.features[r.feature_labels == label], legible(chosen)
    embeddings.map_outliers(own, r.embeddings[label], name, path, r.seed, r.map)
    shown = "its token's embedding alone; outliers are decoded from texts"
    if r.method not in FROM_TEXT:
        shown = f"the embeddings sampled {PLACES[r.method]} (as the paper's figure 4)"
    caption = (
        f"{TITLES[r.map]} of the features of one class and {shown}. report.figure_class names the "
        f"class."
    )
    return [Shown(path, f"Outlier embeddings of the class {name}", caption)]


def compared_rows(r: RunResults, folder: Path) -> list[Shown]:
    """Draws how the rows compare, where there are several or several seeds."""
    if "std" not in r.metrics and "bootstrap" not in r.metrics:
        return []
    path = folder / "comparison.png"
    comparison.row_comparison(r.metrics, path, r.titles, r.sections)
    caption = (
        "FPR95, the mean over OOD sets. The deviation is that over trainings with other seeds, "
        "the interval that over draws of test images."
    )
    shown = [Shown(path, "How the rows compare", caption)]
    for group, titles in r.metrics.get("groups", {}).items():
        path = folder / f"comparison_{group}.png"
        comparison.row_comparison(r.metrics, path, r.titles, r.sections, group)
        sets = ", ".join(readable(title, r.titles) for title in titles)
        title = f"How the rows compare on {GROUP_TITLES[group]}"
        shown.append(Shown(path, title, f"The same over {sets}."))
    return shown


def scores_of_rows(r: RunResults, folder: Path) -> list[Shown]:
    """Draws the scores of every row, or a grid of all where there are many."""
    if len(r.scores) > MAX_HISTOGRAMS:
        path = folder / "scores.png"
        scores.score_grid(r.scores, r.ood(next(iter(r.scores))), path, r.titles)
        caption = "ID test images against each OOD set, each method on its own scale"
        seed = f", seed {r.seed}." if len(r.seeds) > 1 else "."
        return [Shown(path, "Scores of all methods", caption + seed)]
    caption = (
        "ID test images against each OOD set; last, decoded images of the classes, which should "
        "lie with the ID images."
    )
    shown = []
    for row, own in r.scores.items():
        path = folder / f"scores_{row.replace('/', '_')}.png"
        sets = {name: own[name] for name in r.ood(row)}
        kept = {name: own[name] for name in KEPT}
        scores.score_histograms(own["id"], sets, kept, r.titles[row], path)
        shown.append(Shown(path, f"Scores of {r.titles[row]}", caption))
    return shown


FIGURES: tuple[Callable[[RunResults, Path], list[Shown]], ...] = (
    outliers,
    decoded_id,
    latent_space,
    outlier_embeddings,
    compared_rows,
    scores_of_rows,
)


def facts(r: RunResults) -> list[tuple[str, str, str]]:
    """Returns (label, value, explanation) of what was measured about the imagined images."""
    found = []
    for title, judged in r.judgements.items():
        of = f" ({title})" if len(r.judgements) > 1 else ""
        confidence = "with a confidence of at least 95 %"
        used = f"{judged['used']} of {judged['outliers']}"
        found += [
            (
                f"Outliers that the plain classifier gives to their class{of}",
                f"{judged['in_class']:.1%}",
                confidence,
            ),
            (
                f"Outliers that it gives to any class{of}",
                f"{judged['in_any_class']:.1%}",
                confidence,
            ),
            (f"Outliers used in training{of}", used, "after classifier.filter_confidence"),
            *_left_out(judged, of),
        ]
    if r.legible is not None:
        explanation = "read by the plain classifier as the class asked for"
        label = "Images sampled by plain name that are legible"
        found.append((label, f"{r.legible:.1%}", explanation))
    if "embeddings" in r.metrics:
        found.append(embedding_table.fact(r.metrics["embeddings"]))
    return found


def _left_out(judged: Mapping[str, Any], of: str) -> list[tuple[str, str, str]]:
    """Returns the facts of the filter's two sides, of runs that say how many each left out."""
    sides = (
        ("too_sure", "sure", "classifier.filter_confidence or more"),
        ("too_unsure", "unsure", "below classifier.filter_least_confidence"),
    )
    return [
        (f"Outliers left out, of which it is too {word}{of}", f"{judged[key]}", explanation)
        for key, word, explanation in sides
        if key in judged
    ]


def make_page(r: RunResults, folder: Path) -> Path:
    """Draws all figures into `folder` and writes the page; returns the page's path."""
    page = Page(
        title=f"Dream-OOD: {r.name}, seed{'s' * (len(r.seeds) > 1)} {', '.join(map(str, r.seeds))}",
        metrics=r.metrics,
        config_json=r.config_json,
        stages=r.stages,
        figures=[shown._asdict() for draw in FIGURES for shown in draw(r, folder)],
        facts=facts(r),
        names=r.titles,
        sections=r.sections,
        class_names=[legible(name) for name in r.class_names],
        tiles=gallery.tiles(*r.outliers, r.readings, r.class_names, r.seed) if r.readings else [],
        small=r.outliers[0].size < gallery.THUMBNAIL // 2,
        trainings=[(title, charts.training_panels(own)) for title, own in r.curves.items()],
        roc=charts.roc_panels(
            r.scores, r.ood(next(iter(r.scores))), r.titles, r.metrics.get("groups", {})
        ),
        command=r.command,
        versions=r.versions,
    )
    return write_report(folder, page)
