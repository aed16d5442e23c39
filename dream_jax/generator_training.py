"""The training of a miniature generator: its configuration checked, and what a folder holds of it.

The folder's `config.json` keeps the settings, and of a finished pipeline the checksums.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dream_jax.checks import typed
from dream_jax.config_tree import plain_tree
from dream_jax.configurations import check_known, check_program
from dream_jax.errors import UserError
from dream_jax.files import checksums, read_json, write_json
from dream_jax.miniature.settings import EARLIER, LATER, TrainingSettings, check_fit
from dream_jax.miniature.start import SETTINGS, Start, check_kept, find_start
from dream_jax.settings import as_dict, expand, is_neutral, with_later
from dream_jax.training import hosts
from dream_jax.training.event_files import check_project

PROGRAM = "launch/train_generator.py"
# What is made, each in a folder of its own, in order, with the settings that it depends on.
PARTS = {
    "tokenizer": tuple(
        f"world.{field}" for field in ("id", "others", "id_words", "id_prompts", "other_prompts")
    ),
    "perceptual": ("seed", "precision", "world", "perceptual"),
    "autoencoder": ("seed", "precision", "world", "perceptual", "autoencoder"),
    "diffusion": (
        *("seed", "precision", "world", "perceptual"),
        *("autoencoder", "text_encoder", "unet", "diffusion"),
    ),
}


def check(config: ConfigDict) -> TrainingSettings:
    """Checks every field by itself, then those that must fit each other.

    Raises:
      UserError: one line with the first bad field, its value and what is allowed.
    """
    tree = plain_tree(config)
    check_program(TrainingSettings, tree, "configs/generator_glyphs.py")
    settings: TrainingSettings = typed(TrainingSettings, tree, "")
    check_known(TrainingSettings, tree)
    check_fit(settings)
    check_project(settings.wandb)
    start_of(settings)
    return settings


def start_of(settings: TrainingSettings, seen: Collection[Path] = ()) -> Start | None:
    """Returns the finished pipeline that a training starts from; None if from none.

    Args:
      seen: folders of pipelines of which one started from the next, the last from this one.

    Raises:
      UserError: there is none, or it does not go with the settings.
    """
    if not settings.start_from:
        return None
    folder = find_start(settings.start_from)
    path = folder / SETTINGS
    tree = with_later(read_json(path, "get the pipeline again"), LATER)
    try:
        made: TrainingSettings = typed(TrainingSettings, tree, "")
    except UserError as error:
        reason = str(error).removeprefix("config.")
        raise UserError(f"config.start_from: {path} is no record of a training: {reason}") from None
    if folder.resolve() in seen:
        raise UserError(
            f"config.start_from: {folder} started from a pipeline that lay there before, so its "
            f"world is unknown; name the sets in config.world.others instead of {EARLIER!r}"
        )
    whole = settings.world.others == made.world.others == EARLIER
    before = start_of(made, [*seen, folder.resolve()]) if whole else None
    start = Start(folder, made, before)
    check_kept(settings, start)
    return start


def run(config: ConfigDict, workdir: Path) -> Path:
    """Trains what is not trained yet; returns the folder of the pipeline.

    Args:
      config: see `configs/generator_glyphs.py`; checked as a whole before any work.
      workdir: holds the checkpoints, the record of the settings, and the folder `pipeline` at the
        end. A training that was interrupted there continues; a finished one is left as it is.

    Raises:
      UserError: bad input, in one line; what was done stays.
    """
    settings = check(config)
    if hosts.count() > 1:
        raise UserError(f"--processes is {hosts.count()}; the generator is trained by one")
    tree = json.loads(json.dumps(as_dict(settings, TrainingSettings)))  # tuples become lists
    path, folder = workdir / "config.json", workdir / "pipeline"
    start, record = start_of(settings), _read(path)
    if start and start.folder.resolve().is_relative_to(workdir.resolve()):
        raise UserError(
            f"config.start_from is {settings.start_from!r}, which lies in --workdir {workdir}, "
            f"where this training writes; give another --workdir"
        )
    now = {"program": PROGRAM, "settings": tree}
    now |= {"start": start.fingerprint()} if start else {}
    _refuse_changes(record, now, workdir)
    if "pipeline" in record and record["settings"] == tree:
        if checksums(folder, "") == record["pipeline"]:
            return folder
        print(f"{folder}: files are missing or damaged; made again from the checkpoints")
    from dream_jax.miniature.training import train_generator  # diffusers: slow to import

    write_json(path, now)
    train_generator(settings, workdir, start)
    write_json(path, now | {"pipeline": checksums(folder, "")})
    return folder


def _read(path: Path) -> dict[str, Any]:
    """Returns the record of a folder; an empty one where there is none.

    Raises:
      UserError: the file is damaged, or the record of another program.
    """
    if not path.exists():
        return {}
    record = read_json(path)
    if record.get("program") != PROGRAM:
        raise UserError(
            f"--workdir {path.parent} holds a run of another program, whose settings are in "
            f"{path.name}; give another --workdir"
        )
    if not isinstance(record.get("settings"), dict):
        raise UserError(f"{path}: holds no settings; delete it to go on with those given")
    return record | {"settings": with_later(record["settings"], LATER)}


def _refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], workdir: Path) -> None:
    """Raises UserError if a part was begun with other settings; names the first.

    Args:
      before, now: the records; `before` is empty where there is none.
    """
    remedy = f"give another --workdir, or delete {workdir} to begin anew"
    for part, sections in PARTS.items():
        if not before or not any((workdir / part).glob("*")):
            continue
        if before.get("start") != now.get("start"):
            raise UserError(
                f"{workdir / part}: was made with another config.start_from, or the files there "
                f"have changed; {remedy}"
            )
        for field in expand(sections, TrainingSettings):
            old, new = _found(before["settings"], field), _found(now["settings"], field)
            if not is_neutral(field, TrainingSettings) and old != new:
                raise UserError(
                    f"{workdir / part}: was trained with {field}={old!r}, the configuration has "
                    f"{new!r}; {remedy}"
                )


def _found(settings: Any, field: str) -> Any:
    """Returns the recorded value of a field by its dotted name, or "unset"."""
    for name in field.split("."):
        settings = settings.get(name, "unset") if isinstance(settings, dict) else "unset"
    return settings
