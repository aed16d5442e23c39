"""Random keys that are folded from names, so that results depend on nothing else."""

import hashlib

import jax
from jaxtyping import Array, Key


def stage_key(seed: int, *names: str | int) -> Key[Array, ""]:
    """Folds the key of a stage, or of a class or an image in it: `stage_key(0, "sample", 3)`."""
    key = jax.random.key(seed)
    for name in names:
        number = _number(name) if isinstance(name, str) else name
        key = jax.random.fold_in(key, number)
    return key


def _number(name: str) -> int:
    """Hashes a name to an unsigned number of 32 bits."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
