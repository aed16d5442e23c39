"""A tokenizer of CLIP's kind with its table of token embeddings."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

END = "</w>"  # of a word, in the vocabulary of CLIP's tokenizer


class TokenTable:
    """A `Vocabulary`.

    Args:
      tokenizer: a CLIPTokenizer.
      table: (vocabulary, width) token embeddings, float32.
    """

    def __init__(self, tokenizer: Any, table: Float[np.ndarray, "vocabulary width"]):
        self.tokenizer, self.table = tokenizer, table

    def name_ids(self, text: str) -> list[int]:
        """See `Vocabulary.name_ids`."""
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def prompt_ids(self, ids: Sequence[int]) -> Int[np.ndarray, " positions"]:
        """See `Vocabulary.prompt_ids`."""
        tokenizer = self.tokenizer
        length = tokenizer.model_max_length
        row = [tokenizer.bos_token_id, *ids[: length - 2], tokenizer.eos_token_id]
        return np.asarray(row + [tokenizer.pad_token_id] * (length - len(row)), np.int32)

    def words(self) -> dict[str, int]:
        """See `Vocabulary.words`."""
        ids = {word: self.name_ids(word) for word in whole_words(self.tokenizer.get_vocab())}
        return {word: own[0] for word, own in ids.items() if len(own) == 1}


def whole_words(vocabulary: Iterable[str]) -> list[str]:
    """Returns the words of at least three letters that are one token, in alphabetical order.

    In the vocabulary of CLIP's tokenizer a token that ends a word ends in `</w>`, and words that
    are frequent in the captions that it was made for are one token. So are endings of longer words,
    such as "tion", which the vocabulary does not tell from words.

    Args:
      vocabulary: all tokens.
    """
    found = sorted(word for token in vocabulary if (word := token.removesuffix(END)) != token)
    return [word for word in found if len(word) >= 3 and word.isascii() and word.isalpha()]
