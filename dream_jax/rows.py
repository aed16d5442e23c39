"""Which rows the results have: names of trainings and detectors as pairs with their settings."""

import math
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from dream_jax.candidates import read_record
from dream_jax.data.image_sets import ImageSet
from dream_jax.detector.detectors import DETECTORS
from dream_jax.detector.methods import PLAIN, TRAININGS
from dream_jax.detector.options import resolve
from dream_jax.errors import UserError
from dream_jax.results import Row
from dream_jax.rules import Option, is_list
from dream_jax.settings import Settings
from dream_jax.zero_shot.rows import CLIP
from dream_jax.zero_shot.rows import ROWS as ZERO_SHOT

# Every detector of the plain classifier, then every other training. Detectors that only fit one
# training's network say so and stand in its row.
NAMES = (
    *(name for name, detector in DETECTORS.items() if not detector.made_for),
    *(name for name in TRAININGS if name != PLAIN),
    *ZERO_SHOT,
)
# The rows of `methods = "all"`: without trainings that would make its table take too long, and
# without those by CLIP, whose weights are not of the run.
ALL = tuple(
    name for name in NAMES if name in DETECTORS or (name in TRAININGS and TRAININGS[name].in_all)
)
# Values of `methods` that stand for many rows; those that the data do not allow are left out.
SELECTIONS: dict[tuple[str, ...], tuple[str, ...]] = {("all",): ALL, ("every",): NAMES}
MOST_CANDIDATES = 10_000  # of a row
SECTIONS = {
    "": "Trained on the ID images alone",
    "outliers": "Trained with imagined images",
    "bood": "Trained with imagined images",
    "inliers": "Trained with imagined images",
    "auxiliary": "Trained with real outliers",
}


def pair(name: str) -> tuple[str, str] | None:
    """Returns the training and the detector that the name of a row stands for; None if none.

    A training alone means the detector that its paper uses, a detector alone the plain classifier.
    """
    training, _, detector = name.partition("/")
    if name in ZERO_SHOT:
        return CLIP, name
    if "/" not in name:
        if name in DETECTORS:
            return PLAIN, name
        return (name, TRAININGS[name].detector) if name in TRAININGS else None
    return (training, detector) if training in TRAININGS and detector in DETECTORS else None


def key_of(training: str, detector: str) -> str:
    """Returns the shortest name of a row, by which results call it."""
    if training in (PLAIN, CLIP):
        return detector
    return training if TRAININGS[training].detector == detector else f"{training}/{detector}"


def names_of(settings: Settings) -> dict[str, tuple[str, str]]:
    """Returns the pairs that `config.methods` asks for, by the keys of their rows.

    Raises:
      UserError: a name stands for no row, or two stand for one.
    """
    if selection := SELECTIONS.get(settings.methods):
        return {key_of(*found): found for name in selection if (found := pair(name))}
    pairs: dict[str, tuple[str, str]] = {}
    for name in settings.methods:
        found = pair(name)
        if found is None or key_of(*found) in pairs:
            fault = "is no row" if found is None else "is there twice"
            raise UserError(
                f"config.methods is {settings.methods!r}; {name!r} {fault}; allowed: all, every, "
                f"or some of {', '.join(NAMES)} and pairs training/detector, each once"
            )
        pairs[key_of(*found)] = found
    return pairs


def make_rows(settings: Settings) -> tuple[Row, ...]:
    """Returns the rows of `config.methods` with all their settings.

    Raises:
      UserError: `config.methods` or `config.method_options` names what is not there, a setting is
        not allowed, or a training lacks the sets of real outliers that it needs.
    """
    _check_option_names(settings)
    pairs = names_of(settings)
    rows = [make_row(settings, *found) for found in pairs.values()]
    without = lacking(settings)
    if without and settings.methods not in SELECTIONS:
        raise UserError(f"{next(iter(without.values()))}, of which config.methods has {[*without]}")
    return tuple(row for row in rows if row.key not in without)


def lacking(settings: Settings) -> dict[str, str]:
    """Returns the rows of `config.methods` that lack images by the settings, with the reason."""
    reason = "config.data.auxiliary is (); it must name sets of real outliers for some rows"
    pairs = {} if settings.data.auxiliary else names_of(settings)
    real = [name for name, training in TRAININGS.items() if training.extra == "auxiliary"]
    return {key: reason for key, (name, _) in pairs.items() if name in real}


def make_row(settings: Settings, training: str, detector: str) -> Row:
    """Returns the row of a pair; see `make_rows`."""
    key = key_of(training, detector)
    if training == CLIP:
        return _zero_shot(settings, key)
    trained, scored = TRAININGS[training], DETECTORS[detector]
    given = settings.method_options
    paper = dict(trained.detector_options) if trained.detector == detector else {}
    own = given.get(detector, {}) | paper | given.get(f"{training}/{detector}", {})
    section = SECTIONS[trained.extra] if training != PLAIN else "Scores of the plain classifier"
    title = scored.title if training == PLAIN else trained.title
    return Row(
        key=key,
        title=f"{title} / {scored.title}" if "/" in key else title,
        section=section,
        training=training,
        detector=detector,
        options=_resolved(detector, scored.options, own),
        training_options=_resolved(training, trained.options, given.get(training, {})),
        extra=trained.extra,
        main=trained.detector == detector,
    )


def _zero_shot(settings: Settings, key: str) -> Row:
    """Returns a row by CLIP, which no training of the run has made."""
    own = ZERO_SHOT[key]
    options = _resolved(key, own.options, settings.method_options.get(key, {}))
    return Row(key, own.title, "Zero-shot", CLIP, key, options, {}, "", True)


def _resolved(name: str, known: Mapping, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return resolve(name, known, given)
    except UserError as error:
        raise UserError(f"config.method_options: {error}") from None


def _check_option_names(settings: Settings) -> None:
    for name, given in settings.method_options.items():
        found = pair(name)
        if found is None:
            raise UserError(
                f"config.method_options.{name} is {given!r}; allowed: settings of one of "
                f"{', '.join((*DETECTORS, *TRAININGS, *ZERO_SHOT))}, or of a pair training/detector"
            )
        by_detector = "/" in name or name in DETECTORS
        known = DETECTORS[found[1]].options if by_detector else _own_options(name)
        _resolved(name, known, given)


def _own_options(name: str) -> Mapping[str, Option]:
    """Returns the settings of a training, or of a zero-shot row."""
    return ZERO_SHOT[name].options if name in ZERO_SHOT else TRAININGS[name].options


def impossible(settings: Settings, rows: Iterable[Row], train: ImageSet) -> dict[str, str]:
    """Returns the rows that cannot be made from the ID training images, with the reason."""
    found = {}
    for row in rows:
        try:
            check_row(settings, row, train)
        except UserError as error:
            found[row.key] = str(error)
    return found


def said(reasons: Mapping[str, str]) -> str:
    """Returns a line that names the rows that are left out, by the reasons."""
    keys: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        keys.setdefault(reason, []).append(key)
    return "left out: " + "; ".join(f"{', '.join(own)}: {why}" for why, own in keys.items())


def check_row(settings: Settings, row: Row, train: ImageSet) -> None:
    """Raises UserError if the settings of a row do not go with the ID training images."""
    if row.training == CLIP:
        return
    shape, labels = train.images.shape[1:], train.labels
    TRAININGS[row.training].check(row.training_options, shape, labels, settings.classifier.epochs)
    DETECTORS[row.detector].check(row.options, len(labels))


def check_tuning(settings: Settings) -> None:
    """Checks the candidates of `config.tuning`, and the record that settings were chosen by.

    Raises:
      UserError: names the setting.
    """
    for name in settings.tuning.candidates:
        candidates(settings, name)
    for name, own in read_record(settings.tuning.record).get("rows", {}).items():
        unknown = sorted(set(own["chosen"]) - set(_options_of(name)))
        if unknown:
            raise UserError(
                f"config.tuning.record is {settings.tuning.record!r}; it chooses {unknown[0]!r} "
                f"for {name!r}, which has no such setting: tune again, or leave it empty"
            )


def _options_of(name: str) -> dict[str, Any]:
    """Returns what can be chosen for a row by its name: its detector's settings, its training's."""
    found = pair(name)
    if found is None:
        return {}
    training, detector = found
    if training == CLIP:
        return {}  # tuning trains classifiers, and this row has none
    own = {} if name in DETECTORS else TRAININGS[training].options
    return {**DETECTORS[detector].options, **own}


def candidates(settings: Settings, name: str) -> list[dict[str, Any]]:
    """Returns the settings to try for a row: all combinations of `config.tuning.candidates`.

    Raises:
      UserError: there is no such row or setting, or a value is not allowed.
    """
    lists, field = settings.tuning.candidates[name], f"config.tuning.candidates.{name}"
    are_lists = all(is_list(values) and len(values) for values in lists.values())
    if not pair(name) or not lists or not are_lists:
        raise UserError(
            f"{field} is {lists!r}; it must be a list of values for each of some settings of one "
            f"of {', '.join(NAMES)}; no list may be empty"
        )
    if (key := key_of(*pair(name))) != name:  # type: ignore[misc]
        raise UserError(f"config.tuning.candidates has {name!r}; the name of its row is {key!r}")
    if (count := math.prod(map(len, lists.values()))) > MOST_CANDIDATES:
        raise UserError(f"{field} has {count} combinations; at most {MOST_CANDIDATES} are tried")
    tried = [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
    try:
        for own in tried:
            resolve(name, _options_of(name), own)
    except UserError as error:
        raise UserError(f"{field}: {error}") from None
    return tried


def with_options(
    given: Mapping[str, Mapping[str, Any]], name: str, options: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Returns `config.method_options` with some settings of a row replaced."""
    training, detector = pair(name) or ("", "")
    changed = {key: dict(own) for key, own in given.items()}
    for option, value in options.items():
        of_training = name not in DETECTORS and option in TRAININGS[training].options
        key = (
            training if of_training else detector if training == PLAIN else f"{training}/{detector}"
        )
        changed.setdefault(key, {})[option] = value
    return changed
