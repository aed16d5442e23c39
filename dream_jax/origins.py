"""What the configuration names outside of a run's folder: image sets, the generator, files.

A result depends on what lies there, and not on how the place is spelt. So the record of a stage
holds a fingerprint for each of these fields that the stage reads, and of the field itself no paths.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from dream_jax.data import registry, shifted
from dream_jax.data.image_sets import DataOptions
from dream_jax.detector.methods import PLAIN
from dream_jax.errors import DataUnavailable
from dream_jax.fingerprint import of_files
from dream_jax.generator import folders
from dream_jax.settings import Settings, value_of
from dream_jax.zero_shot import folder

Fingerprint = dict[str, Any]
# Lists of sets, some of them name=folder.
FILES = ("tuning.record", "zero_shot.words")
LISTS = ("data.ood", "data.near", "data.far", "data.shifted", "data.tuning", "data.auxiliary")


def counted(settings: Settings, field: str) -> Any:
    """Returns the value of a field as far as results depend on it: without paths."""
    value = value_of(settings, field)
    if field in LISTS:
        return [registry.set_title(name) for name in value]
    if field == "init_from" and value not in ("", PLAIN):
        return "a folder"
    return "a file" if field in FILES and value else value


def fingerprint(settings: Settings, field: str) -> Fingerprint:
    """Returns what identifies what a field names; {} where that is nothing or not on this machine.

    Raises:
      UserError: it is there and cannot be read.
    """
    return ORIGINS[field](settings)


def _id(settings: Settings) -> Fingerprint:
    return _if_here(registry.fingerprint, settings.data.id, _options(settings))


def _each(
    fingerprint: Callable[[str, DataOptions], Fingerprint], names: Iterable[str], settings: Settings
) -> Fingerprint:
    """Returns the fingerprints of sets, each entry named by its set."""
    found: Fingerprint = {}
    for name in names:
        own = _if_here(fingerprint, name, _options(settings))
        found |= {f"{registry.set_title(name)}: {key}": value for key, value in own.items()}
    return found


def _if_here(
    fingerprint: Callable[[str, DataOptions], Fingerprint], name: str, options: DataOptions
) -> Fingerprint:
    try:
        return fingerprint(name, options)
    except DataUnavailable:  # a finished run can be read without its data; checks tell the rest
        return {}


def _options(settings: Settings) -> DataOptions:
    return DataOptions.of(settings.data, count=1)


def _start(settings: Settings) -> Fingerprint:
    """Returns the fingerprint of the checkpoints that a training starts from, if from a folder."""
    root = Path(settings.init_from).expanduser()
    if settings.init_from in ("", PLAIN) or not root.is_dir():
        return {}
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    return of_files(root, files)


def _file(name: str) -> Fingerprint:
    """Returns the fingerprint of one file; {} if there is none of that name."""
    path = Path(name).expanduser()
    return of_files(path.parent, [path.name]) if name and path.is_file() else {}


ORIGINS: Mapping[str, Callable[[Settings], Fingerprint]] = {
    "data.id": _id,
    "data.ood": lambda settings: _each(registry.fingerprint, settings.data.ood, settings),
    "data.near": lambda settings: _each(registry.fingerprint, settings.data.near, settings),
    "data.far": lambda settings: _each(registry.fingerprint, settings.data.far, settings),
    "data.auxiliary": lambda settings: _each(
        registry.fingerprint, settings.data.auxiliary, settings
    ),
    "data.shifted": lambda settings: _each(shifted.fingerprint, settings.data.shifted, settings),
    "generator.path": lambda settings: folders.fingerprint(
        settings.generator.path, settings.generator.revision
    ),
    "init_from": _start,
    "tuning.record": lambda settings: _file(settings.tuning.record),
    "zero_shot.path": lambda settings: folder.fingerprint(
        settings.zero_shot.path, settings.zero_shot.revision
    ),
    "zero_shot.words": lambda settings: _file(settings.zero_shot.words),
}
