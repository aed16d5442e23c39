"""Random keys folded from what they are for, so that results depend on nothing else."""

import hashlib

import jax


def stage_key(seed: int, *names: str | int) -> jax.Array:
    """The key of a stage, and of a class or an image in it: `stage_key(0, "sample", 3)`."""
    key = jax.random.key(seed)
    for name in names:
        number = name
        if isinstance(name, str):
            number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        key = jax.random.fold_in(key, number)
    return key
