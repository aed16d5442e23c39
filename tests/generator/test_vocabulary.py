"""The tokens of a text encoder, without the rest of its pipeline."""

import numpy as np
import pytest

from dream_jax.errors import UserError
from dream_jax.generator.load import load_vocabulary
from dream_jax.generator.vocabulary import TokenTable


@pytest.mark.parametrize("text", ["a picture of the dog", "", "the " * 30, "the godot"])
def test_a_prompt_is_what_the_tokenizer_makes_of_it(tokenizer, text):
    vocabulary = TokenTable(tokenizer, np.zeros((len(tokenizer), 1), np.float32))
    ids = vocabulary.prompt_ids(vocabulary.name_ids(text))
    assert ids.dtype == np.int32
    assert ids.tolist() == tokenizer(text, padding="max_length", truncation=True).input_ids


def test_the_vocabulary_alone(toy, toy_folder):
    vocabulary = load_vocabulary(str(toy_folder))
    np.testing.assert_array_equal(vocabulary.table, toy.table)
    assert vocabulary.table.dtype == np.float32
    assert vocabulary.name_ids("dog") == toy.name_ids("dog")


def test_a_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(UserError, match=r"generator\.path: .* lacks model_index\.json"):
        load_vocabulary(str(tmp_path))
