"""What is checked of the configuration of any launch program, beyond the rules of its fields."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from dream_jax.errors import UserError
from dream_jax.settings import field_types, flatten


def check_program(kind: type, tree: Mapping[str, Any], example: str) -> None:
    """Checks that a configuration is for the program that uses it.

    Args:
      kind: the dataclass of the program's settings.
      tree: the configuration as a dictionary.
      example: a file with a configuration of the program.

    Raises:
      UserError: the configuration has none of the sections.
    """
    hints = get_type_hints(kind)
    sections = [field.name for field in fields(kind) if is_dataclass(hints[field.name])]
    if not any(name in tree for name in sections):
        raise UserError(
            f"--config has none of the sections {', '.join(sections)}, so is no configuration of "
            f"this program; {example} is one"
        )


def check_known(kind: type, tree: Mapping[str, Any]) -> None:
    """Checks that a configuration has no fields but those of `kind`.

    Raises:
      UserError: names the first other field, and all that are allowed.
    """
    known = field_types(kind)
    for field in flatten(tree):
        if not any(field == name or field.startswith(f"{name}.") for name in known):
            raise UserError(f"config.{field} is no setting; allowed: {', '.join(sorted(known))}")
