"""Anchors: token embeddings of the class names, which the image features are aligned with."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dream_jax.errors import UserError
from dream_jax.generator.interface import Vocabulary


def check_words(vocabulary: Vocabulary, names: Sequence[str], words: Sequence[str]) -> None:
    """Checks that every class has an anchor, and no two have equal ones.

    Args:
      vocabulary: of the text encoder.
      names: of the classes, for messages.
      words: for each class its name, or the word given for it.

    Raises:
      UserError: a word has no tokens or only unknown ones; or two words have the same tokens, each
        in the same share, which makes their anchors equal.
    """
    marks = set(vocabulary.prompt_ids([]).tolist())  # which also stand for what is unknown
    remedy = "give it another name by data.class_names, or another word by data.class_tokens"
    seen: dict[frozenset, int] = {}
    for index, word in enumerate(words):
        ids = vocabulary.name_ids(word)
        if not set(ids) - marks:
            raise UserError(
                f"{_called(names, words, index)} has no tokens that the text encoder of "
                f"generator.path knows; {remedy}"
            )
        counts = Counter(ids)
        common = math.gcd(*counts.values())
        tokens = frozenset((token, count // common) for token, count in counts.items())
        if (other := seen.setdefault(tokens, index)) != index:
            raise UserError(
                f"{_called(names, words, other)} and {_called(names, words, index)} have the same "
                f"tokens in the text encoder of generator.path, so that their anchors are equal; "
                f"for one of them, {remedy}"
            )


def _called(names: Sequence[str], words: Sequence[str], index: int) -> str:
    name, word = names[index], words[index]
    return f"class {name!r}" + (f", by its word {word!r}," if word != name else "")


def compute_anchors(
    table: Float[np.ndarray, "vocabulary d"], token_ids: Sequence[Sequence[int]]
) -> Float[np.ndarray, "classes d"]:
    """Computes T(y), a token embedding for each class (Dream-OOD, section 3.1).

    The anchor of a name of one token is its row of the table. That of a name of several tokens is
    the mean of their rows, rescaled to their mean norm: a mean of nearly orthogonal vectors would
    be too short for the text encoder.

    Args:
      table: token embeddings of the text encoder.
      token_ids: for each class the ids of its name's tokens.

    Returns:
      The anchors, float32.

    Raises:
      UserError: there are no classes, or a name has no tokens.
    """
    if not token_ids:
        raise UserError("data.class_names is empty; at least one class name is needed")
    anchors = []
    for index, ids in enumerate(token_ids):
        if not len(ids):
            raise UserError(f"data.class_names[{index}] has no tokens; a name needs at least one")
        tokens = table[np.asarray(ids)].astype(np.float64)
        mean = tokens.mean(0)
        anchors.append(mean * np.linalg.norm(tokens, axis=1).mean() / np.linalg.norm(mean))
    return np.asarray(anchors, np.float32)
