"""The file config.json in a run's folder: its whole configuration, sealed like the records."""

from pathlib import Path
from typing import Any

from dream_jax.errors import UserError
from dream_jax.files import read_json, write_json
from dream_jax.record import FORMAT, old_format, seal
from dream_jax.settings import Settings, as_dict, with_later

FILE = "config.json"


def write_config(workdir: Path, settings: Settings) -> None:
    """Writes the configuration of a run."""
    write_json(workdir / FILE, seal({"format": FORMAT} | as_dict(settings)))


def read_config(workdir: Path) -> dict[str, Any]:
    """Returns the configuration that a run was last started with, as nested dictionaries.

    Raises:
      UserError: the file is missing or damaged, or another version of the program wrote it.
    """
    remedy = "delete it: it is written again"
    found = read_json(workdir / FILE, remedy)
    if "seal" not in found and found.get("format") != FORMAT:
        raise old_format(workdir)
    if found != seal(found):
        raise UserError(f"{workdir / FILE}: is damaged; {remedy}")
    if found.pop("format") != FORMAT:
        raise old_format(workdir)
    del found["seal"]
    return with_later(found)
