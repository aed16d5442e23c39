"""The configuration file of --config, read once; whatever is wrong with it is one line."""

import sys
import traceback
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

from ml_collections import ConfigDict
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from dream_jax.errors import UserError


class Parser(ConfigFileFlagParser):
    """What ml_collections calls with the value of --config."""

    def parse(self, path: str) -> ConfigDict:
        return read_config(path).lock()


def read_config(flag: str) -> ConfigDict:
    """Returns what `get_config()` of a file gives.

    Files next to it can be imported by it: `from configs import base`.

    Args:
      flag: the file, or "file:text" for `get_config(text)`.

    Raises:
      UserError: the file is missing or cannot be run, or gives no configuration with a name.
    """
    name, *text = flag.split(":", 1)
    file = Path(name).expanduser()
    if not file.is_file():
        fault = "is a folder" if file.is_dir() else "is not there"
        raise UserError(f"--config: {name or 'an empty path'} {fault}; it must be a Python file")
    sys.path.append(str(file.resolve().parents[1]))
    loader = SourceFileLoader("config_config", str(file))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[loader.name] = module  # as dataclasses of the file look for it
    try:
        loader.exec_module(module)
        config = module.get_config(*text)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(f"--config: {flag}: {_reason(error, file)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"--config: {flag}: get_config() returns {type(config).__name__}; it must return a "
            f"ConfigDict of ml_collections"
        )
    if "name" not in config:
        raise UserError("config.name is missing; it must be a text")
    return config


def _reason(error: BaseException, file: Path) -> str:
    """Returns the error, and the last line of the file that led to it."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{where}"
