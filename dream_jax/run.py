"""A run: its configuration, its folder, its images, and readers of what its stages have made."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int

from dream_jax.data.image_sets import DataOptions, ImageSet
from dream_jax.data.images import Images
from dream_jax.data.parts import read_decoded
from dream_jax.data.registry import load_id
from dream_jax.data.sources import Stored
from dream_jax.errors import DataUnavailable, UserError
from dream_jax.files import read_json, read_npz
from dream_jax.origins import ORIGINS, counted, fingerprint
from dream_jax.record import Record
from dream_jax.results import (
    Features,
    Row,
    decode_stage,
    images_of_kind,
    sample_stage,
    seeds_of,
    stage_of,
)
from dream_jax.settings import Settings, expand, is_as_before, is_neutral, view
from dream_jax.stage import Stage
from dream_jax.training import hosts

T = TypeVar("T")
# The fields that are read where the images of the ID set are.
ID_FIELDS = (
    *("data.id", "data.folder", "data.image_size", "data.channels", "data.class_names"),
    *("data.unreadable", "data.hold_bytes", "data.tfds_dir", "data.train_list", "data.test_list"),
)


CURVES = ("test_every", "wandb")  # read where something is trained


class Cache:
    """What the runs of one process share: image sets and the generator, each loaded once."""

    def __init__(self) -> None:
        self._loaded: dict[Hashable, Any] = {}

    def get(self, key: Hashable, load: Callable[[], T]) -> T:
        """Returns what `load` gave when `key` was first asked for."""
        if key not in self._loaded:
            self._loaded[key] = load()
        return self._loaded[key]


class Run:
    """A configuration with its folder. Reads results and never writes any.

    Args:
      settings: checked, see `checks.check`.
      workdir: the run's folder.
      rows: of its results.
      stages: all that it has, in order.
      cache: shared with other runs of the process.
      root_of: stage → the folder of the run that its folder lies in; this run's if not given.
    """

    def __init__(
        self,
        settings: Settings,
        workdir: Path,
        rows: Sequence[Row],
        stages: Sequence[Stage],
        cache: Cache | None = None,
        root_of: Callable[[Stage], Path] | None = None,
    ):
        self.settings, self.workdir, self.rows = settings, workdir, tuple(rows)
        self.stages = {stage.name: stage for stage in stages}
        self.cache = cache or Cache()
        self._root_of = root_of or (lambda stage: workdir)
        self._records: dict[str, Record] = {}
        self._fingerprints: dict[str, dict[str, Any]] = {}

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the classifiers; what they share has the seed of the run."""
        return seeds_of(self.settings)

    def record(self, name: str) -> Record:
        """Returns the record of a stage, with those of all stages upstream of it.

        Raises:
          UserError: images or the generator are here and cannot be read.
        """
        if name not in self._records:
            stage = self.stages[name]
            upstream: dict[str, Record] = {}
            for source in stage.inputs:
                above = self.record(source)
                upstream |= {**above.upstream, source: above}
            fields = expand(stage.reads)
            kept = [f for f in fields if not (is_neutral(f) or is_as_before(self.settings, f))]
            settings = {f: counted(self.settings, f) for f in kept}
            settings |= stage.parameters
            origins = {f: self._fingerprint(f) for f in fields if f in ORIGINS}
            self._records[name] = Record(stage, self._root_of(stage), settings, origins, upstream)
        return self._records[name]

    def _fingerprint(self, field: str) -> dict[str, Any]:
        if field not in self._fingerprints:
            self._fingerprints[field] = fingerprint(self.settings, field)
        return self._fingerprints[field]

    def look_again(self) -> None:
        """Forgets fingerprints: checks may have prepared or downloaded what was not there."""
        self._fingerprints.clear()
        self._records.clear()

    def folder(self, name: str) -> Path:
        stage = self.stages[name]
        return self._root_of(stage) / stage.folder

    def done(self, name: str) -> bool:
        """Returns whether a stage is done: the same in all processes."""
        return hosts.from_main(lambda: self.record(name).done)

    def work(self, name: str, read: set[str] | None = None) -> Work:
        """Returns what a stage works with; `read` collects the fields that it reads."""
        stage = self.stages[name]
        return Work(stage, view(self.settings, stage.reads, read), self.folder(name), self)

    # Results, each read from the files of its stage.

    @property
    def features(self) -> Features:
        found = read_npz(self.folder("learn") / "features.npz")
        return Features(found["features"], found["labels"], found["anchors"])

    def embeddings(self, kind: str = "outliers") -> Float[np.ndarray, "classes n d"]:
        """Returns the sampled "outliers", "bood" or "inliers"."""
        return read_npz(self.folder(sample_stage(kind)) / f"{kind}.npz")["embeddings"]

    def decoded(self, kind: str, size: int | None = None) -> tuple[Images, Int[np.ndarray, " n"]]:
        """Returns decoded images, and the labels of their classes.

        Args:
          kind: "outliers", "bood", "inliers", "by_name" or "by_name_test".
          size: of the images, whatever that of the files; the size of the data if not given.
        """
        data = self.settings.data
        count = images_of_kind(self.settings, kind)
        folder = self.folder(decode_stage(kind))
        size = data.image_size if size is None else size
        images, listed = read_decoded(folder, count, size, data.channels, data.hold_bytes)
        return images, np.asarray([entry["label"] for entry in listed])

    def round_trips(self, part: str) -> Images:
        """Returns the "train" or "test" images of the ID set after the autoencoder and back."""
        path = self.folder(f"round trips {part}") / "images.npy"
        data, source = self.settings.data, Stored(str(path))
        images = Images(source, np.arange(len(source)), data.image_size, data.channels, crop=False)
        return images.hold(data.hold_bytes)

    def classifier(self, training: str, seed: int) -> Any:
        """Returns a trained classifier, as the stage that trained it gives it."""
        stage = self.stages[stage_of("train", training, seed, self.settings.seed)]
        assert stage.open is not None
        return stage.open(self)

    def results(self, name: str) -> dict[str, Any]:
        """Returns the results.json of an evaluation, by the name of its stage."""
        return read_json(self.folder(name) / "results.json")

    def scores(
        self, seed: int, rows: Sequence[Row] | None = None
    ) -> dict[str, dict[str, Float[np.ndarray, " n"]]]:
        """Returns row → set → the scores of its images, of one seed; of all rows if not given."""

        def read(row: Row) -> dict[str, np.ndarray]:
            stage = stage_of("evaluate", row.training, seed, self.settings.seed)
            return read_npz(self.folder(stage) / f"scores_{row.detector}.npz")

        return {row.key: read(row) for row in (self.rows if rows is None else rows)}

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json."""
        return read_json(self.workdir / "metrics.json")


@dataclass(frozen=True)
class Work:
    """What a stage works with.

    Attributes:
      stage: its declaration.
      settings: the fields that it declares, and no others.
      folder: for its results.
      run: for the results of the stages before it.
    """

    stage: Stage
    settings: Settings
    folder: Path
    run: Run

    @property
    def train(self) -> ImageSet:
        """The ID training images."""
        return self._id_sets[0]

    @property
    def test(self) -> ImageSet:
        """The ID test images."""
        return self._id_sets[1]

    @property
    def _id_sets(self) -> tuple[ImageSet, ImageSet]:
        data = self.settings.data
        name, options = data.id, DataOptions.of(data, count=1)
        return self.run.cache.get(("ID", name, options), lambda: load_id(name, options))

    def check_classes(self, field: str, given: Mapping[str, str]) -> None:
        """Raises UserError if a field names a class that the ID set does not have."""
        names = self.train.class_names
        if unknown := sorted(set(given) - set(names)):
            raise UserError(f"config.{field} names {unknown}; allowed: {', '.join(names)}")

    def available(
        self, kind: str, names: Sequence[str], check: Callable[[str], None]
    ) -> tuple[str, ...]:
        """Returns the image sets that are on this machine; the others are named once.

        Args:
          kind: what messages call such a set.
          check: raises DataUnavailable where a set is not here.
        """

        def here() -> list[str]:
            found = []
            for name in names:
                try:
                    check(name)
                    found.append(name)
                except DataUnavailable as error:
                    print(f"skipped {kind} set: {error}", flush=True)
            return found

        key = ("available", kind, tuple(names))
        return tuple(self.run.cache.get(key, lambda: hosts.from_main(here)))
