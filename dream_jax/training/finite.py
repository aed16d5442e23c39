"""Whether what a network computes is finite: found on the devices, and said in one line."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from dream_jax.errors import UserError

REMEDIES = {
    "float16": "numbers above 65504 are infinite in it; try bfloat16 or float32",
    "bfloat16": "try float32",
    "float32": "no other has a wider range, so the weights are damaged or too large",
}


class Origin(NamedTuple):
    """What computes numbers, for the message where they are not finite.

    Attributes:
      maker: such as "the generator" or "classifier vos".
      setting: the field of the configuration that holds its precision, where there is one.
      precision: the value of that field.
    """

    maker: str = "the network"
    setting: str = ""
    precision: str = ""

    def fault(self, numbers: str) -> str:
        """Returns what is wrong with numbers that are not finite, and what to try."""
        text = f"{self.maker} gives {numbers} that are not finite (NaN or infinity)"
        if not self.setting:
            return text
        return f"{text}; config.{self.setting} is {self.precision}: {REMEDIES[self.precision]}"


ANYTHING = Origin()


class NotFinite(UserError):
    """A row of what a network computed is not finite.

    Attributes:
      row: the first such row.
      fault: the message without the name of the row.
    """

    def __init__(self, row: int, fault: str, name: str = ""):
        super().__init__(f"{name or f'image {row}'}: {fault}")
        self.row, self.fault = row, fault


def finite_rows(tree: Any) -> Bool[Array, " rows"]:
    """Returns for each row of arrays (rows, ...) whether all its floats are finite; traced."""
    leaves = jax.tree.leaves(tree)
    return functools.reduce(jnp.logical_and, map(_finite, leaves), jnp.ones(len(leaves[0]), bool))


def _finite(leaf: Array) -> Bool[Array, " rows"]:
    return jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))


def first_fault(finite: Bool[np.ndarray, " rows"]) -> int | None:
    """Returns the first row that is not finite; None if all are."""
    return None if finite.all() else int(np.argmin(finite))


def names_of(tree: Any, row: int) -> str:
    """Returns the names of the arrays of a pytree in which a row is not finite."""
    faulty = [
        jax.tree_util.keystr(path, simple=True, separator=" ")
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        if not np.isfinite(leaf[row]).all()
    ]
    return ", ".join(filter(None, faulty)) or "outputs"


def check_arrays(arrays: Mapping[str, Any], place: str, advice: str) -> None:
    """Checks arrays that are read from a file or about to be written to one.

    Args:
      arrays: by name; what is no float is finite.
      place: what the message begins with.
      advice: what the message ends with.

    Raises:
      UserError: an array is not finite; names the first.
    """
    for name, values in arrays.items():
        if not is_finite(values):
            raise UserError(f"{place}: {name} has numbers that are NaN or infinite; {advice}")


def is_finite(values: Any) -> bool:
    """Returns whether all numbers of an array on the host are finite."""
    array = np.asarray(values)
    return not jnp.issubdtype(array.dtype, jnp.inexact) or bool(np.isfinite(array).all())
