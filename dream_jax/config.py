"""Checks of a whole configuration, before any work."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dream_jax.data.augment import AUGMENTATIONS
from dream_jax.data.registry import (
    UNREADABLE,
    DataOptions,
    check_name,
    set_title,
)
from dream_jax.data.roles import check_roles
from dream_jax.detector.detectors import DETECTORS
from dream_jax.detector.methods import METHODS
from dream_jax.detector.options import resolve
from dream_jax.detector.scoring import check_sizes
from dream_jax.errors import UserError
from dream_jax.files import flatten
from dream_jax.generator.load import PRECISIONS, REPOSITORY, SCHEDULERS, check_generator
from dream_jax.models.resnet import PRECISIONS as MODEL_PRECISIONS
from dream_jax.models.resnet import STAGES as ARCHITECTURES
from dream_jax.models.resnet import STEMS
from dream_jax.sampling.boundary import SELECTIONS

Rule = tuple[Callable[[Any], bool], str]


def _whole(low: int) -> Rule:
    return (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= low,
        f"a whole number of at least {low}",
    )


def _number(low: float, high: float = math.inf, open_low: bool = False) -> Rule:
    def holds(v):
        is_number = isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
        return is_number and (low < v if open_low else low <= v) and v <= high

    text = f"a number above {low}" if open_low else f"a number of at least {low}"
    return holds, text + (f" and at most {high}" if high < math.inf else "")


def _one_of(allowed: Sequence) -> Rule:
    return lambda v: v in tuple(allowed), f"one of {', '.join(map(str, sorted(allowed)))}"


def _texts(allowed: str) -> Rule:
    def holds(v):
        return isinstance(v, ConfigDict) and all(isinstance(t, str) and t for t in v.values())

    return holds, allowed


# Cross-entropy training, whose network is scored by all post-hoc detectors and judges outliers. The
# method's own score is the energy, so the detector of that name is the same row.
PLAIN = "energy"
# Every row of the table, in its order: scores of the plain classifier, then the other trainings.
ROWS: tuple[str, ...] = (*dict.fromkeys([*DETECTORS, *METHODS]),)


def _distinct(allowed: Sequence) -> Rule:
    def holds(v):
        is_list = isinstance(v, tuple | list)
        return is_list and len(v) > 0 and all(x in allowed for x in v) and len(set(v)) == len(v)

    return holds, f"all, or some of {', '.join(allowed)}, each once"


def _names(allowed: str) -> Rule:
    return lambda v: isinstance(v, tuple | list) and all(isinstance(x, str) for x in v), allowed


def _whole_numbers() -> Rule:
    is_whole, _ = _whole(0)

    def holds(v):
        return isinstance(v, tuple | list) and all(map(is_whole, v)) and len(set(v)) == len(v)

    return holds, "whole numbers of at least 0, each once, or empty for config.seed alone"


_OPTIMIZER: dict[str, Rule] = {
    "learning_rate": _number(0, open_low=True),
    "final_learning_rate": _number(0),
    "warmup": _number(0, 1),
    "momentum": _number(0, 1),
    "weight_decay": _number(0),
}
_SHARE = _number(0, 1)
RULES: dict[str, Rule] = {
    "name": (lambda v: isinstance(v, str) and bool(v), "a text"),
    "seed": _whole(0),
    "seeds": _whole_numbers(),
    "methods": _distinct(ROWS),
    "method_options": (
        lambda v: isinstance(v, ConfigDict),
        "settings by the name of a method or detector, or empty",
    ),
    "init_from": (lambda v: isinstance(v, str), "a text"),
    "save_every": _whole(1),
    "eval_batch_size": _whole(1),
    "data.id": (lambda v: isinstance(v, str) and bool(v), "the name of an ID set"),
    "data.ood": (
        lambda v: isinstance(v, tuple | list) and len(v) > 0 and all(isinstance(x, str) for x in v),
        "one or more of the OOD sets' names",
    ),
    "data.folder": (lambda v: isinstance(v, str), "a folder for data.id=imagefolder, else empty"),
    "data.shifted": _names("names of shifted test sets of the ID classes, or empty"),
    "data.tuning": _names("names of OOD sets to choose hyper-parameters by, or empty"),
    "data.auxiliary": _names("names of sets of real outliers to train on, or empty"),
    "data.auxiliary_count": _whole(1),
    "data.image_size": _whole(28),
    "data.channels": _one_of((1, 3)),
    "data.ood_count": _whole(1),
    "data.tfds_dir": (lambda v: isinstance(v, str), "a text, empty for the usual folder"),
    "data.class_tokens": _texts("a word for each of some class names"),
    "data.class_names": _texts("a class name for each of some folders or labels, or empty"),
    "data.unreadable": _one_of(UNREADABLE),
    "data.hold_bytes": _whole(0),
    "data.workers": _whole(0),
    "model.arch": _one_of(ARCHITECTURES),
    "model.width": _whole(1),
    "model.stem": _one_of(STEMS),
    "model.precision": _one_of(MODEL_PRECISIONS),
    "latent_space.epochs": _whole(1),
    "latent_space.batch_size": _whole(1),
    "latent_space.temperature": _number(0, open_low=True),
    "latent_space.augment": _one_of(AUGMENTATIONS),
    "latent_space.features_per_class": _whole(1),
    **{f"latent_space.optimizer.{name}": rule for name, rule in _OPTIMIZER.items()},
    "sampling.k": _whole(1),
    "sampling.boundary": _whole(1),
    "sampling.per_round": _whole(1),
    "sampling.candidates": _whole(1),
    "sampling.scale": _number(0, open_low=True),
    "sampling.keep": _whole(1),
    "sampling.rounds": _whole(1),
    "sampling.selection": _one_of(SELECTIONS),
    "inliers.k": _whole(1),
    "inliers.per_round": _whole(1),
    "inliers.candidates": _whole(1),
    "inliers.scale": _number(0, open_low=True),
    "inliers.keep": _whole(1),
    "inliers.rounds": _whole(1),
    "inliers.images": _whole(1),
    "inliers.confirmed": (lambda v: isinstance(v, bool), "True or False"),
    "generator.path": (lambda v: isinstance(v, str) and bool(v), "a folder, or owner/name"),
    "generator.revision": (lambda v: isinstance(v, str), "a commit or tag, empty for a folder"),
    "generator.precision": _one_of(PRECISIONS),
    "generator.scheduler": _one_of(SCHEDULERS),
    "decoding.prompts": (
        lambda v: isinstance(v, tuple | list) and len(v) > 0 and all("{name}" in p for p in v),
        "one or more texts with {name} in them",
    ),
    "decoding.id_prompt": (
        lambda v: isinstance(v, str) and "{name}" in v,
        "a text with {name} in it",
    ),
    "decoding.name_suffixes": _texts("a text for each of some class names, or empty"),
    "decoding.image_size": _whole(8),
    "decoding.steps": _whole(1),
    "decoding.guidance": _number(0),
    "decoding.batch_size": _whole(1),
    "decoding.vae_batch_size": _whole(1),
    "decoding.outliers": _whole(1),
    "decoding.by_name": _whole(0),
    "decoding.by_name_test": _whole(1),
    "tuning.seed": _whole(0),
    "tuning.candidates": (
        lambda v: isinstance(v, ConfigDict),
        "by the name of a method or detector, a list of values for each of some settings, or empty",
    ),
    "tuning.record": (lambda v: isinstance(v, str), "a file that launch/tune.py wrote, or empty"),
    "classifier.epochs": _whole(1),
    "classifier.batch_size": _whole(1),
    "classifier.outlier_batch_size": _whole(1),
    "classifier.augment": _one_of(AUGMENTATIONS),
    "classifier.degrade": _SHARE,
    "classifier.round_trip_share": _SHARE,
    "classifier.by_name_share": _SHARE,
    "classifier.filter_confidence": _number(0, 1, open_low=True),
    "classifier.collapse_below": _SHARE,
    "classifier.collapse_after": _SHARE,
    **{f"classifier.optimizer.{name}": rule for name, rule in _OPTIMIZER.items()},
    "fine_tune.epochs": _whole(1),
    "fine_tune.batch_size": _whole(1),
    "fine_tune.outlier_batch_size": _whole(1),
    "fine_tune.learning_rate": _number(0, open_low=True),
}
_BY_NAME = (
    "method_options.",
    "tuning.candidates.",
    "data.class_tokens.",
    "data.class_names.",
    "decoding.name_suffixes.",
)


def check_config(config: ConfigDict) -> None:
    """Checks every field by itself, then those that must fit each other.

    Raises:
      UserError: one line with the first bad field, its value and what is allowed.
    """
    for field, (holds, allowed) in RULES.items():
        value: Any = config
        for part in field.split("."):
            if part not in value:
                raise UserError(f"config.{field} is missing; it must be {allowed}")
            value = value[part]
        if not holds(value):
            raise UserError(f"config.{field} is {value!r}; it must be {allowed}")
    known = tuple(RULES)
    for field in flatten(config.to_dict()):
        if field not in known and not field.startswith(_BY_NAME):
            raise UserError(f"config.{field} is no setting; allowed: {', '.join(sorted(known))}")
    options(config, config.methods)
    for row in config.tuning.candidates:
        candidates(config, row)
    tuning_record(config)
    _check_sets(config)
    sampling = config.sampling
    for field in ("k", "boundary"):
        if sampling[field] > config.latent_space.features_per_class:
            raise UserError(
                f"config.sampling.{field} is {sampling[field]}; it must be at most the class size, "
                f"latent_space.features_per_class = {config.latent_space.features_per_class}"
            )
    most = config.latent_space.features_per_class
    if config.inliers.k > most:
        raise UserError(
            f"config.inliers.k is {config.inliers.k}; it must be at most the class size, "
            f"latent_space.features_per_class = {most}"
        )
    for section in ("sampling", "inliers"):
        keep, among = config[section].keep, config[section].candidates
        if keep > among:
            raise UserError(
                f"config.{section}.keep is {keep}; it must be at most {section}.candidates = "
                f"{among}"
            )
    if config.init_from in METHODS and config.init_from != PLAIN:
        raise UserError(
            f"config.init_from is {config.init_from!r}; allowed: empty, {PLAIN!r}, or a folder of "
            f"checkpoints"
        )
    needing = [row for row in config.methods if _extra(row) == "auxiliary"]
    if needing and not config.data.auxiliary:
        raise UserError(
            f"config.data.auxiliary is (); with {needing[0]!r} in config.methods it must name sets "
            f"of real outliers to train on"
        )
    if config.classifier.by_name_share > 0 and config.decoding.by_name == 0:
        raise UserError(
            f"config.decoding.by_name is 0; with classifier.by_name_share = "
            f"{config.classifier.by_name_share} it must be above 0"
        )
    check_generator(config.generator.path, config.generator.revision)


def _extra(row: str) -> str:
    return METHODS[row].extra if row in METHODS else ""


# Lists of names, for which a flag may give one text: --config.methods=msp,vos
_LISTS = ("methods", "data.ood", "data.shifted", "data.tuning", "data.auxiliary")


def spelt_out(config: ConfigDict) -> ConfigDict:
    """The configuration with lists of names as lists, and `methods = "all"` as all of them.

    A text is divided at its commas, unless it names a folder (`name=folder`).
    """
    config = config.copy_and_resolve_references()
    for field in _LISTS:
        *sections, last = field.split(".")
        section = config.get(sections[0], ConfigDict()) if sections else config
        texts = section.get(last)
        texts = (texts,) if isinstance(texts, str) else texts
        if isinstance(texts, tuple | list) and all(isinstance(text, str) for text in texts):
            parts = [[text] if "=" in text else text.split(",") for text in texts]
            with section.ignore_type():
                section[last] = tuple(name.strip() for names in parts for name in names)
    if "all" in config.get("methods", ()):
        config.methods = ROWS
    return config


def options(config: ConfigDict, rows: Sequence[str]) -> dict[str, dict[str, Any]]:
    """All settings of each of some rows: `config.method_options`, else the defaults.

    Raises:
      UserError: `config.method_options` names no row of the table, or a bad setting.
    """
    given = config.method_options.to_dict()
    for name, own in given.items():
        if name not in ROWS or not isinstance(own, dict):
            raise UserError(
                f"config.method_options.{name} is {own!r}; allowed: settings of one of "
                f"{', '.join(ROWS)}"
            )
    known = DETECTORS | METHODS
    try:
        resolved = {
            name: resolve(name, known[name].options, given.get(name, {}))
            for name in dict.fromkeys([*rows, *given])
        }
    except UserError as error:
        raise UserError(f"config.method_options: {error}") from None
    return {name: resolved[name] for name in rows}


def candidates(config: ConfigDict, row: str) -> list[dict[str, Any]]:
    """The settings that are tried for a row: all combinations of `config.tuning.candidates`.

    Raises:
      UserError: there is no such row or setting, or a value is not allowed.
    """
    given, field = config.tuning.candidates[row], f"config.tuning.candidates.{row}"
    given = given.to_dict() if isinstance(given, ConfigDict) else given
    lists = given if isinstance(given, dict) else {}
    if row not in ROWS or not lists or not all(isinstance(v, tuple | list) for v in lists.values()):
        raise UserError(
            f"{field} is {given!r}; it must be a list of values for each of some settings of one "
            f"of {', '.join(ROWS)}"
        )
    known = (DETECTORS | METHODS)[row].options
    tried = [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
    try:
        for own in tried:
            resolve(row, known, own)
    except UserError as error:
        raise UserError(f"{field}: {error}") from None
    return tried


def tuning_record(config: ConfigDict) -> Path | None:
    """The file of `config.tuning.record`: as it is, else below the project's folder; None if empty.

    Raises:
      UserError: there is no such file.
    """
    record = config.tuning.record
    if not record:
        return None
    for path in (Path(record), REPOSITORY / record):
        if path.is_file():
            return path
    raise UserError(
        f"config.tuning.record is {record!r}; there is no such file: it must be one that "
        f"launch/tune.py wrote, or empty"
    )


# What results call the other sets that they hold.
_RESERVED = ("id", "mean", "round_trips", "sampled_by_name", "file")


def _check_sets(config: ConfigDict) -> None:
    """Checks the names of the image sets; whether they are here is seen later."""
    options = data_options(config)
    for field, names, kind in (
        ("id", [config.data.id], "ID"),
        ("ood", config.data.ood, "OOD"),
        ("tuning", config.data.tuning, "OOD"),
        ("auxiliary", config.data.auxiliary, "OOD"),
    ):
        for name in names:
            try:
                check_name(name, options, kind)
            except UserError as error:
                raise UserError(f"config.data.{field} is {config.data[field]!r}; {error}") from None
    # Other sets may lie beside its train and test folders.
    own_folder = f"={config.data.folder}/train" if config.data.id == "imagefolder" else ""
    try:
        check_roles(
            config.data.id + own_folder, config.data.ood, config.data.tuning, config.data.auxiliary
        )
    except UserError as error:
        raise UserError(f"config.{error}") from None
    if config.data.id == "imagefolder" and not config.data.folder:
        raise UserError("config.data.folder is ''; with data.id = imagefolder it must be a folder")
    titles = [set_title(name) for name in config.data.ood]
    for title in titles:
        if titles.count(title) > 1 or title in _RESERVED:
            raise UserError(
                f"config.data.ood is {tuple(config.data.ood)!r}; each set must have a name of its "
                f"own, other than {', '.join(_RESERVED)}, and {title!r} is not"
            )


def check_class_sizes(config: ConfigDict, labels: np.ndarray, class_names: Sequence[str]) -> None:
    """Checks the settings that depend on how many images each class has."""
    if not class_names:
        raise UserError(f"data.id {config.data.id!r} gives no class names; at least one is needed")
    sizes = np.bincount(labels, minlength=len(class_names))
    smallest = int(sizes.argmin())
    posthoc = [row for row in config.methods if row in DETECTORS]
    check_sizes(options(config, posthoc), len(labels))
    trained = [row for row in config.methods if row in METHODS]
    for row, own in options(config, trained).items():
        size, channels = config.data.image_size, config.data.channels
        METHODS[row].check(own, (size, size, channels), labels, config.classifier.epochs)
    for field in ("sampling.k", "sampling.boundary", "inliers.k"):
        section, name = field.split(".")
        value = config[section][name]
        if value > sizes[smallest]:
            raise UserError(
                f"config.{field} is {value}; it must be at most {sizes[smallest]}, the "
                f"number of images of class {class_names[smallest]!r}"
            )
    for field in ("data.class_tokens", "decoding.name_suffixes"):
        section, name = field.split(".")
        unknown = set(config[section][name]) - set(class_names)
        if unknown:
            raise UserError(
                f"config.{field} names {sorted(unknown)}; allowed: {', '.join(class_names)}"
            )


def data_options(config: ConfigDict) -> DataOptions:
    """The options by which image sets are loaded; their draws do not depend on the run's seed."""
    return DataOptions(
        image_size=config.data.image_size,
        channels=config.data.channels,
        tfds_dir=config.data.tfds_dir or None,
        count=config.data.ood_count,
        folder=config.data.folder or None,
        class_names=config.data.class_names.to_dict(),
        unreadable=config.data.unreadable,
        hold_bytes=config.data.hold_bytes,
    )
