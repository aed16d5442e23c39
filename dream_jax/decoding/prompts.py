"""Prompts as token ids, with a placeholder where the class's name stands."""

import numpy as np
from jaxtyping import Int

from dream_jax.errors import UserError
from dream_jax.generator.interface import Vocabulary


def plain_prompt(vocabulary: Vocabulary, prompt: str, name: str) -> Int[np.ndarray, " positions"]:
    """Returns the token ids of a prompt such as "a handwritten {name}"."""
    return vocabulary.prompt_ids(vocabulary.name_ids(prompt.format(name=name)))


def check_plain_prompt(vocabulary: Vocabulary, prompt: str, name: str) -> None:
    """Raises UserError if a prompt, shortened to the text encoder's positions, cuts the name.

    One without a name is a whole: nothing of it may be cut.
    """
    before, named, _ = prompt.partition("{name}")
    upto = before + (name if named else "")
    most = len(vocabulary.prompt_ids([])) - 2
    if (length := len(vocabulary.name_ids(upto))) > most:
        if not named:
            raise UserError(
                f"the prompt {prompt!r} has {length} tokens; the text encoder of generator.path "
                f"takes {most}: shorten it"
            )
        raise UserError(
            f"the prompt {prompt!r} for class {name!r} has {length} tokens up to the end of the "
            f"name; the text encoder of generator.path takes {most}: shorten one of them"
        )


def prompt_with_placeholder(
    vocabulary: Vocabulary, prompt: str, name: str
) -> Int[np.ndarray, " positions"]:
    """Returns a prompt in which a placeholder stands for the class's name (paper, section 3.3).

    The placeholder is the id `len(vocabulary.table)`, as if a row were appended to the table. One
    stands for all the tokens of the name, wherever the name is in the prompt.

    Args:
      prompt: template with a {name} field.
      name: the class name, or the word given for it.

    Raises:
      UserError: the prompt, shortened to the text encoder's positions, lacks the name's tokens; or
        the name has none.
    """
    placeholder, wanted = len(vocabulary.table), vocabulary.name_ids(name)
    if not wanted:
        raise UserError(f"class {name!r} has no tokens in the text encoder of generator.path")
    text = prompt.format(name=name)
    ids = vocabulary.name_ids(text)
    replaced: list[int] = []
    position = 0
    while position < len(ids):
        if ids[position : position + len(wanted)] == wanted:
            replaced.append(placeholder)
            position += len(wanted)
        else:
            replaced.append(ids[position])
            position += 1
    found = vocabulary.prompt_ids(replaced)
    if placeholder not in found:
        raise UserError(
            f"decoding.prompts: {text!r} does not hold the token {name!r} of its class within "
            f"{len(found) - 2} tokens"
        )
    return found
