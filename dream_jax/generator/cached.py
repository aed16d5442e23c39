"""The generator of a run and its vocabulary, each loaded once in a process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dream_jax.generator.interface import Generator, Vocabulary

if TYPE_CHECKING:
    from dream_jax.run import Work


def vocabulary_of(work: Work) -> Vocabulary:
    """Returns the tokens of the generator's text encoder, without loading the rest of it."""
    from dream_jax.generator.load import load_vocabulary  # transformers: slow to import

    path, revision = own = work.settings.generator.path, work.settings.generator.revision

    def load() -> Vocabulary:
        if revision and os.path.isdir(path):
            print(f"generator.revision {revision} is not used: generator.path is a folder")
        return load_vocabulary(*own)

    return work.run.cache.get(("vocabulary", *own), load)


def generator_of(work: Work) -> Generator:
    """Returns the generator."""
    from dream_jax.generator.load import load_generator  # diffusers: slow to import

    own = work.settings.generator
    arguments = (own.path, own.revision, own.precision)
    return work.run.cache.get(("generator", *arguments), lambda: load_generator(*arguments))
