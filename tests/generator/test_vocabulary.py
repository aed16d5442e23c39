"""The tokens of a text encoder, without the rest of its pipeline."""

import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.generator.load import load_vocabulary
from dream_jax.generator.vocabulary import TokenTable, whole_words


@pytest.mark.parametrize("text", ["a picture of the dog", "", "the " * 30, "the godot"])
def test_a_prompt_is_what_the_tokenizer_makes_of_it(tokenizer, text):
    vocabulary = TokenTable(tokenizer, np.zeros((len(tokenizer), 1), np.float32))
    ids = vocabulary.prompt_ids(vocabulary.name_ids(text))
    assert ids.dtype == np.int32
    assert ids.tolist() == tokenizer(text, padding="max_length", truncation=True).input_ids


def test_whole_words_end_with_their_token():
    vocabulary = ["dog</w>", "dog", "do</w>", "caf\u00e9</w>", "4th</w>", "cat</w>", "<|pad|>"]
    assert whole_words(vocabulary) == ["cat", "dog"]
    assert whole_words(["do</w>", "dog"]) == []


def test_words_have_one_token(tokenizer):
    vocabulary = TokenTable(tokenizer, np.zeros((len(tokenizer), 1), np.float32))
    words = vocabulary.words()
    assert {"picture", "the", "dog", "black", "cat", "seven"} <= set(words) and "of" not in words
    assert [*words] == sorted(words)
    assert all(vocabulary.name_ids(word) == [token] for word, token in words.items())


def test_the_vocabulary_alone(toy, toy_folder):
    vocabulary = load_vocabulary(str(toy_folder))
    np.testing.assert_array_equal(vocabulary.table, toy.table)
    assert vocabulary.table.dtype == np.float32
    assert vocabulary.name_ids("dog") == toy.name_ids("dog")


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(UserError, match=r"generator\.path: .* lacks model_index\.json"):
        load_vocabulary(str(tmp_path))
