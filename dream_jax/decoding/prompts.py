"""Prompts as token ids, with a placeholder where the class's name stands."""

from collections.abc import Sequence

import numpy as np

from dream_jax.errors import UserError


def name_ids(tokenizer, name: str) -> list[int]:
    """Token ids of a class name, without the start and end marks."""
    return list(tokenizer(name, add_special_tokens=False).input_ids)


def prompt_ids(tokenizer, prompt: str, name: str) -> np.ndarray:
    """Padded token ids of a prompt such as "a handwritten {name}": (positions,) int32."""
    ids = tokenizer(prompt.format(name=name), padding="max_length", truncation=True).input_ids
    return np.asarray(ids, np.int32)


def placeholder_ids(tokenizer, prompt: str, name: str, token: str, placeholder: int) -> np.ndarray:
    """As `prompt_ids`, with `placeholder` for the class's token wherever it stands (paper, 3.3).

    One placeholder stands for all the tokens of the name.

    Args:
      prompt: template with a {name} field.
      name: the class name, or the word given for it.
      token: the word whose token is replaced; `name` unless overridden.
      placeholder: the id of an appended row of the token table.

    Raises:
      UserError: the prompt, shortened to the text encoder's positions, lacks the class's token.
    """
    wanted = name_ids(tokenizer, token)
    text = prompt.format(name=name)
    ids: Sequence[int] = tokenizer(text, add_special_tokens=False).input_ids
    replaced: list[int] = []
    position = 0
    while position < len(ids):
        if list(ids[position : position + len(wanted)]) == wanted:
            replaced.append(placeholder)
            position += len(wanted)
        else:
            replaced.append(ids[position])
            position += 1
    length = tokenizer.model_max_length
    replaced = replaced[: length - 2]
    if placeholder not in replaced:
        raise UserError(
            f"decoding.prompts: {text!r} does not hold the token {token!r} of its class within "
            f"{length - 2} tokens"
        )
    row = [tokenizer.bos_token_id, *replaced, tokenizer.eos_token_id]
    return np.asarray(row + [tokenizer.pad_token_id] * (length - len(row)), np.int32)
