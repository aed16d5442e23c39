"""The tokenizer that is made of a world's captions."""

import pytest

from dream_jax.errors import UserError
from dream_jax.miniature.tokenizer import train_tokenizer


def tokens(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def test_every_word_of_the_captions_is_one_token(tokenizer):
    for word in ("a", "picture", "of", "the", "dog", "black", "cat", "seven"):
        assert len(tokens(tokenizer, word)) == 1
    assert len(tokens(tokenizer, "godot")) > 1  # other words have tokens of their parts


def test_it_does_not_depend_on_the_order_of_captions(tokenizer, tmp_path):
    captions = ["a picture of the seven", "a picture of the dog", "a picture of the black cat"]
    again = train_tokenizer(captions * 2, 12, tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()


def test_one_that_is_there_is_kept(tmp_path):
    """Its training leaves ties to chance; a resumed generator must go on with the same ids."""
    first = train_tokenizer(["the symbol of a seven", "an arrow"], 8, tmp_path)
    again = train_tokenizer(["other words altogether"], 8, tmp_path)
    assert again.get_vocab() == first.get_vocab()
    assert len(tokens(again, "an arrow")) == 2


@pytest.mark.parametrize("damaged", ["vocab.json", "merges.txt"])
def test_one_that_is_damaged_is_refused(tmp_path, damaged):
    train_tokenizer(["the symbol of a seven"], 8, tmp_path)
    path = tmp_path / damaged
    path.unlink() if damaged == "merges.txt" else path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="is no readable tokenizer"):
        train_tokenizer(["the symbol of a seven"], 8, tmp_path)
