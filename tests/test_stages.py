"""What every stage declares: the fields that it reads, and which stages a field outdates."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import toy as toy_module
from ml_collections import ConfigDict
from slow import takes_a_minute

from dream_jax import pipeline
from dream_jax.checks import check
from dream_jax.origins import ORIGINS
from dream_jax.rows import ALL as ALL_ROWS
from dream_jax.run import Run
from dream_jax.settings import expand, field_types, is_neutral

ROWS = (
    "energy",
    "vos",
    "outlier_exposure",
    "dream_id",
    "dream_ood",
    "bood",
    "outlier_exposure/knn",
)
END = {"metrics", "report"}
SCORED = {"cross_entropy", "vos", "outlier_exposure", "dream_id", "dream_ood", "bood"}
TRAIN = {f"train {name}" for name in SCORED}
SCORES = {f"evaluate {name}" for name in SCORED}
BY_NAME = {"decode by_name", "decode by_name_test"}
ROUND_TRIPS = {"round trips test", "round trips train"}
ALL = {
    *("learn", "sample", "sample bood", "sample inliers", *BY_NAME, *ROUND_TRIPS),
    *("decode", "decode bood", "decode inliers"),
    *(*TRAIN, *SCORES, "evaluate shifted", "evaluate legible", "evaluate outliers", *END),
    "evaluate embeddings",
}


def of(*trainings: str) -> set[str]:
    """Returns the stages that change with the classifiers of some trainings."""
    names = {f"{step} {name}" for name in trainings for step in ("train", "evaluate")}
    return names | {"evaluate shifted", *END}


WITH_OUTLIERS = of("dream_ood", "bood")
FINE_TUNING = "degrade epochs batch_size outlier_batch_size learning_rate muon"
IMAGINED = WITH_OUTLIERS | of("dream_id")
OF_OOD = SCORES | END
JUDGED = "evaluate outliers"
OF_SAMPLE = {"sample", "evaluate embeddings", "decode", JUDGED, *of("dream_ood")}
OF_INLIERS = {"sample inliers", "decode inliers", *of("dream_id")}
OF_BOOD = {"sample bood", "decode bood", *of("bood")}
OF_LEARN = {"learn", *OF_SAMPLE, *OF_BOOD, *OF_INLIERS}
OF_BY_NAME_TEST = {"decode by_name_test", "evaluate legible", *OF_OOD}
OF_OUTLIERS = {"decode", "decode bood", JUDGED, *WITH_OUTLIERS}
OF_DECODING = {*OF_OUTLIERS, "decode inliers", "decode by_name", *IMAGINED, *OF_BY_NAME_TEST}
OF_TRAINING = {*TRAIN, *SCORES, "evaluate shifted", "evaluate legible", JUDGED, *END}
NOTHING: set[str] = set()
PLAIN = {f"train {name}" for name in ("cross_entropy", "vos", "outlier_exposure")}


def each(section: str, names: str, outdated: set[str]) -> dict[str, set[str]]:
    return {f"{section}.{name}": outdated for name in names.split()}


# Field → what is outdated when it changes. Fields that outdate nothing leave results as they are,
# or are read by no stage of this run.
OUTDATED: dict[str, set[str]] = {
    "name": END,
    "seed": ALL - ROUND_TRIPS,
    "init_from": WITH_OUTLIERS,
    "save_every": NOTHING,
    "test_every": NOTHING,
    "wandb": NOTHING,
    "eval_batch_size": NOTHING,
    **each("data", "id image_size channels class_names", ALL),
    **each("data", "folder train_list test_list tfds_dir unreadable hold_bytes workers", NOTHING),
    **each("data", "ood near far ood_count", OF_OOD),
    **each("data", "auxiliary auxiliary_count", of("outlier_exposure")),
    "data.shifted": {"evaluate shifted", *END},
    "data.full_spectrum": OF_OOD,
    "data.tuning": {"report"},
    "data.class_tokens": OF_LEARN,
    **each("model", "arch width stem precision", ALL - BY_NAME - ROUND_TRIPS),
    **each("latent_space", "epochs batch_size temperature augment features_per_class", OF_LEARN),
    "latent_space.loss": OF_LEARN - OF_BOOD | of("dream_id"),  # BOOD needs features that align
    **each("latent_space.optimizer", "learning_rate final_learning_rate warmup", OF_LEARN),
    **each("latent_space.optimizer", "momentum weight_decay muon", OF_LEARN),
    **each("sampling", "k boundary per_round candidates scale keep rounds", OF_SAMPLE),
    **each("sampling", "noise selection", OF_SAMPLE | OF_INLIERS),
    "sampling.words": {"report"},  # noise has no use for them
    "sampling.method": OF_SAMPLE | of("bood"),  # whose outliers are then those of the run
    **each("bood", "step share beyond most_steps", OF_BOOD),
    **each("inliers", "k per_round candidates scale keep rounds", OF_INLIERS),
    "inliers.images": {"decode inliers", *of("dream_id")},
    "inliers.confirmed": of("dream_id"),
    "generator.path": ALL - PLAIN,
    "generator.revision": NOTHING,  # the generator is in a folder
    "generator.precision": OF_DECODING | ROUND_TRIPS,
    "generator.scheduler": OF_DECODING,
    "decoding.prompts": OF_OUTLIERS,
    "decoding.id_prompt": OF_DECODING - {"decode", "decode bood", JUDGED},
    **each("decoding", "name_suffixes image_size resize steps guidance", OF_DECODING),
    **each("decoding", "cache_interval cache_branch", OF_DECODING),
    **each("decoding", "batch_size vae_batch_size", NOTHING),
    "decoding.outliers": OF_OUTLIERS,
    "decoding.by_name": {"decode by_name", *WITH_OUTLIERS},
    "decoding.by_name_test": OF_BY_NAME_TEST,
    **each("classifier", "epochs batch_size augment degrade", OF_TRAINING),
    **each("classifier.optimizer", "learning_rate final_learning_rate warmup", OF_TRAINING),
    **each("classifier.optimizer", "momentum weight_decay muon", OF_TRAINING),
    "classifier.outlier_batch_size": IMAGINED | of("outlier_exposure"),
    **each("classifier", "round_trip_share by_name_share filter_confidence", WITH_OUTLIERS),
    **each("classifier", "outlier_view filter_least_confidence outliers_used", WITH_OUTLIERS),
    **each("classifier", "collapse_below collapse_after", NOTHING),
    **each("fine_tune", FINE_TUNING, {"report"}),
    "fine_tune.rows": of("vos"),
    **each("zero_shot", "path revision", NOTHING),  # of a model that is not here
    **each("zero_shot", "prompt words", {"report"}),
    **each("tuning", "seed candidates", {"report"}),
    "tuning.record": END,
    **each("ablation", "row seeds variants only", {"report"}),
    **each("report", "figure_class map", {"report"}),
}
# These change which stages there are: tests/test_rows.py.
STRUCTURE = {"seeds", "methods", "method_options"}
OTHER: dict[str, Any] = {
    "name": "other",
    "init_from": "cross_entropy",
    "fine_tune.rows": ("vos",),
    "wandb": "project" if find_spec("wandb") else "",  # refused where it is not installed
    "data.id": "digits",
    "data.folder": "folder",
    "data.train_list": "train.txt",
    "data.test_list": "test.txt",
    "data.ood": ("letters",),
    "data.near": ("textures",),
    "data.far": ("textures",),
    "data.shifted": ("blur",),
    "data.full_spectrum": True,
    "data.tuning": ("alphabets",),
    "data.auxiliary": ("scenes",),
    "data.channels": 3,
    "data.unreadable": "skip",
    "data.tfds_dir": "folder",
    "data.class_names": ConfigDict({"0": "zero"}),
    "data.class_tokens": ConfigDict({"zero": "null"}),
    "model.arch": "resnet18",
    "model.stem": "small",
    "model.precision": "bfloat16",
    "latent_space.augment": "none",
    "latent_space.loss": "cross_entropy",
    "classifier.augment": "none",
    "sampling.noise": "shared",
    "classifier.outlier_view": "patches",
    "sampling.selection": "published",
    "sampling.method": "bood",
    "inliers.confirmed": True,
    "generator.path": "dream_jax/miniature/weights/glyphs",
    "generator.revision": "v1",
    "generator.scheduler": "ddim",
    "generator.precision": "bfloat16",
    "decoding.prompts": ("the {name}",),
    "decoding.id_prompt": "the {name}",
    "decoding.name_suffixes": ConfigDict({"zero": "digit"}),
    "decoding.resize": "mixed",
    "tuning.candidates": ConfigDict({"knn": {"k": (1, 2)}}),
    "ablation.row": "energy",
    "ablation.seeds": (5,),
    "ablation.only": ("few",),
    "ablation.variants": (("few features", "sampling.k=3"),),
    "zero_shot.path": "folder",
    "zero_shot.revision": "v1",
    "zero_shot.prompt": "the {name}",
    "zero_shot.words": "words.txt",
    "report.figure_class": "zero",
    "report.map": "umap",
    "tuning.record": str(toy_module.REPOSITORY / "configs" / "quickstart_tuning.json"),
}


@pytest.fixture
def config(toy) -> ConfigDict:
    config = toy.config()
    config.methods, config.data.shifted = ROWS, ("noise",)
    return config


def of_config(config: ConfigDict) -> Run:
    return pipeline.make_run(check(config), Path("run"))


def with_value(config: ConfigDict, field: str, value: Any) -> ConfigDict:
    config = config.copy_and_resolve_references()
    section = config
    *parents, last = field.split(".")
    for part in parents:
        section = section[part]
    with section.ignore_type():
        section[last] = value
    return config


def outdated(one: Run, other: Run) -> set[str]:
    """Returns the stages of both that depend on other settings in one than in the other."""

    def depends(run: Run, name: str) -> list[dict]:
        record = run.record(name)
        own = [record.settings, record.origins]
        return [*own, {n: (r.settings, r.origins) for n, r in record.upstream.items()}]

    common = one.stages.keys() & other.stages.keys()
    return {name for name in common if depends(one, name) != depends(other, name)}


def test_every_stage_is_in_the_table(config):
    assert set(of_config(config).stages) == ALL
    assert set(OUTDATED) | STRUCTURE == set(field_types())


@pytest.mark.parametrize("field", OUTDATED)
def test_a_field_outdates_the_stages_that_depend_on_it_and_no_others(config, field):
    if field == "sampling.selection":
        config.sampling.noise = "shared"  # the other selection needs it
    if field == "latent_space.loss":
        config.methods = tuple(row for row in ROWS if row != "bood")
    value: Any = config
    for part in field.split("."):
        value = value[part]
    changed = OTHER.get(field)
    if changed is None:
        changed = value + 1 if isinstance(value, int) else value * 0.5 + 0.013
    found = outdated(of_config(config), of_config(with_value(config, field, changed)))
    assert found == OUTDATED[field]
    if is_neutral(field) and field not in ORIGINS:
        assert not found


@pytest.mark.parametrize("method", ["vocabulary", "token"])
def test_words_alone_depend_on_the_generator(config, method):
    config.sampling.method = method
    before, words = of_config(config), method == "vocabulary"
    record = before.record("sample")
    assert ("generator.path" in record.origins) == words
    assert ("data.class_tokens" in record.settings) == words
    fields = {"sampling.k": 0, "sampling.words": words, "sampling.scale": not words}
    for field, used in (fields | {"sampling.keep": not words}).items():
        value = 7 if field != "sampling.scale" else 0.3
        found = outdated(before, of_config(with_value(config, field, value)))
        assert ("sample" in found) == bool(used), field


@pytest.mark.parametrize("name", FINE_TUNING.split())
def test_fine_tuning_takes_the_place_of_the_classifiers_settings(config, name):
    config.init_from = "cross_entropy"
    config = with_value(config, "fine_tune.epochs", 3)
    before = of_config(config)
    value = 0.25 if name in ("degrade", "learning_rate") else 7
    changed = with_value(config, f"fine_tune.{name}", value)
    assert outdated(before, of_config(changed)) == WITH_OUTLIERS
    rate = name in ("learning_rate", "muon")
    instead = "classifier.optimizer." if rate else "classifier."
    changed = with_value(config, instead + name, value)
    other = of_config(changed).record("train dream_ood").settings
    assert other == before.record("train dream_ood").settings


@pytest.mark.parametrize(
    ("name", "option", "value", "expected"),
    [
        ("dream_ood", "weight", 3.0, of("dream_ood")),
        ("knn", "k", 7, {"evaluate outlier_exposure", *END}),
        ("outlier_exposure/knn", "k", 7, {"evaluate outlier_exposure", *END}),
        ("energy", "temperature", 2.0, OF_OOD - {"evaluate outlier_exposure"}),
        ("msp", "", None, set()),
    ],
)
def test_an_option_outdates_what_uses_it(config, name, option, value, expected):
    before = of_config(config)
    with config.unlocked():
        own = config.method_options.get(name, ConfigDict()).to_dict() | (
            {option: value} if option else {}
        )
        config.method_options[name] = ConfigDict(own)
    assert outdated(before, of_config(config)) - {"report"} == expected - {"report"}


VARIANTS: dict[str, dict[str, Any]] = {
    "all": {
        "methods": tuple(key for key in ALL_ROWS if key != "she"),  # needs classes that are learned
        "data.shifted": ("contrast",),
        "method_options.vos.queue": 20,
        "method_options.npos.queue": 20,
        "method_options.npos.k": 5,
        "method_options.npos.boundary": 10,
    },
    "fine-tuned, without additions, by BOOD": {
        "methods": ("dream_ood", "bood", "energy_fine_tuning"),
        "sampling.method": "bood",
        "init_from": "cross_entropy",
        "decoding.by_name": 0,
        "classifier.by_name_share": 0.0,
        "classifier.round_trip_share": 0.0,
        "fine_tune.epochs": 1,
    },
}


@pytest.mark.parametrize(
    "variant",
    # All trainings in one process take two minutes and thousands of compiled programs.
    [pytest.param(name, marks=takes_a_minute if name == "all" else ()) for name in VARIANTS],
)
def test_stages_read_the_fields_that_they_declare(toy, tmp_path, variant):
    """Every stage is made with settings that record what is read."""
    config = toy.config()
    for field, value in VARIANTS[variant].items():
        config = with_value(config, field, value)
    run = pipeline.make_run(check(config), tmp_path / "run")
    declared, found = {}, {}
    for name, stage in run.stages.items():
        read: set[str] = set()
        work = run.work(name, read)
        stage.check(work)
        with run.record(name).running():
            stage.make(work)
        declared[name], found[name] = set(expand(stage.reads)), read
    assert found == declared
