"""Outlier embeddings that are words: tokens of the generator's vocabulary far from every ID class.

Dream-OOD (Du et al., NeurIPS 2023) adds noise to the features at the edge of a class. These are
real names instead, which nobody chose: of the words that the generator's tokenizer knows, those
that are least similar to any class.

NegLabel (Jiang et al., ICLR 2024) mines negative labels from a corpus in the same way, by their
distance to the ID labels in CLIP's space, and EOE (Cao et al., ICML 2024) has a language model name
outlier classes. Both score images by CLIP and decode nothing.
"""

import re
from collections.abc import Iterable
from typing import get_args

import numpy as np
from jaxtyping import Float

from dream_jax.errors import UserError
from dream_jax.generator.interface import Vocabulary
from dream_jax.sampling.settings import VOCABULARY
from dream_jax.settings import Method
from dream_jax.vectors import unit_on_host

# A token that is shorter than this share of the shortest anchor has hardly been trained: the length
# of a row shows it (Land & Bartolo, "Fishing for Magikarp: Automatically Detecting Under-trained
# Tokens in Large Language Models", EMNLP 2024). Not so where a second round of training has added
# rows to the table: these are drawn as long as the others.
LEARNED = 0.5


def other_words(vocabulary: Vocabulary, names: Iterable[str]) -> dict[str, int]:
    """Returns the whole words whose token is in none of the names, and that end no longer word.

    A word of a name is left out with the name's tokens: a whole word is one of them. Endings are
    left out because a tokenizer of merged pairs (BPE) has them on its way to longer words: of
    "raccoon" it knows "ccoon", which no caption may ever have held by itself.

    Args:
      vocabulary: of the generator's text encoder.
      names: of the ID classes, the words given for them, and prompts.

    Returns:
      Each word with the id of its token, in alphabetical order.

    Raises:
      UserError: there is none.
    """
    names = [*names]
    own = {token for name in names for token in vocabulary.name_ids(name)}
    whole = vocabulary.words()
    parts = [part for name in names for part in re.findall("[a-z]+", name.lower())]
    endings = _endings([*whole, *parts])
    found = {
        word: token for word, token in whole.items() if token not in own and word not in endings
    }
    if not found:
        raise _no_words(
            f"the {len(whole)} whole words of generator.path are all of ID classes or prompts, or "
            f"endings of longer ones"
        )
    return found


def _endings(words: Iterable[str]) -> set[str]:
    """Returns all that words end with, without the words themselves."""
    return {word[start:] for word in words for start in range(1, len(word))}


def sample_words(
    vocabulary: Vocabulary,
    names: Iterable[str],
    anchors: Float[np.ndarray, "classes d"],
    count: int,
) -> tuple[Float[np.ndarray, "classes n d"], list[str]]:
    """Returns the tokens of the words that are farthest from all classes, the farthest first.

    Their length is |T(y)|, that of the class's anchor, as for all outlier embeddings (Dream-OOD,
    section 3.2). At the length of the word's own token an embedding is decoded to the picture of
    the plain prompt with the word. `LEARNED` bounds how much longer it becomes.

    Args:
      vocabulary: of the generator's text encoder.
      names: of the ID classes, and what else is left out; see `other_words`.
      anchors: T(y) of all classes, of any length above 0.
      count: how many words to take; all, if there are fewer.

    Returns:
      float32 embeddings, which differ from class to class in their length alone, and the n words.

    Raises:
      UserError: no word is left.
    """
    found = other_words(vocabulary, names)
    words, table = [*found], vocabulary.table[[*found.values()]]
    lengths = np.linalg.norm(anchors, axis=1)
    learned = np.flatnonzero(np.linalg.norm(table, axis=1) >= LEARNED * lengths.min())
    if not learned.size:
        raise _no_words(
            f"of the {len(words)} whole words of generator.path that are not of ID classes none is "
            f"learned"
        )
    # Of a word and all classes: the largest cosine of its token and an anchor.
    similar = np.max(unit_on_host(table[learned]) @ unit_on_host(anchors).T, axis=1)
    chosen = learned[np.argsort(similar, kind="stable")[:count]]
    embeddings = unit_on_host(table[chosen]) * lengths[:, None, None]
    return embeddings.astype(np.float32), [words[i] for i in chosen]


def _no_words(found: str) -> UserError:
    others = ", ".join(sorted({*get_args(Method)} - {VOCABULARY}))
    return UserError(
        f"config.sampling.method is {VOCABULARY!r}; {found}; allowed: a generator that knows more "
        f"words, or one of {others}"
    )
