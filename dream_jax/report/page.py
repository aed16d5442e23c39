"""The report of a run, from the arrays that its stages left."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dream_jax.report import figures
from dream_jax.report.write import write_report


class RunResults(NamedTuple):
    """What a finished run shows; images are (n, H, W, C) in [0, 1].

    Attributes:
      name: of the configuration.
      config_json: the configuration as text.
      metrics: the content of metrics.json.
      class_names: of the ID classes.
      features: `features`, `labels` and `anchors` of stage ①.
      embeddings: (classes, n, d) of stage ②.
      train_images, train_labels: ID training images.
      test_images, test_labels: ID test images and their classes.
      outliers, outlier_labels: decoded outliers.
      round_trips: of `test_images`.
      by_name, by_name_labels: images sampled by plain class names.
      scores: per method the scores of every set.
      titles: readable names of methods.
      judgement: the content of outliers.json of the methods that use outliers, or None.
      stages: {"stage", "seconds", "peak_memory_mb"} of each stage.
      seed: of the run, or the first of several.
      sections: titles of the groups of rows by method, or None.
    """

    name: str
    config_json: str
    metrics: Mapping
    class_names: Sequence[str]
    features: Mapping[str, np.ndarray]
    embeddings: np.ndarray
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    outliers: np.ndarray
    outlier_labels: np.ndarray
    round_trips: np.ndarray
    by_name: np.ndarray
    by_name_labels: np.ndarray
    scores: Mapping[str, Mapping[str, np.ndarray]]
    titles: Mapping[str, str]
    judgement: Mapping | None
    stages: Sequence[Mapping]
    seed: int
    sections: Mapping[str, str] | None = None


MAX_HISTOGRAMS = 6  # with more methods, one grid shows the scores of all

KEPT = ("round_trips", "sampled_by_name")


def make_page(results: RunResults, folder: Path) -> Path:
    """Draws all figures into `folder` and writes the page; returns the page's path."""
    r = results
    shown: list[dict] = []
    seeds = list(r.metrics.get("by_seed", [r.seed]))

    def add(path: Path, title: str, caption: str) -> None:
        shown.append({"path": path, "title": title, "caption": caption})

    add(
        figures.image_grid_by_class(
            r.train_images,
            r.train_labels,
            r.outliers,
            r.outlier_labels,
            r.class_names,
            folder / "outliers.png",
        ),
        "Imagined outliers",
        "Per class: images of the training set, and outliers decoded from embeddings at its edge.",
    )
    add(
        figures.decoded_id_sheet(
            r.test_images,
            r.test_labels,
            r.round_trips,
            r.by_name,
            r.by_name_labels,
            r.class_names,
            folder / "decoded_id.png",
        ),
        "Decoded images of the classes",
        "Test images, the same through the autoencoder and back, and images sampled by plain class "
        "name. A detector that knows outliers by the decoder's traces would refuse the last two.",
    )
    known = r.features
    add(
        figures.tsne_anchors(
            known["features"],
            known["labels"],
            known["anchors"],
            r.class_names,
            folder / "tsne_classes.png",
            r.seed,
        ),
        "Text-conditioned latent space",
        "t-SNE of the features of training images with the anchors, the classes' token embeddings "
        "(as the paper's figure 3).",
    )
    middle = len(r.class_names) // 2
    add(
        figures.tsne_outliers(
            known["features"][known["labels"] == middle],
            r.embeddings[middle],
            r.class_names[middle],
            folder / "tsne_outliers.png",
            r.seed,
        ),
        f"Outlier embeddings of the class {r.class_names[middle]}",
        "t-SNE of the features of one class and the embeddings sampled at its edge (as the paper's "
        "figure 4).",
    )
    if "std" in r.metrics or "bootstrap" in r.metrics:
        add(
            figures.row_comparison(r.metrics, folder / "comparison.png", r.titles, r.sections),
            "How the rows compare",
            "FPR95, the mean over OOD sets. The deviation is that over trainings with other seeds, "
            "the interval that over draws of test images.",
        )
    if len(r.scores) > MAX_HISTOGRAMS:
        first = r.metrics["methods"][next(iter(r.scores))]
        add(
            figures.score_grid(
                r.scores, [s for s in first["ood"] if s != "mean"], folder / "scores.png", r.titles
            ),
            "Scores of all methods",
            "ID test images against each OOD set, each method on its own scale"
            + (f", seed {r.seed}." if len(seeds) > 1 else "."),
        )
    else:
        for method, scores in r.scores.items():
            ood = [s for s in r.metrics["methods"][method]["ood"] if s != "mean"]
            add(
                figures.score_histograms(
                    scores["id"],
                    {name: scores[name] for name in ood},
                    {name: scores[name] for name in KEPT},
                    r.titles[method],
                    folder / f"scores_{method}.png",
                ),
                f"Scores of {r.titles[method]}",
                "ID test images against each OOD set; last, decoded images of the classes, which "
                "should lie with the ID images.",
            )
    facts = []
    if r.judgement:
        j = r.judgement
        facts = [
            (
                "Outliers that the plain classifier gives to their class",
                f"{j['in_class']:.1%}",
                "with a confidence of at least 95 %",
            ),
            (
                "Outliers that it gives to any class",
                f"{j['in_any_class']:.1%}",
                "with a confidence of at least 95 %",
            ),
            (
                "Outliers used in training",
                f"{j['used']} of {j['outliers']}",
                "after classifier.filter_confidence",
            ),
            (
                "Images sampled by plain name that are legible",
                f"{j['legible']:.1%}",
                "read by the plain classifier as the class asked for",
            ),
        ]
    return write_report(
        folder,
        title=f"Dream-OOD: {r.name}, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}",
        metrics=r.metrics,
        config_json=r.config_json,
        stages=r.stages,
        figures=shown,
        facts=facts,
        names=r.titles,
        sections=r.sections,
    )
