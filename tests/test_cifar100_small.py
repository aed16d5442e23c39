"""CIFAR-100 on two cores, with the generator that a second round has taught its names."""

import pytest

from configs import cifar10, cifar100
from configs.cifar100_variants import OTHERS
from configs.generator_photos import CIFAR100_WORDS, PROMPTS
from dream_jax.ablation.variants import read_variants
from dream_jax.checks import check
from dream_jax.generator.folders import REPOSITORY
from dream_jax.generator.load import load_vocabulary
from dream_jax.miniature.tokenizer import train_tokenizer

PHOTOS = "dream_jax/miniature/weights/photos"


def test_it_passes():
    config = cifar100.get_config("small")
    config.data.auxiliary = ()  # TFDS knows it only where it was prepared
    settings = check(config)
    assert settings.data.class_tokens == CIFAR100_WORDS
    shown = {name.partition("=")[0] for name in (*settings.data.near, *settings.data.far)}
    assert shown.isdisjoint({"flowers", "scenes", "faces"})  # which show ID classes
    assert cifar100.get_config().data.class_tokens["maple tree"] == "maple"
    with pytest.raises(ValueError, match=r"cifar100\.py:tiny; allowed: full, small"):
        cifar100.get_config("tiny")


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


@pytest.mark.parametrize("module", [cifar10, cifar100])
def test_all_variants_are_read(module):
    config = module.get_config("small")
    config.data.auxiliary = ()
    given = [variant[0] for variant in config.ablation.variants]
    assert [variant.name for variant in read_variants(config)] == ["the recipe", *given]


def test_the_other_names_are_none_of_the_classes_and_known_to_the_generator():
    assert not set(OTHERS) & {*CIFAR100_WORDS, *CIFAR100_WORDS.values()}
    known = load_vocabulary(cifar100.get_config("small").generator.path)
    assert all(len(known.name_ids(name)) == 1 for name in OTHERS)
