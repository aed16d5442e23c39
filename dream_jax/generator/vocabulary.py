"""A tokenizer of CLIP's kind with its table of token embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int


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
