"""The training of a miniature generator: its configuration checked, and what a folder holds of it.

The folder's `config.json` keeps the settings, and of a finished pipeline the checksums.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dream_jax.checks import typed
from dream_jax.config_tree import plain_tree
from dream_jax.configurations import check_known, check_program
from dream_jax.errors import UserError
from dream_jax.files import checksums, read_json, write_json
from dream_jax.miniature.settings import TrainingSettings, check_fit
from dream_jax.settings import as_dict, expand, flatten, is_neutral
from dream_jax.training import hosts
from dream_jax.training.event_files import check_project

PROGRAM = "launch/train_generator.py"
# The parts that have checkpoints, in order, with the settings that each depends on.
PARTS = {
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
    return settings


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
    record = _read(path)
    _refuse_changes(record.get("settings", {}), tree, workdir)
    if record.get("settings") == tree and "pipeline" in record:
        if checksums(folder, "") == record["pipeline"]:
            return folder
        print(f"{folder}: files are missing or damaged; made again from the checkpoints")
    from dream_jax.miniature.training import train_generator  # diffusers: slow to import

    record = {"program": PROGRAM, "settings": tree}
    write_json(path, record)
    train_generator(settings, workdir)
    write_json(path, record | {"pipeline": checksums(folder, "")})
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
    return record


def _refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any], workdir: Path) -> None:
    """Raises UserError if a part was begun with other settings; names the first."""
    old, new = flatten(before), flatten(now)
    for part, sections in PARTS.items():
        if not before or not any((workdir / part).glob("*")):
            continue
        for field in expand(sections, TrainingSettings):
            if not is_neutral(field, TrainingSettings) and old.get(field) != new[field]:
                raise UserError(
                    f"{workdir / part}: was trained with {field}={old.get(field, 'unset')!r}, the "
                    f"configuration has {new[field]!r}; give another --workdir, or delete "
                    f"{workdir} to begin anew"
                )
