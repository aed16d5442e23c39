"""The configuration as typed settings, and views that show a stage the fields that it declares.

`configs/base.py` explains every field. `checks.check` makes the settings from a configuration.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, cast, get_type_hints

from dream_jax.rules import (
    MOST_SEED,
    above,
    all_of,
    is_name,
    is_section,
    is_suffix,
    mapping,
    number,
    outlier_prompt,
    path,
    project,
    run_name,
    seeds,
    sets,
    template,
    text,
    texts,
    whole,
)

# Marks a field that changes how a result is reached, or when a run is refused, and not the result;
# or that says where something lies, of which records hold a fingerprint (see `origins`).
NEUTRAL = "neutral"
# Fields that were added when there were runs already, with the values that leave results as they
# were. Records do not hold them at these values, and a run whose config.json lacks them has these.
LATER: Mapping[str, Any] = {
    **{"data.near": (), "data.far": ()},
    **{"data.train_list": "", "data.test_list": "", "data.full_spectrum": False},
    **{"latent_space.loss": "alignment", "classifier.outliers_used": 1.0, "ablation.only": ()},
    **{"zero_shot.prompt": "a photo of a {name}", "zero_shot.words": ""},
    **{"zero_shot.path": "openai/clip-vit-base-patch16", "zero_shot.revision": ""},
    **{"decoding.cache_interval": 1, "decoding.cache_branch": 0},
    **{"fine_tune.rows": (), "fine_tune.degrade": 0.0, "fine_tune.muon": 0.0},
    **{"latent_space.optimizer.muon": 0.0, "classifier.optimizer.muon": 0.0, "sampling.words": 16},
}

Count = Annotated[int, whole(1)]
NeutralCount = Annotated[int, whole(1), NEUTRAL]
BatchOrFound = Annotated[int, whole(0), NEUTRAL]  # 0: as many as fit, see training/batch_sizes.py
Seed = Annotated[int, whole(0, MOST_SEED)]
# Bounds far beyond what is of use, so that a slip of the pen is no list of 10^12 images.
Epochs = Annotated[int, whole(1, 1_000_000)]  # also rounds of sampling
Pictures = Annotated[int, whole(1, 10_000_000)]  # that are decoded, or drawn from a set
Share = Annotated[float, number(0, 1)]
Positive = Annotated[float, above(0, 1e20)]
NotNegative = Annotated[float, number(0, 1e20)]

Augmentation = Literal["none", "affine", "crop_flip", "shift_flip", "random_resized_crop"]
Architecture = Literal["airbench", "resnet8", "resnet18", "resnet34", "resnet50"]
Stem = Literal["small", "stride2", "imagenet", "whitened"]
ModelPrecision = Literal["auto", "float32", "bfloat16"]
GeneratorPrecision = Literal["auto", "float32", "bfloat16", "float16"]
Scheduler = Literal["plms", "ddim", "dpmsolver++", "euler", "lcm"]
Noise = Literal["own", "shared"]
Selection = Literal["paper", "published"]
Map = Literal["tsne", "umap"]
Method = Literal[
    "knn",
    "bood",
    "core",
    "random",
    "mean",
    "token",
    "interpolation",
    "vocabulary",
    "prompts",
    "text",
]
Loss = Literal["alignment", "cross_entropy"]
OutlierView = Literal["whole", "patches"]
Resize = Literal["antialiased", "bilinear", "nearest", "mixed"]


@dataclass(frozen=True)
class DataSettings:
    id: Annotated[str, text("the name of an ID set", empty=False)]
    ood: Annotated[
        tuple[str, ...],
        sets("one or more of the OOD sets' names, or empty with data.near or data.far"),
    ]
    near: Annotated[tuple[str, ...], sets("names of OOD sets near to the ID set, or empty")]
    far: Annotated[tuple[str, ...], sets("names of OOD sets far from the ID set, or empty")]
    shifted: Annotated[
        tuple[str, ...], sets("names of shifted test sets of the ID classes, or empty")
    ]
    full_spectrum: bool
    tuning: Annotated[
        tuple[str, ...], sets("names of OOD sets to choose hyper-parameters by, or empty")
    ]
    auxiliary: Annotated[
        tuple[str, ...], sets("names of sets of real outliers to train on, or empty")
    ]
    auxiliary_count: Pictures
    image_size: Annotated[int, whole(28, 4096)]
    channels: Literal[1, 3]
    ood_count: Pictures
    tfds_dir: Annotated[str, path("a text that names a folder, empty for the usual one"), NEUTRAL]
    folder: Annotated[
        str, path("a folder for data.id=imagefolder or imagelist, else empty"), NEUTRAL
    ]
    train_list: Annotated[str, path("an image list for data.id=imagelist, else empty"), NEUTRAL]
    test_list: Annotated[str, path("an image list for data.id=imagelist, else empty"), NEUTRAL]
    class_names: Annotated[
        dict[str, str],
        mapping("a class name for each of some folders or labels, or empty", is_name),
    ]
    class_tokens: Annotated[
        dict[str, str], mapping("a word for each of some class names, or empty", is_name)
    ]
    unreadable: Annotated[Literal["stop", "skip"], NEUTRAL]
    hold_bytes: Annotated[int, whole(0, 2**60), NEUTRAL]
    workers: Annotated[int, whole(0, 1024), NEUTRAL]


@dataclass(frozen=True)
class ModelSettings:
    arch: Architecture
    width: Annotated[int, whole(1, 1024)]
    stem: Stem
    precision: ModelPrecision


@dataclass(frozen=True)
class OptimizerSettings:
    learning_rate: Positive
    final_learning_rate: NotNegative
    warmup: Share
    momentum: Share
    weight_decay: NotNegative
    muon: NotNegative


@dataclass(frozen=True)
class LatentSpaceSettings:
    epochs: Epochs
    batch_size: Count
    temperature: Positive
    loss: Loss
    augment: Augmentation
    features_per_class: Count
    optimizer: OptimizerSettings


@dataclass(frozen=True)
class SamplingSettings:
    k: Count
    boundary: Count
    per_round: Count
    candidates: Count
    scale: Positive
    keep: Count
    rounds: Epochs
    noise: Noise
    selection: Selection
    method: Method
    words: Count


@dataclass(frozen=True)
class BoodSettings:
    step: Annotated[float, above(0, 1)]  # a unit vector's components are at most 1
    share: Annotated[float, above(0, 1)]
    beyond: Annotated[int, whole(0, 1000)]
    most_steps: Annotated[int, whole(1, 10_000)]


@dataclass(frozen=True)
class InlierSettings:
    k: Count
    per_round: Count
    candidates: Count
    scale: Positive
    keep: Count
    rounds: Epochs
    images: Pictures
    confirmed: bool


@dataclass(frozen=True)
class GeneratorSettings:
    path: Annotated[str, path("a folder, or owner/name", empty=False), NEUTRAL]
    revision: Annotated[str, text("a commit or tag, empty for a folder"), NEUTRAL]
    scheduler: Scheduler
    precision: GeneratorPrecision


@dataclass(frozen=True)
class DecodingSettings:
    prompts: Annotated[
        tuple[str, ...],
        all_of(
            outlier_prompt(),
            "one or more texts with {name} in them and no other braces; without {name} only where "
            "sampling.method is prompts or text",
            empty=False,
        ),
    ]
    id_prompt: Annotated[str, template()]
    name_suffixes: Annotated[
        dict[str, str],
        mapping("a text without braces for each of some class names, or empty", is_suffix),
    ]
    image_size: Annotated[int, whole(8, 4096)]
    resize: Resize
    steps: Count
    guidance: NotNegative
    cache_interval: Annotated[int, whole(1, 1000)]
    cache_branch: Annotated[int, whole(0, 1000)]
    batch_size: BatchOrFound
    vae_batch_size: BatchOrFound
    outliers: Pictures
    by_name: Annotated[int, whole(0, 10_000_000)]
    by_name_test: Pictures


@dataclass(frozen=True)
class ClassifierSettings:
    epochs: Epochs
    batch_size: Count
    outlier_batch_size: Count
    augment: Augmentation
    degrade: Share
    round_trip_share: Share
    by_name_share: Share
    outlier_view: OutlierView
    filter_confidence: Annotated[float, above(0, 1)]
    filter_least_confidence: Share
    outliers_used: Annotated[float, above(0, 1)]
    collapse_below: Annotated[float, number(0, 1), NEUTRAL]
    collapse_after: Annotated[float, number(0, 1), NEUTRAL]
    optimizer: OptimizerSettings


@dataclass(frozen=True)
class FineTuneSettings:
    rows: Annotated[tuple[str, ...], texts("names of trainings, or empty")]
    degrade: Share
    epochs: Epochs
    batch_size: Count
    outlier_batch_size: Count
    learning_rate: Positive
    muon: NotNegative


@dataclass(frozen=True)
class ZeroShotSettings:
    path: Annotated[str, path("a folder, or owner/name", empty=False), NEUTRAL]
    revision: Annotated[str, text("a commit, tag or branch, or empty"), NEUTRAL]
    prompt: Annotated[str, template()]
    words: Annotated[str, path("a file of words, or empty")]


@dataclass(frozen=True)
class TuningSettings:
    seed: Seed
    candidates: Annotated[
        dict[str, dict[str, Any]],
        mapping(
            "by the name of a row, a list of values for each of some settings, or empty", is_section
        ),
    ]
    record: Annotated[str, path("a file that launch/tune.py wrote, or empty")]


@dataclass(frozen=True)
class AblationSettings:
    row: Annotated[str, text("the name of a row", empty=False)]
    seeds: Annotated[
        tuple[int, ...],
        seeds("whole numbers of at least 0 and below 2^32, each once, or empty for config.seeds"),
    ]
    variants: Annotated[
        tuple[tuple[str, ...], ...],
        all_of(
            texts("a name and settings", empty=False),
            "lists of texts, each a name and settings: ('few features', 'sampling.k=50'), or empty",
        ),
    ]
    only: Annotated[tuple[str, ...], texts("names of variants or how they begin, or empty")]


@dataclass(frozen=True)
class ReportSettings:
    figure_class: Annotated[str, text("the name of a class, or empty for the one in the middle")]
    map: Map


@dataclass(frozen=True)
class Settings:
    """A whole configuration; `configs/base.py` explains each field."""

    name: Annotated[str, run_name()]
    seed: Seed
    seeds: Annotated[
        tuple[int, ...],
        seeds("whole numbers of at least 0 and below 2^32, each once, or empty for config.seed"),
    ]
    methods: Annotated[tuple[str, ...], texts("names of rows", empty=False)]
    method_options: Annotated[
        dict[str, dict[str, Any]],
        mapping("settings by the name of a training or detector, or empty", is_section),
    ]
    init_from: Annotated[str, path("empty, 'cross_entropy', or a folder of checkpoints")]
    save_every: NeutralCount
    test_every: Annotated[int, whole(0, 1_000_000), NEUTRAL]
    wandb: Annotated[str, project(), NEUTRAL]
    eval_batch_size: BatchOrFound
    data: DataSettings
    model: ModelSettings
    latent_space: LatentSpaceSettings
    sampling: SamplingSettings
    bood: BoodSettings
    inliers: InlierSettings
    generator: GeneratorSettings
    decoding: DecodingSettings
    classifier: ClassifierSettings
    fine_tune: FineTuneSettings
    zero_shot: ZeroShotSettings
    tuning: TuningSettings
    ablation: AblationSettings
    report: ReportSettings


@cache  # asked for by every record
def field_types(kind: type = Settings, prefix: str = "") -> dict[str, Any]:
    """Returns the type of every field, by its dotted name: {"sampling.k": Count, ...}."""
    types: dict[str, Any] = {}
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = hints[field.name]
        if is_dataclass(hint):
            types |= field_types(cast(type, hint), f"{prefix}{field.name}.")
        else:
            types[f"{prefix}{field.name}"] = hint
    return types


def is_neutral(name: str, kind: type = Settings) -> bool:
    """Returns whether a field leaves results as they are."""
    return NEUTRAL in getattr(field_types(kind)[name], "__metadata__", ())


def is_as_before(settings: Any, name: str) -> bool:
    """Returns whether a field was added later and has the value that leaves results as before."""
    return name in LATER and value_of(settings, name) == LATER[name]


def with_later(tree: Mapping[str, Any], later: Mapping[str, Any] = LATER) -> dict[str, Any]:
    """Returns recorded settings with the fields that were added after they were written."""
    made = deepcopy(dict(tree))
    for name, value in later.items():
        *sections, field = name.split(".")
        place: Any = made
        for section in sections:
            if isinstance(place, dict):  # a damaged record may hold anything
                place = place.setdefault(section, {})
        if isinstance(place, dict):
            place.setdefault(field, value)
    return made


@cache  # asked for by every record too
def expand(names: tuple[str, ...], kind: type = Settings) -> tuple[str, ...]:
    """Returns the fields that names of fields and of whole sections stand for.

    Raises:
      KeyError: a name is neither.
    """
    known = field_types(kind)
    expanded: dict[str, None] = {}
    for name in names:
        found = [field for field in known if field == name or field.startswith(f"{name}.")]
        if not found:
            raise KeyError(f"{name} is no field of the settings")
        expanded |= dict.fromkeys(found)
    return tuple(expanded)


def value_of(settings: Any, name: str) -> Any:
    """Returns the value of a field by its dotted name."""
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


class UndeclaredField(AttributeError):
    """A stage read a field of the configuration that it does not declare: a fault of the stage."""


class View:
    """Settings of which only some fields can be read; notes which ones are.

    It has the attributes of the settings that it shows, section by section.
    """

    def __init__(self, shown: Any, allowed: frozenset[str], read: set[str], prefix: str = ""):
        self._shown, self._allowed, self._read, self._prefix = shown, allowed, read, prefix

    def __getattr__(self, name: str) -> Any:
        path = f"{self._prefix}{name}"
        value = getattr(self._shown, name)
        if is_dataclass(value):
            return View(value, self._allowed, self._read, f"{path}.")
        if path not in self._allowed:
            raise UndeclaredField(f"{path} is read by a stage that does not declare it")
        self._read.add(path)
        return value


def view(settings: Settings, allowed: tuple[str, ...], read: set[str] | None = None) -> Settings:
    """Returns the settings with the `allowed` fields alone; adds to `read` those that are read.

    Reading any other field raises UndeclaredField. The result is a `View`, which has the type of
    what it shows.
    """
    shown = View(settings, frozenset(expand(allowed)), set() if read is None else read)
    return cast(Settings, shown)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    return dict(_leaves(tree, prefix))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def as_dict(settings: Any, kind: type = Settings) -> dict[str, Any]:
    """Returns settings, or what a view shows of them, as nested dictionaries."""
    hints = get_type_hints(kind)
    return {
        field.name: as_dict(getattr(settings, field.name), hints[field.name])
        if is_dataclass(hints[field.name])
        else getattr(settings, field.name)
        for field in fields(kind)
    }
