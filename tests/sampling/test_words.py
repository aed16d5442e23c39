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
from dream_jax.results import Features
from dream_jax.sampling.settings import VocabularySampler
from dream_jax.sampling.words import LEARNED, other_words, sample_words

GLYPHS = Path(__file__).parents[2] / "dream_jax" / "miniature" / "weights" / "glyphs"
NAMES = ("dog", "black cat", "airplane")
GIVEN = "jet"  # the word given for the last
WORDS = (
    *("apple", "bridge", "candle", "drum", "engine", "forest", "guitar", "hammer", "island"),
    *("jacket", "kettle", "ladder", "mirror", "needle", "orange", "pencil", "quilt", "rocket"),
    *("saddle", "tunnel", "umbrella", "violin", "window", "yellow", "zebra", "an", "of"),
)
SIZES, K, D = (30, 41, 36), 7, 16
SHORT, INSIDE = "kettle", ("drum", "pencil", "zebra")  # not learned; one inside of each class


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> TokenTable:
    """A made-up vocabulary whose words lie at many distances from the classes."""
    tokenizer = train_tokenizer([*NAMES, GIVEN, *WORDS], 12, tmp_path_factory.mktemp("tokenizer"))
    rng = np.random.default_rng(0)
    table = rng.normal(size=(len(tokenizer), D)) * rng.uniform(0.8, 1.6, (len(tokenizer), 1))
    found = TokenTable(tokenizer, table.astype(np.float32))
    for label, (word, name) in enumerate(zip(INSIDE, ("dog", "cat", GIVEN), strict=True)):
        found.table[row(found, word)] = 1.1 * found.table[row(found, name)] + 0.01 * (label + 1)
    found.table[row(found, SHORT)] *= 0.1
    return found


def row(vocabulary: TokenTable, word: str) -> int:
    (token,) = vocabulary.name_ids(word)
    return token


def known(vocabulary: TokenTable, spread: float = 0.4) -> Features:
    """Classes of unequal size around the tokens of "dog", "cat" and "jet"."""
    rng = np.random.default_rng(1)
    anchors = vocabulary.table[[row(vocabulary, word) for word in ("dog", "cat", GIVEN)]]
    labels = np.repeat([0, 1, 2], SIZES)
    features = anchors[labels] + spread * rng.normal(size=(len(labels), D))
    return Features(features.astype(np.float32), labels, anchors)


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def kth(queries: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.sort(np.linalg.norm(queries[:, None] - points[None], axis=-1), axis=1)[:, K - 1]


def by_definition(
    vocabulary: TokenTable, given: Features, count: int, boundary: int
) -> tuple[list[list[str]], list[str]]:
    """The words of each class, and those that lie inside of a class."""
    barred = {"dog", "black", "cat", "airplane", "jet"}
    rows = {
        token.removesuffix("</w>"): index
        for token, index in vocabulary.tokenizer.get_vocab().items()
        if token.endswith("</w>") and len(token) >= len("abc</w>")
    }
    table = vocabulary.table.astype(np.float64)
    shortest = min(np.linalg.norm(given.anchors.astype(np.float64), axis=1))
    words = sorted(
        word
        for word, index in rows.items()
        if word not in barred and np.linalg.norm(table[index]) >= LEARNED * shortest
    )
    tokens = unit(table[[rows[word] for word in words]])
    distances, inside = [], np.zeros(len(words), bool)
    for label in range(len(SIZES)):
        own = unit(given.features[given.labels == label])
        boundary_set = own[np.argsort(-kth(own, own))[:boundary]]
        distances.append(kth(tokens, own))
        inside |= distances[-1] <= kth(boundary_set, own).max()
    left = [index for index in range(len(words)) if not inside[index]]
    chosen = [sorted(left, key=lambda index: own[index])[:count] for own in distances]
    return [[words[i] for i in own] for own in chosen], [words[i] for i in np.flatnonzero(inside)]


@pytest.mark.parametrize(("count", "boundary"), [(5, 1), (11, 10), (1000, 30)])
def test_the_words_are_the_nearest_outside_every_class(vocabulary, count, boundary):
    given = known(vocabulary)
    expected, inside = by_definition(vocabulary, given, count, boundary)
    embeddings, words = sample_words(
        vocabulary, (*NAMES, GIVEN), given, VocabularySampler(K, count)
    )
    assert words == expected
    assert set(INSIDE) <= set(inside) and not set(inside) & {w for own in words for w in own}
    assert len({tuple(own) for own in words}) == len(SIZES)  # each class has an order of its own
    assert embeddings.dtype == np.float32
    for own, chosen, anchor in zip(embeddings, words, given.anchors, strict=True):
        tokens = unit(vocabulary.table[[row(vocabulary, word) for word in chosen]])
        np.testing.assert_allclose(own, tokens * np.linalg.norm(anchor), rtol=1e-5, atol=1e-6)


def test_words_and_tokens_of_the_classes_are_never_chosen(vocabulary):
    """Also where they lie outside every class; nor is what the text encoder has hardly learned."""
    given, own = known(vocabulary, spread=0.01), {"dog", "black", "cat", "airplane", "jet"}
    everything = VocabularySampler(K, 1000)
    _, words = sample_words(vocabulary, (*NAMES, GIVEN), given, everything)
    assert not {*own, SHORT, "an", "of"} & set(words[0]) and {*WORDS[:9]} <= {*words[0], *INSIDE}
    _, words = sample_words(vocabulary, ("dog",), given, everything)
    assert {"black", "airplane"} <= set(words[0])
    # A name of several tokens bars them all, its last one too, which is a word by itself.
    whole = vocabulary.words()
    tokens = vocabulary.name_ids("mirrorwindow Lamp-post")
    assert len(tokens) > 3 and set(tokens) & set(whole.values())
    found = other_words(vocabulary, ["mirrorwindow Lamp-post", "an Orange_Violin"])
    assert not set(tokens) & set(found.values()) and not {"orange", "violin"} & set(found)


def test_without_a_word_outside_every_class_one_line_says_so(vocabulary):
    given = known(vocabulary)
    scattered = np.random.default_rng(2).normal(size=given.features.shape).astype(np.float32)
    given = Features(scattered, given.labels, given.anchors)  # each class is everywhere
    with pytest.raises(UserError) as caught:
        sample_words(vocabulary, NAMES, given, VocabularySampler(30, 5))
    message = str(caught.value)
    assert message.startswith("config.sampling.method is 'vocabulary'; of the ")
    assert "none of them outside every class; allowed: a generator that knows more" in message
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
    rng, prompt = np.random.default_rng(3), "a handwritten {name}"
    anchors = generator.table[[generator.name_ids(name)[0] for name in names]]
    labels = np.repeat([0, 1], 20)
    features = anchors[labels] + 0.02 * rng.normal(size=(40, anchors.shape[1])).astype(np.float32)
    given = Features(features, labels, anchors)
    embeddings, words = sample_words(generator, names, given, VocabularySampler(5, 3))
    embedding, word = embeddings[1, 0], words[1][0]
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
