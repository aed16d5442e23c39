"""Token ids of prompts, with one placeholder wherever the class's name stands."""

import numpy as np
import pytest

from dream_jax.decoding.prompts import plain_prompt, prompt_with_placeholder
from dream_jax.errors import UserError
from dream_jax.generator.vocabulary import TokenTable

MARK = 10**6


@pytest.fixture(scope="module")
def vocabulary(tokenizer) -> TokenTable:
    """With a table so long that the placeholder is MARK; its values take no memory."""
    return TokenTable(tokenizer, np.broadcast_to(np.float32(0), (MARK, 1)))


def words(tokenizer, ids) -> list[str]:
    """Tokens as words, without end-of-word signs; "@" for the placeholder."""
    return [
        "@" if i == MARK else tokenizer.convert_ids_to_tokens(int(i)).replace("</w>", "")
        for i in ids
    ]


def test_plain_prompts_are_padded(tokenizer, vocabulary):
    ids = plain_prompt(vocabulary, "the {name}", "dog")
    assert ids.shape == (12,) and ids.dtype == np.int32
    assert words(tokenizer, ids[:4]) == ["<|startoftext|>", "the", "dog", "<|endoftext|>"]
    assert np.all(ids[4:] == tokenizer.pad_token_id)


@pytest.mark.parametrize(
    ("prompt", "name", "expected"),
    [
        ("a picture of the {name}", "dog", "a picture of the @"),
        ("{name} and a {name}", "dog", "@ a n d a @"),
        ("the {name} picture", "black cat", "the @ picture"),
        ("{name} {name} black", "black cat", "@ @ black"),
        ("cat {name} black", "black cat", "cat @ black"),
        ("the {name}", "godot", "the @"),
    ],
)
def test_one_placeholder_wherever_the_name_stands(tokenizer, vocabulary, prompt, name, expected):
    ids = prompt_with_placeholder(vocabulary, prompt, name)
    assert ids.shape == (12,) and ids.dtype == np.int32
    count = len(expected.split())
    assert ids[0] == tokenizer.bos_token_id
    assert words(tokenizer, ids[1 : count + 1]) == expected.split()
    assert ids[count + 1] == tokenizer.eos_token_id
    assert np.all(ids[count + 2 :] == tokenizer.pad_token_id)


def test_other_tokens_stay_as_in_the_plain_prompt(vocabulary):
    plain = plain_prompt(vocabulary, "a picture of the {name} cat", "dog")
    ids = prompt_with_placeholder(vocabulary, "a picture of the {name} cat", "dog")
    (dog,) = vocabulary.name_ids("dog")
    assert np.array_equal(np.where(plain == dog, MARK, plain), ids)


def test_prompt_of_just_the_positions_keeps_its_placeholder(tokenizer, vocabulary):
    ids = prompt_with_placeholder(vocabulary, "a " * 9 + "{name}", "dog")
    assert words(tokenizer, ids) == ["<|startoftext|>", *"aaaaaaaaa", "@", "<|endoftext|>"]


def test_prompt_without_the_token_is_refused(vocabulary):
    with pytest.raises(
        UserError, match=r"^decoding\.prompts: .* does not hold the token"
    ) as caught:
        prompt_with_placeholder(vocabulary, "a " * 10 + "{name}", "dog")
    assert "'dog'" in str(caught.value) and "within 10 tokens" in str(caught.value)
