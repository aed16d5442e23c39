"""Token ids of prompts, with one placeholder wherever the class's name stands."""

import dataclasses

import numpy as np
import pytest

from configs import base
from dream_jax.decoding.pictures import Order, plan_pictures
from dream_jax.decoding.prompts import plain_prompt, prompt_with_placeholder
from dream_jax.errors import UserError
from dream_jax.generator.vocabulary import TokenTable
from dream_jax.miniature.tokenizer import train_tokenizer
from dream_jax.settings import DecodingSettings

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


def test_every_word_of_the_captions_is_one_token(vocabulary):
    for word in ("a", "picture", "of", "the", "dog", "black", "cat", "seven"):
        assert len(vocabulary.name_ids(word)) == 1
    assert len(vocabulary.name_ids("godot")) > 1  # other words have tokens of their parts


def test_tokenizer_does_not_depend_on_the_order_of_captions(tokenizer, tmp_path):
    captions = ["a picture of the seven", "a picture of the dog", "a picture of the black cat"]
    again = train_tokenizer(captions * 2, 12, tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_prompt_ids_are_padded(tokenizer, vocabulary):
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


def test_a_plain_prompt_is_what_the_tokenizer_makes_of_it(tokenizer, vocabulary):
    for text in ("a picture of the dog", "", "the " * 30):
        stock = tokenizer(text, padding="max_length", truncation=True).input_ids
        assert vocabulary.prompt_ids(vocabulary.name_ids(text)).tolist() == stock


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


def test_a_tokenizer_that_is_there_is_kept(tmp_path):
    """Its training leaves ties to chance; a resumed generator must go on with the same ids."""
    first = train_tokenizer(["the symbol of a seven", "an arrow"], 8, tmp_path)
    again = train_tokenizer(["other words altogether"], 8, tmp_path)
    assert again.get_vocab() == first.get_vocab()
    assert len(again("an arrow", add_special_tokens=False).input_ids) == 2


def test_what_is_said_after_a_name_follows_it_in_the_prompt(toy_decoding):
    decoding = dataclasses.replace(
        toy_decoding,
        prompts=("a {name} at home",),
        id_prompt="the {name}",
        name_suffixes={"kite": "bird"},
    )
    names = ("kite", "zebra")
    order = Order("outliers", 4, names, names, seed=0, embeddings=np.zeros((2, 7, 3)))
    outliers = plan_pictures(order, decoding)
    assert [p.prompt for p in outliers] == ["a {name} bird at home", "a {name} at home"] * 2
    assert all(0 <= p.embedding < 7 for p in outliers)
    by_name = plan_pictures(Order("by_name", 2, names, names, seed=0), decoding)
    assert [p.prompt.format(name=names[p.label]) for p in by_name] == ["the kite bird", "the zebra"]
    assert [p.file_name for p in by_name] == ["kite/000000.png", "zebra/000001.png"]


@pytest.fixture
def toy_decoding():
    config = base.get_config()
    return DecodingSettings(**config.decoding.to_dict())
