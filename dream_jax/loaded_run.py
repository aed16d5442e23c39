"""A run's folder, opened for use: results as arrays and frames, its rows as detectors.

    import dream_jax

    run = dream_jax.load_run("runs/quickstart")
    run.metrics                                   a pandas frame, a line for each row and seed
    run.score(images, row="dream_ood")            (n,) scores, higher is more ID

Nothing here writes to the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from dream_jax import pipeline
from dream_jax.checks import typed
from dream_jax.data.groups import ood_names
from dream_jax.data.images import Images
from dream_jax.data.registry import set_title
from dream_jax.decoding.stage import decode_given
from dream_jax.errors import UserError
from dream_jax.evaluation.evaluators import ood
from dream_jax.evaluation.report.stage import curves
from dream_jax.files import read_json
from dream_jax.record import RECORD
from dream_jax.results import Features, Row, decode_stage, stage_of
from dream_jax.rows import SELECTIONS, make_rows
from dream_jax.run import Run
from dream_jax.run_config import FILE, read_config
from dream_jax.settings import Settings, flatten
from dream_jax.zero_shot.rows import CLIP

if TYPE_CHECKING:
    import pandas as pd

    from dream_jax.detector.classifier import Classifier
    from dream_jax.detector.scoring import Scorer

DECODED = ("outliers", "bood", "inliers", "by_name", "by_name_test")
ROUND_TRIPS = ("round_trips_train", "round_trips_test")


def load_run(folder: str | os.PathLike[str]) -> LoadedRun:
    """Opens the folder of a run, which need not be finished.

    Args:
      folder: what `--workdir` was.

    Raises:
      UserError: no run is there, or one that another version of the program made.
    """
    root = Path(folder).expanduser()
    if not (root / FILE).is_file():
        raise UserError(
            f"{root}: is no folder of a run: it has no {FILE}; `make quickstart` makes one in "
            f"runs/quickstart"
        )
    settings = typed(Settings, read_config(root), "")
    rows = _measured(make_rows(settings), root, settings.methods in SELECTIONS)
    return LoadedRun(pipeline.make_run(settings, root, rows))


def _measured(rows: tuple[Row, ...], root: Path, selected: bool) -> tuple[Row, ...]:
    """Returns the rows without those that a finished run has left out."""
    file = root / "metrics.json"
    able = [selected or row.training == CLIP for row in rows]  # to be left out
    if not any(able) or not file.is_file():
        return rows
    measured = read_json(file)["methods"]
    return tuple(row for row, may in zip(rows, able, strict=True) if not may or row.key in measured)


class LoadedRun:
    """What a run's folder holds, read when it is asked for.

    Every part raises UserError, in one line, if the stage that makes it is not done.

    Attributes:
      settings: the configuration.
      folder: of the run.
    """

    def __init__(self, run: Run):
        self.settings, self.folder, self._run = run.settings, run.workdir, run
        self._scorers: dict[tuple[str, int], Scorer] = {}

    def __repr__(self) -> str:
        return f"LoadedRun({str(self.folder)!r}, rows={list(self.rows)})"

    @property
    def rows(self) -> dict[str, str]:
        """Key → title of the rows of the table."""
        return {row.key: row.title for row in self._run.rows}

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the classifiers; the first is used where none is asked for."""
        return self._run.seeds

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The ID classes, in the order of labels and logits."""
        return self._run.work("learn").train.class_names

    # Steps ① to ③.

    @property
    def features(self) -> Features:
        """`features` (n, d) of the ID training images, their `labels`, `anchors` (classes, d)."""
        self._require("learn")
        return self._run.features

    @property
    def embeddings(self) -> Float[np.ndarray, "classes n d"]:
        """The outlier embeddings, each of the length of its class's anchor."""
        self._require("sample")
        return self._run.embeddings()

    @property
    def inlier_embeddings(self) -> Float[np.ndarray, "classes n d"]:
        """The inlier embeddings, in a run with a row that trains on inliers."""
        self._require("sample inliers")
        return self._run.embeddings("inliers")

    def images(self, kind: str) -> tuple[Images, Int[np.ndarray, " n"]]:
        """Returns images, and the labels of their classes; OOD sets have none.

        Args:
          kind: "train", "test", "outliers", "bood", "inliers", "by_name", "by_name_test",
            "round_trips_train", "round_trips_test", or the name of an OOD set.

        Returns:
          Images like an array (n, H, W, C) in [0, 1], read when they are indexed; and (n,) labels.

        Raises:
          UserError: the run has no such images, or they are not on this machine.
        """
        work = self._run.work("learn")
        if kind in ("train", "test", *ROUND_TRIPS):
            part = kind.removeprefix("round_trips_")
            own = work.train if part == "train" else work.test
            if kind == part:
                return own.images, own.labels
            self._require(f"round trips {part}")
            return self._run.round_trips(part), own.labels
        if kind in DECODED:
            self._require(decode_stage(kind))
            return self._run.decoded(kind)
        sets = [set_title(name) for name in ood_names(self.settings.data)]
        if kind not in sets:
            known = ", ".join(("train", "test", *DECODED, *ROUND_TRIPS, *sets))
            raise UserError(f"a run has no images {kind!r}; allowed: {known}")
        evaluation = self._run.work(self._stage("evaluate", self._run.rows[0], None))
        found = ood.ood_sets(evaluation, ood.use_of(self.settings))
        if kind not in found:
            raise UserError(f"the images of OOD set {kind!r} are not on this machine")
        return found[kind], np.empty(0, np.int32)

    def decode(
        self,
        embeddings: Float[np.ndarray, "n d"],
        labels: Int[np.ndarray, " n"],
        seed: int = 0,
        noise: Int[np.ndarray, " n"] | None = None,
        prompt: str | None = None,
    ) -> Float[np.ndarray, "n H W C"]:
        """Decodes any embeddings by the run's generator.

        Args:
          embeddings: such as outliers, of about the length of the anchors.
          labels: of the classes that they stand for.
          seed: of the noise that the images begin as.
          noise: numbers of the noise; images with equal numbers begin alike. All begin differently
            if not given.
          prompt: template with a {name} field; the first of `decoding.prompts` if not given.

        Returns:
          Images in [0, 1], in the size of the run's files, `decoding.image_size`.

        Raises:
          UserError: the shapes do not fit together, the embeddings are not of the generator's
            width, or an image is not finite.
        """
        given = _checked(embeddings, labels, noise)
        return decode_given(self._run.work("decode"), *given, seed, prompt)

    # Steps ④ and ⑤.

    @property
    def curves(self) -> dict[str, Mapping[str, tuple[list[int], list[float]]]]:
        """Title of a training → metric → (steps, values), of all that left some."""
        return curves(self._run)

    def classifier(self, row: str = "dream_ood", seed: int | None = None) -> Classifier:
        """Returns the trained classifier of a row, or of a training such as "cross_entropy".

        `classifier.logits(images)` are its outputs.
        """
        training = row if f"train {row}" in self._run.stages else self.row(row).training
        own = self._seed(seed)
        self._require(stage_of("train", training, own, self.settings.seed))
        return self._run.classifier(training, own)

    def score(
        self, images: Any, row: str = "dream_ood", seed: int | None = None
    ) -> Float[np.ndarray, " n"]:
        """Returns the scores of images by a row, higher is more ID.

        They are those that the run's evaluation gives to the same images. Where the detector has
        something to fit, the first call fits it to the run's ID training images.

        Args:
          images: `Images`, or an array (n, H, W, C): bytes, or floats in [0, 1]; in the size and
            with the channels of the run.

        Raises:
          UserError: the run has no such row or seed, or the images are none that it takes.
        """
        return self.scorer(row, seed)(_of_shape(self.settings, images))[1][row]

    def scorer(self, row: str = "dream_ood", seed: int | None = None) -> Scorer:
        """Returns images → (logits (n, classes), {row: scores (n,)}), in one pass over them."""
        own, key = self.row(row), (row, self._seed(seed))
        if key not in self._scorers:
            train = self._run.work("learn").train
            detectors = {row: (own.detector, own.options)}
            self._scorers[key] = self.classifier(row, seed).fit(detectors, train)
        return self._scorers[key]

    def scores(
        self, row: str = "dream_ood", seed: int | None = None
    ) -> dict[str, Float[np.ndarray, " n"]]:
        """Returns set → the scores of its images: "id", the OOD sets, "round_trips", ..."""
        own = self.row(row)
        self._require(self._stage("evaluate", own, seed))
        return self._run.scores(self._seed(seed), [own])[row]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """What metrics.json holds of each row and seed, as fractions.

        The lines have the index (row, seed); the columns are (set, measure): `fpr95`, `auroc`, ...
        of each OOD set, of groups and of all ("mean"), ("id", "accuracy"), ("kept", ...), and where
        there are such ("shifted", ...) and ("outliers", ...), the shares of them that were used.
        """
        self._require("metrics")
        return _frame(self._run.metrics["by_seed"], self.rows)

    # What the above share.

    def row(self, key: str) -> Row:
        """Returns a row of the table by its key.

        Raises:
          UserError: the run does not have it.
        """
        for own in self._run.rows:
            if own.key == key:
                return own
        raise UserError(f"{self.folder}: the run has no row {key!r}; it has {', '.join(self.rows)}")

    def _seed(self, seed: int | None) -> int:
        if seed is not None and seed not in self.seeds:
            raise UserError(f"{self.folder}: the run has no seed {seed}; it has {self.seeds}")
        return self.seeds[0] if seed is None else seed

    def _stage(self, step: str, row: Row, seed: int | None) -> str:
        return stage_of(step, row.training, self._seed(seed), self.settings.seed)

    def _require(self, name: str) -> None:
        """Raises UserError unless the run has a stage and it is done."""
        if name not in self._run.stages:
            known = ", ".join(self._run.stages)
            raise UserError(f"{self.folder}: the run has no stage {name!r}; it has {known}")
        record = self._run.folder(name) / RECORD
        if not record.is_file() or not read_json(record).get("done"):
            raise UserError(
                f"{self.folder}: stage {name!r} of the run is not done; finish it with the command "
                f"that began it"
            )


def _of_shape(settings: Settings, images: Any) -> Images:
    """Returns images in the size and with the channels of a run."""
    if not isinstance(images, Images):
        images = _as_images(np.asarray(images))
    data, found = settings.data, images.shape[1:]
    expected = (data.image_size, data.image_size, data.channels)
    if found != expected:
        raise UserError(
            f"images have the shape (n, {', '.join(map(str, found))}); those of the run have "
            f"(n, {', '.join(map(str, expected))})"
        )
    return images


def _as_images(array: np.ndarray) -> Images:
    """Returns the images of an array of bytes or of floats in [0, 1]."""
    if array.ndim != 4 or not array.size:
        raise UserError(f"images have the shape {array.shape}; it must be (n, H, W, C)")
    if array.dtype != np.uint8 and not (
        array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1
    ):
        raise UserError(
            f"images are {array.dtype} from {array.min():g} to {array.max():g}; they must be bytes "
            f"(uint8), or floats in [0, 1]"
        )
    return Images.of(array)


def _checked(embeddings: Any, labels: Any, noise: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns arrays whose shapes go together; numbers of the noise if none are given."""
    numbers = np.arange(len(embeddings)) if noise is None else np.asarray(noise)
    found = np.asarray(embeddings), np.asarray(labels), numbers
    shapes = [array.shape for array in found]
    if len(shapes[0]) != 2 or not shapes[0][0] or {*shapes[1:]} != {shapes[0][:1]}:
        raise UserError(
            f"embeddings, labels and noise have the shapes {shapes}; they must be (n, d), (n,) and "
            f"(n,)"
        )
    return found


def _frame(by_seed: Mapping[str, Mapping], rows: Iterable[str]) -> pd.DataFrame:
    import pandas as pd

    lines = {
        (row, int(seed)): dict(_columns(entries[row]))
        for row in rows
        for seed, entries in by_seed.items()
    }
    frame = pd.DataFrame(list(lines.values()))
    frame.index = pd.MultiIndex.from_tuples(list(lines), names=("row", "seed"))
    frame.columns = pd.MultiIndex.from_tuples(list(frame.columns), names=("set", "measure"))
    return frame


def _columns(entry: Mapping[str, Any]) -> list[tuple[tuple[str, str], float]]:
    """Returns the columns of a row's entry in metrics.json with their numbers."""
    found = []
    for name, number in flatten(entry).items():
        if name.startswith("full_spectrum."):
            continue
        group, *rest = name.split(".") if "." in name else name.split("_", 1)
        if group in ("ood", "groups"):  # a set's name may have dots
            group, rest = ".".join(rest[:-1]), rest[-1:]
        found.append(((group, ".".join(rest)), number))
    full = _columns(entry["full_spectrum"]) if "full_spectrum" in entry else []
    return found + [((f"full spectrum: {of}", measure), number) for (of, measure), number in full]
