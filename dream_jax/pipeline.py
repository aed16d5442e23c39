"""The order of the stages, and what of them is done already.

learn → sample → decode → train → evaluate → report

Of several processes (see training/hosts.py) all go through the stages together; process 0 decides
what is done, and writes the files of which a run has one.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from dream_jax import config as configuration
from dream_jax.data.images import Files, Stored, StreamedImages, subset
from dream_jax.data.parts import Pixels, read_folder, read_listing
from dream_jax.data.registry import ImageSet, check_available, load_id, load_ood, set_title
from dream_jax.detector.detectors import DETECTORS
from dream_jax.detector.methods import METHODS, Method
from dream_jax.errors import DataUnavailable, UserError
from dream_jax.files import (
    Stage,
    read_json,
    read_npy,
    read_npz,
    write_json,
    write_npz,
    write_rows,
)
from dream_jax.generator.load import generator_folder
from dream_jax.plan import DECODED, PLAIN, TITLES, Plan
from dream_jax.training import hosts

STAGES = ("learn", "sample", "decode", "train", "evaluate", "report")
# Sets of decoded ID images, whose scores are to stay those of ID images.
KEPT = ("round_trips", "sampled_by_name")


def run(config: ConfigDict, workdir: Path, stages: Sequence[str] = STAGES, overwrite=False) -> Path:
    """Runs the stages that are not done, and prints the table.

    Args:
      config: checked as a whole before any work.
      workdir: holds all results; a run that was interrupted there continues.
      stages: some of `STAGES`.
      overwrite: redo the chosen stages, also those that were made with other settings.

    Returns:
      The report page.

    Raises:
      UserError: bad input, in one line; what was done stays.
    """
    unknown = [s for s in stages if s not in STAGES]
    if unknown or not stages:
        raise UserError(f"--stages names {unknown or 'nothing'}; allowed: {', '.join(STAGES)}")
    config = configuration.spelt_out(config)
    configuration.check_config(config)
    hosts.check_same([config.to_dict(), list(stages), overwrite], "settings")
    pipeline = Pipeline(config, workdir)
    pipeline.begin(stages, overwrite)
    for name in STAGES:
        if name in stages:
            getattr(pipeline, name)()
    return pipeline.show()


class Pipeline:
    """A configuration with its folder; each stage reads what the earlier ones wrote."""

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        shared: Path | None = None,
        variant: tuple[str, str] | None = None,
        like: "Pipeline | None" = None,
    ):
        """
        Args:
          shared, variant: see `Plan`.
          like: another pipeline on the same image sets, which are not loaded again.
        """
        self.config, self.workdir = config, workdir
        self.plan = Plan(config, workdir, shared, variant)
        for name in ("id_data", "ood_sets", "_test_sets"):
            if like is not None and name in vars(like):  # a cached property that was used
                vars(self)[name] = vars(like)[name]

    def begin(self, stages: Sequence[str], overwrite: bool) -> None:
        """Refuses what cannot work, before any work; clears what is to be redone."""
        chosen = [r for n, r in self.plan.stages.items() if n.split()[0] in stages]
        record = self.workdir / "config.json"
        if record.exists():
            name = read_json(record).get("name")
            if name != self.config.name:
                raise UserError(
                    f"--workdir {self.workdir} holds a run of configuration {name!r}, not "
                    f"{self.config.name!r}; give another --workdir"
                )
        for stage in self.plan.stages.values():
            if not (overwrite and stage in chosen):
                stage.check_settings()
        first = min(STAGES.index(s) for s in stages)
        for name, stage in self.plan.stages.items():
            order = STAGES.index(name.split()[0])
            if order < first and not stage.done:
                raise UserError(
                    f"--stages starts at {STAGES[first]}, which needs stage {name!r}; it is not "
                    f"done in {self.workdir}"
                )
        if not overwrite and all(self._done(stage) for stage in chosen):
            return
        generating = [self.plan.stages[name] for name in ("learn", "decode")]
        if any(stage in chosen and (overwrite or not stage.done) for stage in generating):
            generator_folder(self.config.generator.path, self.config.generator.revision)
        train, _ = self.id_data
        configuration.check_class_sizes(self.config, train.labels, train.class_names)
        if "evaluate" in stages and not self.ood_names:
            raise UserError(
                f"config.data.ood is {tuple(self.config.data.ood)}; none of these sets is here"
            )
        if "train" in stages:
            _ = self.start  # whether its shapes fit shows before any work
            if any(METHODS[method].extra == "auxiliary" for method in self.plan.trained):
                for name in self.config.data.auxiliary:
                    check_available(name, configuration.data_options(self.config))
        hosts.barrier("settings checked")
        if hosts.is_main():
            if overwrite:
                for stage in chosen:
                    stage.clear()
            for stage in chosen:
                if stage.outdated:
                    stage.clear()
            write_json(record, self.config.to_dict())
        hosts.barrier("begun")
        if not record.exists():
            raise UserError(
                f"--workdir {self.workdir}: process {hosts.index()} does not see what process 0 "
                f"wrote there; it must be a folder that all processes share"
            )

    def _done(self, stage: Stage) -> bool:
        """Whether a stage is done: the same in all processes."""
        return hosts.from_main(lambda: stage.done)

    # What the stages share: data, the generator and earlier results, each loaded when first used.

    @cached_property
    def id_data(self) -> tuple[ImageSet, ImageSet]:
        return load_id(self.config.data.id, configuration.data_options(self.config))

    @cached_property
    def ood_sets(self) -> dict[str, str]:
        """Title → setting of the OOD sets that are on this machine; the others are named once."""

        def available() -> dict[str, str]:
            sets = {}
            for name in self.config.data.ood:
                try:
                    check_available(name, configuration.data_options(self.config))
                    sets[set_title(name)] = name
                except DataUnavailable as error:
                    print(f"skipped OOD set: {error}", flush=True)
            return sets

        return hosts.from_main(available)

    @cached_property
    def shifted_sets(self) -> list[str]:
        """Those of `data.shifted` that are on this machine; the others are named once."""
        from dream_jax.data.shifted import check_shifted

        def available() -> list[str]:
            names = []
            for name in self.config.data.shifted:
                try:
                    check_shifted(name, configuration.data_options(self.config))
                    names.append(name)
                except DataUnavailable as error:
                    print(f"skipped shifted set: {error}", flush=True)
            return names

        return hosts.from_main(available)

    @property
    def ood_names(self) -> list[str]:
        return list(self.ood_sets)

    @cached_property
    def generator(self):
        from dream_jax.generator.load import load_generator

        return load_generator(**self.config.generator)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.id_data[0].class_names

    @cached_property
    def tokens(self) -> list[str]:
        """Per class the word whose token stands for it."""
        return [self.config.data.class_tokens.get(name, name) for name in self.class_names]

    @cached_property
    def start(self) -> dict | None:
        """The trained network of another run from which Dream-OOD starts (`init_from`), if any."""
        start = self.config.init_from
        return None if start in ("", *METHODS) else self._network(Path(start))

    def _network(self, checkpoints: Path) -> dict:
        from dream_jax.detector.train import load_network

        shape = self.id_data[0].images.shape[1:]
        return load_network(self.config, shape, len(self.class_names), checkpoints)

    @property
    def features(self) -> dict[str, np.ndarray]:
        return read_npz(self.plan.stages["learn"].folder / "features.npz")

    def embeddings(self, kind: str) -> np.ndarray:
        """Sampled "outliers" or "inliers": (classes, n, d)."""
        stage = self.plan.stages["sample" if kind == "outliers" else f"sample {kind}"]
        return read_npz(stage.folder / f"{kind}.npz")["embeddings"]

    @property
    def streams(self) -> bool:
        """Whether the ID training images are read from files as needed; then all others are."""
        return isinstance(self.id_data[0].images, StreamedImages)

    def _streamed(self, source) -> StreamedImages:
        """What stage decode made, brought to the size of the other images."""
        data = self.config.data
        rows = np.arange(len(source))
        return StreamedImages(source, rows, data.image_size, data.channels, crop=False)

    def images(self, kind: str) -> tuple[Pixels | StreamedImages | np.ndarray, np.ndarray]:
        """Decoded images of a kind with the labels of their classes."""
        folder, count = self.plan.stages["decode"].folder / kind, self._count(kind)
        if not self.streams and self.config.decoding.image_size == self.config.data.image_size:
            images, rows = read_folder(folder, self.config.data.channels, count)
        else:
            names, rows = zip(*read_listing(folder, count), strict=True)
            images = self._streamed(Files(str(folder), names))
            images = images if self.streams else images[:]
        return images, np.asarray([row["label"] for row in rows])

    def _count(self, kind: str) -> int:
        return self.config.inliers.images if kind == "inliers" else self.config.decoding[kind]

    # The stages.

    def learn(self) -> None:
        """① Anchors, the network h, and the features of the training images."""
        stage = self.plan.stages["learn"]
        if self._done(stage):
            return
        from dream_jax.decoding.prompts import name_ids
        from dream_jax.latent_space.anchors import compute_anchors
        from dream_jax.latent_space.learn import (
            extract_features,
            learn_latent_space,
            select_per_class,
        )

        train, _ = self.id_data
        config = self.config
        with stage.running():
            ids = [name_ids(self.generator.tokenizer, token) for token in self.tokens]
            anchors = compute_anchors(self.generator.table, ids)
            variables = learn_latent_space(config, train, anchors, stage.folder)
            rows = select_per_class(
                train.labels,
                config.latent_space.features_per_class,
                len(anchors),
                config.seed,
            )
            images = subset(train.images, rows)
            features = extract_features(config, variables, images, anchors.shape[1])
            if hosts.is_main():
                write_npz(
                    stage.folder / "features.npz",
                    features=features,
                    labels=train.labels[rows],
                    rows=rows,
                    anchors=anchors,
                )

    def sample(self) -> None:
        """② Outlier embeddings at the edge of each class; inlier embeddings where they are used."""
        for name, kind in (("sample", "outliers"), ("sample inliers", "inliers")):
            if name in self.plan.stages and not self._done(self.plan.stages[name]):
                self._sample(self.plan.stages[name], kind)

    def _sample(self, stage: Stage, kind: str) -> None:
        from dream_jax.sampling.classes import sample_classes

        known = self.features
        names = ("features", "labels", "anchors")
        with stage.running():
            arrays = (known[name] for name in names)
            embeddings = sample_classes(self.config, *arrays, stage.folder, kind)
            if hosts.is_main():
                write_npz(
                    stage.folder / f"{kind}.npz",
                    embeddings=embeddings,
                    parameters=np.array(json.dumps(stage.settings)),
                    seed=np.array(self.config.seed),
                )

    def decode(self) -> None:
        """③ Outlier images; images of the plain class names; round trips of the ID images.

        Inlier images too, where they are used: a stage of its own, so that they can come later.
        """
        stage = self.plan.stages["decode"]
        if not self._done(stage):
            from dream_jax.generator.stable_diffusion import release

            with stage.running():
                for kind in ("outliers", "by_name", "by_name_test"):
                    self._decode(kind, stage.folder / kind)
                release()
                for part in self._round_trips_needed:
                    self._write_round_trips(part)
        stage = self.plan.stages.get("decode inliers")
        if stage is not None and not self._done(stage):
            from dream_jax.generator.stable_diffusion import release

            with stage.running():
                self._decode("inliers", stage.folder)
                release()

    def _decode(self, kind: str, folder: Path) -> None:
        """Decodes the images of a kind that are not in the folder yet."""
        from dream_jax.decoding.pictures import plan_pictures, write_pictures

        count, vectors = self._count(kind), None
        if not count:
            return
        if kind in DECODED:
            vectors = self.embeddings(kind)
        per_class = None if vectors is None else vectors.shape[1]
        pictures = plan_pictures(self.config, kind, count, self.class_names, per_class)
        names = (self.class_names, self.tokens)
        write_pictures(self.config, self.generator, kind, pictures, *names, vectors, folder)

    @property
    def _round_trips_needed(self) -> tuple[str, ...]:
        """Those of the training images take as long as an epoch, and their space on the disk."""
        return ("train", "test") if self.config.classifier.round_trip_share else ("test",)

    def _write_round_trips(self, part: str) -> None:
        """Makes the file of `round_trips` if it is not there, a batch at a time."""
        from dream_jax.generator.stable_diffusion import round_trip

        path = self._round_trips_file(part)
        if hosts.from_main(path.exists):
            return
        images = self.id_data[("train", "test").index(part)].images
        rows, title = self.config.decoding.vae_batch_size, f"round trips, {part}"
        write_rows(path, images.shape, round_trip(self.generator, images, rows, title))

    def _round_trips_file(self, part: str) -> Path:
        return self.plan.stages["decode"].folder / f"round_trips_{part}.npy"

    def round_trips(self, part: str) -> Pixels | StreamedImages:
        """The training or test images through the autoencoder and back: (n, H, W, C)."""
        self._write_round_trips(part)
        path = self._round_trips_file(part)
        return self._streamed(Stored(str(path))) if self.streams else Pixels(read_npy(path))

    def train(self) -> None:
        """④ A classifier per method and seed; the plain one first, which judges the outliers."""
        from dream_jax.detector.train import fine_tuned, train_classifier

        train, _ = self.id_data
        for name, seed in self.plan.classifiers:
            if name not in self.plan.trained or self._done(self.plan.record("train", name, seed)):
                continue
            stage, method = self.plan.record("train", name, seed), METHODS[name]
            with stage.running():
                extra, network = self._extra(method, seed, stage.folder), None
                if method.extra == "outliers":
                    network = self.start
                    if self.config.init_from in METHODS:
                        network = self.classifier(self.config.init_from, seed).network
                config = fine_tuned(self.plan.of_seed(seed), method)
                options = self.plan.options[name]
                train_classifier(config, method, options, train, extra, stage.folder, network)

    def _extra(self, method: Method, seed: int, folder: Path):
        """What a method's batches hold beside real ID images."""
        from dream_jax.detector.train import ExtraImages

        if method.extra == "outliers":
            return self._outliers(seed, folder)
        if method.extra == "inliers":
            return self._inliers(seed, folder)
        return ExtraImages(self._auxiliary()) if method.extra == "auxiliary" else None

    def _inliers(self, seed: int, folder: Path):
        """The inlier images for training; how many are read as asked is kept in `folder`."""
        from dream_jax.detector.train import ExtraImages

        images, labels = self.images("inliers")
        read_as_asked = self.logits_of(PLAIN, seed)(images).argmax(-1) == labels
        rows = np.arange(len(labels))
        if self.config.inliers.confirmed:
            rows = rows[read_as_asked]
        if not len(rows):
            raise UserError(
                f"config.inliers.confirmed is True; the plain classifier reads none of the "
                f"{len(labels)} inliers as asked: lower inliers.scale, or set it to False"
            )
        share = float(np.mean(read_as_asked))
        if hosts.is_main():
            summary = {"inliers": len(labels), "read_as_asked": share, "used": len(rows)}
            write_json(folder / "inliers.json", summary)
        print(
            f"   the plain classifier reads {share:.1%} of the inliers as asked; {len(rows)} of "
            f"{len(labels)} are used",
            flush=True,
        )
        return ExtraImages([subset(images, rows)], labels=labels[rows])

    def _auxiliary(self) -> list:
        """Real outliers to train on: of each set arrays, or what streams where ID images do."""
        data = self.config.data
        options = replace(
            configuration.data_options(self.config),
            count=data.auxiliary_count,
            hold_bytes=0 if self.streams else 2**63,
        )
        sets = [load_ood(name, options).images for name in data.auxiliary]
        if not self.streams:
            return sets
        # Streamed images come as bytes, and so must all beside them.
        return [
            images if isinstance(images, StreamedImages) else np.uint8(np.rint(255 * images))
            for images in sets
        ]

    def _outliers(self, seed: int, folder: Path):
        """The decoded images for training; the judgement of the outliers is kept in `folder`."""
        from dream_jax.detector.judge import judge_outliers
        from dream_jax.detector.train import ExtraImages

        outliers, labels = self.images("outliers")
        by_name_test, asked = self.images("by_name_test")
        logits_of = self.logits_of(PLAIN, seed)
        judgement = judge_outliers(
            logits_of(outliers), labels, self.config.classifier.filter_confidence
        )
        summary = {
            "outliers": len(labels),
            "in_class": judgement.in_class,
            "in_any_class": judgement.in_any_class,
            "used": len(judgement.kept),
            # Share of the images sampled by name that the plain classifier reads as asked.
            "legible": float(np.mean(logits_of(by_name_test).argmax(-1) == asked)),
        }
        if hosts.is_main():
            write_json(folder / "outliers.json", summary)
        print(
            f"   the plain classifier is sure of the class of {judgement.in_class:.1%} of the "
            f"outliers; {len(judgement.kept)} of {len(labels)} are used",
            flush=True,
        )
        by_name, by_name_labels = (
            self.images("by_name") if self.config.decoding.by_name else 2 * (None,)
        )
        round_trips = self.round_trips("train") if "train" in self._round_trips_needed else None
        return ExtraImages(
            [subset(outliers, judgement.kept)],
            round_trips=round_trips,
            by_name=by_name,
            by_name_labels=by_name_labels,
        )

    def classifier(self, method: str, seed: int):
        """A trained classifier; the plain one may be that of another run."""
        from dream_jax.detector.train import Classifier, fine_tuned, load_classifier, training_steps

        if method == PLAIN and PLAIN not in self.plan.trained:
            return Classifier(self.start)
        images, config = (
            self.id_data[0].images,
            fine_tuned(self.plan.of_seed(seed), METHODS[method]),
        )
        return load_classifier(
            config,
            METHODS[method],
            self.plan.options[method],
            images.shape[1:],
            len(self.class_names),
            self.plan.record("train", method, seed).folder,
            training_steps(config, len(images)),
        )

    def logits_of(self, method: str, seed: int):
        """Images → logits of a method's trained classifier."""
        from dream_jax.detector.train import logits_of

        classifier = self.classifier(method, seed)
        return logits_of(self.config, METHODS[method], classifier, len(self.class_names))

    def scores_of(self, method: str, seed: int):
        """Images → (logits, scores by row of the table) of a classifier.

        Those of the plain one are those of all post-hoc detectors too, from the same pass. What has
        to be fitted is fitted to the ID training images.
        """
        from dream_jax.detector.scoring import fit_method, fit_to_images, scorer
        from dream_jax.detector.train import forward_of
        from dream_jax.models.resnet import INPUT_SCALE

        rows, train = self.plan.rows_of(method), self.id_data[0]
        batch_size = self.config.eval_batch_size
        classifier = self.classifier(method, seed)
        forward = forward_of(self.config, METHODS[method], len(self.class_names))
        posthoc = {row: self.plan.options[row] for row in rows if row in DETECTORS and row != PLAIN}
        fitted = {}
        if method in rows:
            own, options = METHODS[method], self.plan.options[method]
            fitted[method] = fit_method(
                own, options, forward, classifier, train.images, batch_size, INPUT_SCALE
            )
        if posthoc:
            head = classifier.head
            fitted |= fit_to_images(
                posthoc, forward, classifier, head, train.images, train.labels, batch_size
            )
        ordered = {row: fitted[row] for row in rows}
        return scorer(forward, classifier, ordered, batch_size, INPUT_SCALE)

    def evaluate(self) -> None:
        """⑤ Scores and measures of every row of the table, on the same images."""
        self.score()
        self._score_shifted()
        if hosts.is_main() and not self._metrics_are_current():
            write_json(self.workdir / "metrics.json", self._metrics())

    def _metrics_are_current(self) -> bool:
        """Whether metrics.json is of these rows and seeds, and newer than their results."""
        metrics = self.workdir / "metrics.json"
        if not metrics.exists():
            return False
        found = read_json(metrics)
        same = [*found["methods"]] == [*self.config.methods]
        same = same and found.get("seeds") == [*self.plan.seeds]
        results = [self._results_file(*classifier) for classifier in self.plan.scored]
        if self.config.data.shifted:
            results.append(self.plan.stages["evaluate shifted"].folder / "results.json")
        return same and os.path.getmtime(metrics) >= max(map(os.path.getmtime, results))

    def score(self) -> None:
        """Scores of all classifiers on all sets, and the measures of each."""
        from dream_jax.evaluation.evaluate import measure, score_sets

        for method, seed in self.plan.scored:
            stage = self.plan.record("evaluate", method, seed)
            if self._done(stage) and hosts.from_main(lambda s=stage: self._covers(s)):
                continue
            with stage.running():
                sets = self._test_sets
                scores_of = self.scores_of(method, seed)
                by_score, accuracy = score_sets(scores_of, self.id_data[1].labels, sets)
                if not hosts.is_main():
                    continue
                kept = [name for name in KEPT if name in sets]
                results = {}
                for row, scores in by_score.items():
                    write_npz(stage.folder / f"scores_{row}.npz", **scores)
                    results[row] = measure(scores, accuracy, self.ood_names, kept)
                write_json(stage.folder / "results.json", results)

    def _score_shifted(self) -> None:
        """The accuracy of all classifiers on the ID classes' other looks, each loaded once."""
        stage = self.plan.stages.get("evaluate shifted")
        if stage is None or self._done(stage):
            return
        from dream_jax.data.shifted import load_shifted
        from dream_jax.evaluation.evaluate import mean_accuracies

        test = self.id_data[1]
        options = configuration.data_options(self.config)
        with stage.running():
            logits_of = {
                c: self.logits_of(*c) for c in self.plan.scored if c[0] in self.config.methods
            }
            accuracies: dict = {classifier: {} for classifier in logits_of}
            sets = (load_shifted(name, test, options) for name in self.shifted_sets)
            for family, strength, shifted in tqdm(chain.from_iterable(sets), "shifted", unit="set"):
                for classifier, own in accuracies.items():
                    right = logits_of[classifier](shifted.images).argmax(-1) == shifted.labels
                    own.setdefault(family, {})[strength] = float(np.mean(right))
            results: dict = {}
            for (method, seed), own in accuracies.items():
                results.setdefault(str(seed), {})[method] = mean_accuracies(own)
            if hosts.is_main():
                write_json(stage.folder / "results.json", results)

    def _results_file(self, method: str, seed: int) -> Path:
        return self.plan.record("evaluate", method, seed).folder / "results.json"

    def results(self, seed: int) -> dict[str, dict]:
        """Row of the table → its measures, of one seed."""
        found = {}
        for method, other in self.plan.scored:
            if other == seed:
                found |= read_json(self._results_file(method, seed))
        if self.config.data.shifted:
            shifted = read_json(self.plan.stages["evaluate shifted"].folder / "results.json")
            for method, accuracies in shifted[str(seed)].items():
                found[method]["shifted"] = accuracies
        return {row: found[row] for row in self.config.methods}

    def _covers(self, stage: Stage) -> bool:
        """Whether an evaluation has all OOD sets: one may have been prepared since."""
        path = stage.folder / "results.json"
        if not path.exists():
            return False
        first = next(iter(read_json(path).values()))
        return [name for name in first["ood"] if name != "mean"] == self.ood_names

    @cached_property
    def _test_sets(self) -> dict:
        """All images that classifiers are measured on, by the names of their sets in results."""
        sets = {"id": self.id_data[1].images}
        for title, name in self.ood_sets.items():
            sets[title] = load_ood(name, configuration.data_options(self.config)).images
        sets["round_trips"] = self.round_trips("test")
        sets["sampled_by_name"] = self.images("by_name_test")[0]
        return sets

    def _metrics(self) -> dict:
        """metrics.json, from the results of all classifiers."""
        from dream_jax.candidates import tuning_note
        from dream_jax.evaluation.bootstrap import paired_bootstrap
        from dream_jax.evaluation.seeds import summarise

        metrics = summarise({seed: self.results(seed) for seed in self.plan.seeds})
        metrics |= {
            "seed": self.plan.seeds[0],
            "seeds": list(self.plan.seeds),
            "config": self.config.name,
        }
        if len(self.config.methods) > 1:
            scores = {seed: self.scores(seed) for seed in self.plan.seeds}
            metrics["bootstrap"] = paired_bootstrap(scores, self.ood_names)
        record = configuration.tuning_record(self.config)
        if record is not None:
            used = {row: self.plan.options[row] for row in self.config.methods}
            metrics["tuning"] = tuning_note(read_json(record), used)
        return metrics

    def scores(self, seed: int) -> dict[str, dict[str, np.ndarray]]:
        """Row of the table → set → scores, of one seed."""
        folders = {
            row: self.plan.record("evaluate", method, seed).folder
            for method in dict.fromkeys(method for method, _ in self.plan.scored)
            for row in self.plan.rows_of(method)
        }
        rows = self.config.methods
        return {row: read_npz(folders[row] / f"scores_{row}.npz") for row in rows}

    def report(self) -> None:
        """The figures, the table and the page that holds them: drawn by process 0."""
        stage = self.plan.stages["report"]
        page = stage.folder / "index.html"
        metrics = self.workdir / "metrics.json"

        def newer_than_metrics() -> bool:
            if not metrics.exists():
                raise UserError(f"{metrics}: is not there; run stage evaluate first")
            return page.exists() and os.path.getmtime(page) >= os.path.getmtime(metrics)

        if hosts.from_main(newer_than_metrics) and self._done(stage):
            return
        with stage.running():
            round_trips = self.round_trips("test")  # which all processes make together
            if hosts.is_main():
                self._draw(stage.folder, round_trips)

    def _draw(self, folder: Path, round_trips: Pixels | StreamedImages) -> None:
        """Draws the report; called by process 0 alone, so nothing here may wait for the others."""
        from dream_jax.report.page import RunResults, make_page

        train, test = self.id_data
        judgements = [
            read_json(path)
            for path in sorted((self.workdir / "classifier").glob("*/outliers.json"))
        ]
        outliers, outlier_labels = self.images("outliers")
        by_name, by_name_labels = self.images("by_name_test")
        results = RunResults(
            name=self.config.name,
            config_json=json.dumps(self.config.to_dict(), indent=2),
            metrics=read_json(self.workdir / "metrics.json"),
            class_names=self.class_names,
            features=self.features,
            embeddings=self.embeddings("outliers"),
            train_images=train.images,
            train_labels=train.labels,
            test_images=test.images,
            test_labels=test.labels,
            outliers=outliers,
            outlier_labels=outlier_labels,
            round_trips=round_trips,
            by_name=by_name,
            by_name_labels=by_name_labels,
            scores=self.scores(self.plan.seeds[0]),
            titles=TITLES,
            sections=self.plan.sections,
            judgement=judgements[0] if judgements else None,
            stages=[
                {"stage": name, **{k: r.record[k] for k in ("seconds", "peak_memory_mb")}}
                for name, r in self.plan.stages.items()
                if r.done
            ],
            seed=self.config.seed,
        )
        make_page(results, folder)

    def show(self) -> Path:
        """Prints the table and where the report is."""
        from dream_jax.report.tables import text_table

        page = self.plan.stages["report"].folder / "index.html"
        metrics = self.workdir / "metrics.json"
        if metrics.exists():
            print(f"\n{text_table(read_json(metrics), TITLES, sections=self.plan.sections)}\n")
        if page.exists():
            print(f"report: {page}")
        return page
