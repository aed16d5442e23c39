"""Embeddings that are words, against NumPy: which are chosen, and what they look like."""

from pathlib import Path

import jax
import numpy as np
import pytest

from dream_jax.decoding.prompts import plain_prompt, prompt_with_placeholder
from dream_jax.errors import UserError
from dream_jax.generator.interface import Sampling
from dream_jax.generator.load import load_generator
from dream_jax.generator.vocabulary import TokenTable
from dream_jax.miniature.tokenizer import train_tokenizer
from dream_jax.sampling.words import LEARNED, other_words, sample_words

GLYPHS = Path(__file__).parents[2] / "dream_jax" / "miniature" / "weights" / "glyphs"
NAMES = ("dog", "black cat", "airplane")
GIVEN = "jet"  # the word given for the last
WORDS = (
    *("apple", "bridge", "candle", "drum", "engine", "forest", "guitar", "hammer", "island"),
    *("jacket", "kettle", "ladder", "mirror", "needle", "orange", "pencil", "quilt", "rocket"),
    *("saddle", "tunnel", "umbrella", "violin", "window", "yellow", "zebra", "an", "of"),
)
D = 16
SHORT, NEAR = "kettle", ("drum", "pencil", "zebra")  # not learned; one next to each class


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> TokenTable:
    """A made-up vocabulary whose words lie at many distances from the classes."""
    tokenizer = train_tokenizer([*NAMES, GIVEN, *WORDS], 12, tmp_path_factory.mktemp("tokenizer"))
    rng = np.random.default_rng(0)
    table = rng.normal(size=(len(tokenizer), D)) * rng.uniform(0.8, 1.6, (len(tokenizer), 1))
    found = TokenTable(tokenizer, table.astype(np.float32))
    for label, (word, name) in enumerate(zip(NEAR, ("dog", "cat", GIVEN), strict=True)):
        found.table[row(found, word)] = 1.1 * found.table[row(found, name)] + 0.01 * (label + 1)
    found.table[row(found, SHORT)] *= 0.1
    return found


def row(vocabulary: TokenTable, word: str) -> int:
    (token,) = vocabulary.name_ids(word)
    return token


def anchors_of(vocabulary: TokenTable) -> np.ndarray:
    """Anchors of unequal lengths at the tokens of "dog", "cat" and "jet"."""
    rows = [row(vocabulary, word) for word in ("dog", "cat", GIVEN)]
    return vocabulary.table[rows] * np.float32([[0.9], [1.0], [1.3]])


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def by_definition(vocabulary: TokenTable, anchors: np.ndarray) -> list[str]:
    """All words that may be chosen, the farthest from all classes first."""
    barred = {"dog", "black", "cat", "airplane", "jet"}
    shortest = min(np.linalg.norm(anchors.astype(np.float64), axis=1))
    rows = {
        token.removesuffix("</w>"): index
        for token, index in vocabulary.tokenizer.get_vocab().items()
        if token.endswith("</w>") and len(token) >= len("abc</w>")
    }
    nearest = {}
    for word, index in rows.items():
        vector = vocabulary.table[index].astype(np.float64)
        ending = any(other != word and other.endswith(word) for other in {*rows, *barred})
        if word not in barred and not ending and np.linalg.norm(vector) >= LEARNED * shortest:
            nearest[word] = max(unit(vector) @ unit(anchor) for anchor in anchors)
    return sorted(nearest, key=nearest.__getitem__)


@pytest.mark.parametrize("count", [5, 1000])
def test_the_words_are_those_that_are_farthest_from_all_classes(vocabulary, count):
    anchors = anchors_of(vocabulary)
    embeddings, words = sample_words(vocabulary, (*NAMES, GIVEN), anchors, count)
    expected = by_definition(vocabulary, anchors)
    assert words == expected[:count] and len(expected) > 15
    assert {*NEAR} <= {*expected[-5:]} and not {"acket", "angle"} & {*expected}
    assert embeddings.dtype == np.float32
    tokens = unit(vocabulary.table[[row(vocabulary, word) for word in words]])
    for own, anchor in zip(embeddings, anchors, strict=True):
        np.testing.assert_allclose(own, tokens * np.linalg.norm(anchor), rtol=1e-5, atol=1e-6)


def test_words_and_tokens_of_the_classes_are_never_chosen(vocabulary):
    """Nor is what the text encoder has hardly learned."""
    own = {"dog", "black", "cat", "airplane", "jet"}
    opposite = -anchors_of(vocabulary)[2:]  # from which the class's own word is farthest
    _, words = sample_words(vocabulary, (*NAMES, GIVEN), opposite, 1000)
    assert not {*own, SHORT, "an", "of"} & {*words}
    _, words = sample_words(vocabulary, ("dog",), opposite, 1000)
    assert words[0] == GIVEN and "dog" not in words
    # Pieces of words, which the tokenizer has learned on its way to these.
    assert vocabulary.words().keys() & {"acket", "angerine", "ella", "ack"}
    assert "ella" not in words and "umbrella" in words
    # A name of several tokens bars them all, its last one too, which is a word by itself.
    whole = vocabulary.words()
    tokens = vocabulary.name_ids("mirrorwindow Lamp-post")
    assert len(tokens) > 3 and set(tokens) & set(whole.values())
    found = other_words(vocabulary, ["mirrorwindow Lamp-post", "an Orange_Violin"])
    assert not set(tokens) & set(found.values()) and not {"orange", "violin"} & set(found)


def test_without_a_word_one_line_says_so(vocabulary):
    long = 100 * anchors_of(vocabulary)  # beside which no word is learned
    with pytest.raises(UserError) as caught:
        sample_words(vocabulary, NAMES, long, 5)
    message = str(caught.value)
    assert message.startswith("config.sampling.method is 'vocabulary'; of the ")
    assert "none is learned; allowed: a generator that knows more words, or one of" in message
    assert message.endswith(
        "one of bood, core, interpolation, knn, mean, prompts, random, text, token"
    )
    assert "\n" not in message
    with pytest.raises(
        UserError, match=r"the \d+ whole words of generator.path are all of ID clas"
    ):
        other_words(vocabulary, vocabulary.words())


def test_the_picture_of_a_word_is_that_of_the_plain_prompt():
    """Of the word's embedding at the length of its token; at the class's it is another picture."""
    generator, names = load_generator(str(GLYPHS)), ("three", "seven")
    prompt = "a handwritten {name}"
    anchors = generator.table[[generator.name_ids(name)[0] for name in names]]
    embeddings, words = sample_words(generator, names, anchors, 3)
    embedding, word = embeddings[1, 0], words[0]
    token = generator.table[generator.name_ids(word)[0]]
    own = unit(embedding) * np.linalg.norm(token)
    sampling, key = Sampling("dpmsolver++", 4, 3.0, 2, 2), jax.random.key(0)
    ids = prompt_with_placeholder(generator, prompt, "seven")
    keys = jax.numpy.stack([key, key])
    (made,) = generator.decode(
        np.stack([ids, ids]), np.stack([np.float32(own), embedding]), keys, sampling
    )
    plain = plain_prompt(generator, prompt, word)
    (expected,) = generator.decode(np.stack([plain, plain]), None, keys, sampling)
    np.testing.assert_allclose(made[0], expected[0], atol=1e-4)
    assert np.abs(made[1] - expected[0]).max() > 1e-2
