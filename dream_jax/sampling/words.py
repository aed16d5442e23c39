"""Outlier embeddings that are words: tokens of the generator's vocabulary outside every ID class.

Dream-OOD (Du et al., NeurIPS 2023) adds noise to the features at the edge of a class and chooses by
d_k what to keep. Here d_k chooses among the words that the generator's tokenizer knows: real names,
which nobody chose, in the place of noise.

Related work takes words that are far from the classes too: NegLabel (Jiang et al., ICLR 2024) mines
negative labels from a corpus by their distance in CLIP's space, and EOE (Cao et al., ICML 2024) has
a language model name outlier classes. Both score images by CLIP and decode nothing.
"""

from collections.abc import Iterable
from typing import get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from dream_jax.errors import UserError
from dream_jax.generator.interface import Vocabulary
from dream_jax.knn import d_k
from dream_jax.sampling.classes import Known
from dream_jax.sampling.settings import VOCABULARY, VocabularySampler
from dream_jax.settings import Method
from dream_jax.vectors import unit_on_host

# A token that is shorter than this share of the shortest anchor has hardly been trained: the length
# of a row shows it (Land & Bartolo, "Fishing for Magikarp: Automatically Detecting Under-trained
# Tokens in Large Language Models", EMNLP 2024). In the project's miniatures these are the endings
# of longer words, which no caption holds by themselves.
LEARNED = 0.5


def other_words(vocabulary: Vocabulary, names: Iterable[str]) -> dict[str, int]:
    """Returns the whole words whose token is in none of the names.

    A word of a name is left out with the name's tokens: a whole word is one of them.

    Args:
      vocabulary: of the generator's text encoder.
      names: of the ID classes, and the words given for them.

    Returns:
      Each word with the id of its token, in alphabetical order.

    Raises:
      UserError: there is none.
    """
    own = {token for name in names for token in vocabulary.name_ids(name)}
    whole = vocabulary.words()
    found = {word: token for word, token in whole.items() if token not in own}
    if not found:
        raise _no_words(f"the {len(whole)} whole words of generator.path are all of ID classes")
    return found


def sample_words(
    vocabulary: Vocabulary, names: Iterable[str], known: Known, settings: VocabularySampler
) -> tuple[Float[np.ndarray, "classes n d"], list[list[str]]]:
    """Returns for each class the tokens of the nearest words outside every class.

    Their length is |T(y)|, that of the class's anchor, as for all outlier embeddings (Dream-OOD,
    section 3.2). At the length of the word's own token an embedding is decoded to the picture of
    the plain prompt with the word. `LEARNED` bounds how much longer it becomes.

    Args:
      vocabulary: of the generator's text encoder.
      names: of the ID classes, and the words given for them; see `other_words`.
      known: features of ID images with their labels, and the anchors.
      settings: of the sampler.

    Returns:
      float32 embeddings, nearest first, and their words; n is `settings.count`, or the number of
      words that are left if they are fewer.

    Raises:
      UserError: no word is left.
    """
    found = other_words(vocabulary, names)
    words, table = [*found], vocabulary.table[[*found.values()]]
    lengths = np.linalg.norm(known.anchors, axis=1)
    learned = np.linalg.norm(table, axis=1) >= LEARNED * lengths.min()
    chosen = choose_words(table, learned, known, settings)
    if not chosen.size:
        raise _no_words(
            f"of the {len(words)} whole words of generator.path that are not of ID classes "
            f"{learned.sum()} are learned, none of them outside every class"
        )
    embeddings = unit_on_host(table[chosen]) * lengths[:, None, None]
    return embeddings.astype(np.float32), [[words[i] for i in own] for own in chosen]


def choose_words(
    tokens: Float[np.ndarray, "words d"],
    allowed: Bool[np.ndarray, " words"],
    known: Known,
    settings: VocabularySampler,
) -> Int[np.ndarray, "classes n"]:
    """Chooses for each class the allowed words outside every class that are nearest to it by d_k.

    A word is inside a class if its d_k among the class's features is at most the largest d_k of a
    feature of the boundary set. That is the largest of all features, whatever the size of the set.

    Args:
      tokens: of the words, of any length above 0.
      allowed: the words to choose from.
      known, settings: see `sample_words`.

    Returns:
      Indices of words, nearest first, equally near ones in the order given; n may be 0.
    """
    classes = len(known.anchors)
    most = int(np.bincount(known.labels, minlength=classes).max())
    distances = np.empty((classes, len(tokens)), np.float32)
    outside = np.array(allowed)
    for label in range(classes):
        own = known.features[known.labels == label]
        padded = np.pad(own, ((0, most - len(own)), (0, 0)))  # one program for all classes
        distances[label] = d_k(tokens, padded, settings.k, len(own))
        outside &= distances[label] > d_k(padded, padded, settings.k, len(own))[: len(own)].max()
    left = np.flatnonzero(outside)
    nearest = np.argsort(distances[:, left], axis=1, kind="stable")
    return left[nearest[:, : settings.count]]


def _no_words(found: str) -> UserError:
    others = ", ".join(sorted({*get_args(Method)} - {VOCABULARY}))
    return UserError(
        f"config.sampling.method is {VOCABULARY!r}; {found}; allowed: a generator that knows more "
        f"words, or one of {others}"
    )
