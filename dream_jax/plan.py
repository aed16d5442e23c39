"""Which classifiers and rows of the table a run has, and its stages with what each depends on."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from ml_collections import ConfigDict

from dream_jax import config as configuration
from dream_jax.config import PLAIN
from dream_jax.detector.detectors import DETECTORS
from dream_jax.detector.methods import METHODS
from dream_jax.files import Stage, flatten

# Settings that change how a result is reached and not the result, and those of display.
_NEUTRAL = (
    "name",
    "save_every",
    "eval_batch_size",
    "decoding.batch_size",
    "decoding.vae_batch_size",
    "data.tfds_dir",
    "data.workers",
)
# What methods use for their training that stage decode made.
DECODED = ("outliers", "inliers")
# What tables call the methods and the detectors.
TITLES = {name: entry.title for name, entry in (DETECTORS | METHODS).items()}
# Titles of the groups of rows, by what the classifiers of methods were trained with.
_TRAINED = {
    "": "Trained on the ID images alone",
    "outliers": "Trained with imagined images",
    "inliers": "Trained with imagined images",
    "auxiliary": "Trained with real outliers",
}
_SECTIONS = {
    **dict.fromkeys(DETECTORS, "Scores of the cross-entropy classifier"),
    **{name: _TRAINED[method.extra] for name, method in METHODS.items() if name != PLAIN},
}


class Plan:
    """A configuration with its folders.

    Args:
      workdir: of the run.
      shared: the run whose latent space, embeddings and images are used, if not its own.
      variant: (row, name) where a row is tried with other settings: results under that name.

    Attributes:
      stages: by name, in the order in which they are done: "learn", "sample", "sample inliers",
        "decode", "train vos", "train vos, seed 1", "evaluate vos", ..., "report".
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        shared: Path | None = None,
        variant: tuple[str, str] | None = None,
    ):
        self.config, self.variant = config, variant
        shared = shared or workdir
        self.settings = {
            name: value
            for name, value in flatten(config.to_dict()).items()
            if not name.startswith(_NEUTRAL)
        }
        of_images = ("id", "folder", "image_size", "channels", "unreadable", "hold_bytes")
        data = [f"data.{name}" for name in (*of_images, "class_names", "class_tokens")]
        plain = ["seed", *data, "model"]
        learn = [*plain, "latent_space", "generator.path", "generator.revision"]
        sample = [*learn, "sampling"]
        decode = [*sample, "generator", "decoding"]
        self.stages = {
            "learn": self._stage("learn", shared / "latent_space", learn),
            "sample": self._stage("sample", shared / "embeddings", sample),
            "decode": self._stage("decode", shared / "images", decode),
        }
        inliers = [*learn, "sampling.selection", "inliers"]
        if any(METHODS[method].extra == "inliers" for method in self.trained):
            of_images = [*inliers, "generator", "decoding"]
            for name, folder, needed in (
                ("sample inliers", "embeddings/inliers", inliers),
                ("decode inliers", "images/inliers", of_images),
            ):
                self.stages[name] = self._stage(name, shared / folder, needed)
        for method, seed in self.classifiers:
            needed, own = [*plain, "classifier"], {"seed": seed, **self._options_of(method)}
            if METHODS[method].extra in DECODED:
                needed += [*decode, "init_from", "fine_tune"]
                own["shared_seed"] = config.seed
            if METHODS[method].extra == "inliers":
                needed.append("inliers")
            if METHODS[method].extra == "auxiliary":
                needed += ["data.auxiliary", "data.auxiliary_count"]
            if method in self.trained:
                key, place = self.names("train", method, seed)
                self.stages[key] = self._stage(key, workdir / "classifier" / place, needed, own)
            else:
                needed.append("init_from")
            rows = self.rows_of(method)
            if not rows:
                continue
            for row in rows:
                own |= self._options_of(row)
            needed += [*decode, "data.ood", "data.ood_count"]
            own |= {"rows": rows, "shared_seed": config.seed}
            key, place = self.names("evaluate", method, seed)
            folder = workdir / "evaluation" / place
            self.stages[key] = self._stage(key, folder, needed, own, derived=True)
        everything = [name.split(".")[0] for name in self.settings]
        if config.data.shifted:
            key, folder = "evaluate shifted", workdir / "evaluation" / "shifted"
            self.stages[key] = self._stage(key, folder, everything, derived=True)
        report = self._stage("report", workdir / "report", everything, derived=True)
        self.stages["report"] = report

    @cached_property
    def options(self) -> dict[str, dict]:
        """All settings of each row, and of the classifiers that rows need."""
        classifiers = [method for method, _ in self.classifiers]
        return configuration.options(self.config, [*self.config.methods, *classifiers])

    def _options_of(self, row: str) -> dict:
        return {f"method_options.{row}.{name}": v for name, v in self.options[row].items()}

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the classifiers; what they share has the seed of the run."""
        return tuple(self.config.seeds) or (self.config.seed,)

    @cached_property
    def trained(self) -> list[str]:
        """The methods that classifiers are trained by; the plain one first."""
        rows = self.config.methods
        chosen = [name for name in METHODS if name in rows and name != PLAIN]
        judges = any(METHODS[name].extra in DECODED for name in chosen)
        if PLAIN in rows or ((judges or self.rows_of(PLAIN)) and not self._starts_elsewhere):
            return [PLAIN, *chosen]
        return chosen

    @property
    def _starts_elsewhere(self) -> bool:
        """Whether `init_from` names the plain classifier of another run."""
        return self.config.init_from not in ("", PLAIN)

    @property
    def classifiers(self) -> list[tuple[str, int]]:
        """(method, seed) of all classifiers of the run, also of a plain one of another run."""
        methods = self.trained
        if PLAIN not in methods and self.rows_of(PLAIN):
            methods = [PLAIN, *methods]
        return [(method, seed) for seed in self.seeds for method in methods]

    def rows_of(self, method: str) -> list[str]:
        """The rows of the table that are scores of one classifier."""
        if method != PLAIN:
            return [method]
        return [row for row in self.config.methods if row == PLAIN or row in DETECTORS]

    @property
    def sections(self) -> dict[str, str] | None:
        """Row → title of its group, where there are so many that groups help the eye."""
        return _SECTIONS if len(self.config.methods) > 4 else None

    def names(self, stage: str, method: str, seed: int) -> tuple[str, str]:
        """What a classifier's stage and its folder are called.

        Its seed is named if it is not the run's, and the variant if the stage depends on it.
        """
        name = place = method
        if seed != self.config.seed:
            name, place = f"{name}, seed {seed}", f"{place}-seed{seed}"
        row, variant = self.variant or ("", "")
        if method == row:
            name, place = f"{name}, {variant}", f"{place}-{variant}"
        elif stage == "evaluate" and row in self.rows_of(method):
            name, place = f"{name}, {row}, {variant}", f"{place}-{row}-{variant}"
        return f"{stage} {name}", place

    def record(self, stage: str, method: str, seed: int) -> Stage:
        return self.stages[self.names(stage, method, seed)[0]]

    def of_seed(self, seed: int) -> ConfigDict:
        """The configuration of the classifiers of one seed."""
        config = self.config.copy_and_resolve_references()
        config.seed = seed
        return config

    def _stage(self, name: str, folder: Path, needed: Sequence[str], own=None, derived=False):
        """A stage that depends on some settings or sections of settings, and on some of its own."""
        settings = {
            name: value
            for name, value in self.settings.items()
            if any(name == prefix or name.startswith(f"{prefix}.") for prefix in needed)
        }
        return Stage(name, folder, settings | (own or {}), derived)

    @property
    def scored(self) -> list[tuple[str, int]]:
        """The classifiers that rows of the table are scores of."""
        return [(method, seed) for method, seed in self.classifiers if self.rows_of(method)]
