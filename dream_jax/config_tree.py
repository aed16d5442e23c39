"""What `get_config()` of a configuration file returned, as nested dictionaries of plain values."""

from typing import Any

from ml_collections import ConfigDict, FrozenConfigDict

from dream_jax.errors import UserError


def run_name(config: Any) -> str:
    """Returns `config.name`, for which a run's folder is called.

    Raises:
      UserError: the configuration is none, or its name is missing or no text.
    """
    tree = plain_tree(config)
    if "name" not in tree:
        raise UserError("config.name is missing; it must be a text")
    if not isinstance(tree["name"], str):
        raise UserError(f"config.name is {shown(tree['name'])}; it must be a text")
    return tree["name"]


def plain_tree(config: Any) -> dict[str, Any]:
    """Returns a configuration as nested dictionaries, its NumPy scalars as Python's.

    Raises:
      UserError: `config` is no ConfigDict.
    """
    if not isinstance(config, ConfigDict | FrozenConfigDict):
        raise UserError(
            f"--config: its get_config() returns {_kind(config)}; it must return an "
            f"ml_collections.ConfigDict"
        )
    return _plain(config.to_dict())


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value)) if type(value) in (tuple, list) else tuple(value)
    import numpy as np  # not needed for --help

    return value.item() if isinstance(value, np.generic) else value


def shown(value: Any) -> str:
    """Returns a value as a message shows it: on one line, and shortened if it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:120]} ... {text[-60:]}"
