"""CIFAR-100 on two cores, with a generator that the project does not come with."""

import pytest

from configs import cifar100
from configs.generator_photos import CIFAR100_WORDS, PROMPTS
from dream_jax.checks import check
from dream_jax.errors import UserError
from dream_jax.generator.folders import REPOSITORY, TRAINED
from dream_jax.generator.load import load_vocabulary
from dream_jax.miniature.tokenizer import train_tokenizer

PHOTOS = "dream_jax/miniature/weights/photos"


def small(**generator):
    config = cifar100.get_config("small")
    config.data.auxiliary = ()  # TFDS knows it only where it was prepared
    config.generator.update(generator)
    return config


def test_it_passes_once_its_generator_is_there():
    settings = check(small(path=PHOTOS))
    assert settings.data.class_tokens == CIFAR100_WORDS
    shown = {name.partition("=")[0] for name in (*settings.data.near, *settings.data.far)}
    assert shown.isdisjoint({"flowers", "scenes", "faces"})  # which show ID classes
    assert cifar100.get_config().data.class_tokens["maple tree"] == "maple"
    with pytest.raises(ValueError, match=r"cifar100\.py:tiny; allowed: full, small"):
        cifar100.get_config("tiny")


@pytest.mark.parametrize("path", TRAINED)
def test_a_pipeline_that_is_not_trained_yet_says_how(path, monkeypatch):
    monkeypatch.setattr("dream_jax.generator.folders.REPOSITORY", REPOSITORY / "configs")
    monkeypatch.chdir(REPOSITORY / "configs")  # where it lies neither
    with pytest.raises(UserError) as caught:
        check(small(path=path))
    message = str(caught.value)
    assert f"there is no folder {path!r}; train it by `python launch/train_gen" in message
    assert "--config=configs/generator_photos.py:cifar100`" in message and "\n" not in message


def test_the_words_become_tokens_of_their_own(tmp_path):
    names = [*CIFAR100_WORDS, *CIFAR100_WORDS.values()]
    captions = [prompt.format(name=name) for prompt in PROMPTS for name in names]
    start = REPOSITORY / PHOTOS / "tokenizer"
    made = train_tokenizer(captions, 16, tmp_path, start)
    tokens = [made(word, add_special_tokens=False).input_ids for word in CIFAR100_WORDS.values()]
    assert {len(own) for own in tokens} == {1} and len({own[0] for own in tokens}) == len(tokens)
    known = load_vocabulary(PHOTOS)
    for text in ("a photo of the lesser panda", "the brown bear"):
        assert made(text, add_special_tokens=False).input_ids == known.name_ids(text)
