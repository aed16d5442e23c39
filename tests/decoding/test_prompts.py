"""Token ids of prompts, with one placeholder wherever the class's name stands."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from dream_jax.decoding.pictures import plan_pictures
from dream_jax.decoding.prompts import name_ids, placeholder_ids, prompt_ids
from dream_jax.errors import UserError
from dream_jax.miniature.networks import train_tokenizer

MARK = 10**6


def words(tokenizer, ids) -> list[str]:
    """Tokens as words, without end-of-word signs; "@" for the placeholder."""
    return [
        "@" if i == MARK else tokenizer.convert_ids_to_tokens(int(i)).replace("</w>", "")
        for i in ids
    ]


def test_every_word_of_the_captions_is_one_token(tokenizer):
    for word in ("a", "picture", "of", "the", "dog", "black", "cat", "seven"):
        assert len(name_ids(tokenizer, word)) == 1
    assert len(name_ids(tokenizer, "godot")) > 1  # other words have tokens of their parts


def test_tokenizer_does_not_depend_on_the_order_of_captions(tokenizer, tmp_path):
    captions = ["a picture of the seven", "a picture of the dog", "a picture of the black cat"]
    again = train_tokenizer(captions * 2, 12, tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_prompt_ids_are_padded(tokenizer):
    ids = prompt_ids(tokenizer, "the {name}", "dog")
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
def test_one_placeholder_wherever_the_name_stands(tokenizer, prompt, name, expected):
    ids = placeholder_ids(tokenizer, prompt, name, name, MARK)
    assert ids.shape == (12,) and ids.dtype == np.int32
    count = len(expected.split())
    assert ids[0] == tokenizer.bos_token_id
    assert words(tokenizer, ids[1 : count + 1]) == expected.split()
    assert ids[count + 1] == tokenizer.eos_token_id
    assert np.all(ids[count + 2 :] == tokenizer.pad_token_id)


def test_other_tokens_stay_as_in_the_plain_prompt(tokenizer):
    plain = prompt_ids(tokenizer, "a picture of the {name} cat", "dog")
    ids = placeholder_ids(tokenizer, "a picture of the {name} cat", "dog", "dog", MARK)
    (dog,) = name_ids(tokenizer, "dog")
    assert np.array_equal(np.where(plain == dog, MARK, plain), ids)


def test_token_given_for_a_name(tokenizer):
    """Only the given word of the name is replaced."""
    ids = placeholder_ids(tokenizer, "the {name}", "black cat", "cat", MARK)
    assert words(tokenizer, ids[1:4]) == ["the", "black", "@"]


def test_prompt_of_just_the_positions_keeps_its_placeholder(tokenizer):
    ids = placeholder_ids(tokenizer, "a " * 9 + "{name}", "dog", "dog", MARK)
    assert words(tokenizer, ids) == ["<|startoftext|>", *"aaaaaaaaa", "@", "<|endoftext|>"]


@pytest.mark.parametrize(
    ("prompt", "name", "token"),
    [("a " * 10 + "{name}", "dog", "dog"), ("the {name}", "dog", "cat")],
)
def test_prompt_without_the_token_is_refused(tokenizer, prompt, name, token):
    with pytest.raises(
        UserError, match=r"^decoding\.prompts: .* does not hold the token"
    ) as caught:
        placeholder_ids(tokenizer, prompt, name, token, MARK)
    assert repr(token) in str(caught.value) and "within 10 tokens" in str(caught.value)


def test_a_tokenizer_that_is_there_is_kept(tmp_path):
    """Its training leaves ties to chance; a resumed generator must go on with the same ids."""
    first = train_tokenizer(["the symbol of a seven", "an arrow"], 8, tmp_path)
    again = train_tokenizer(["other words altogether"], 8, tmp_path)
    assert again.get_vocab() == first.get_vocab()
    assert len(again("an arrow", add_special_tokens=False).input_ids) == 2


def test_what_is_said_after_a_name_follows_it_in_the_prompt():
    config = ConfigDict({"seed": 0, "decoding": {"prompts": ("a {name} at home",)}})
    config.decoding.id_prompt = "the {name}"
    config.decoding.name_suffixes = ConfigDict({"kite": "bird"})
    names = ("kite", "zebra")
    outliers = plan_pictures(config, "outliers", 4, names, embeddings=7)
    assert [p.prompt for p in outliers] == ["a {name} bird at home", "a {name} at home"] * 2
    by_name = plan_pictures(config, "by_name", 2, names, embeddings=None)
    assert [p.prompt.format(name=names[p.label]) for p in by_name] == ["the kite bird", "the zebra"]
