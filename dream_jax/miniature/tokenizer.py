"""The tokenizer of a miniature pipeline, made of the captions of its world."""

import json
from collections import Counter
from collections.abc import Collection, Container, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from dream_jax.errors import UserError
from dream_jax.files import write_json, write_whole

Pair = tuple[str, str]
Word = tuple[str, ...]  # its parts
END = "</w>"  # ends the last part of a word


def train_tokenizer(
    captions: Sequence[str],
    positions: int,
    folder: Path,
    start: Path | None = None,
    kept: Sequence[str] = (),
) -> CLIPTokenizer:
    """Returns a CLIPTokenizer whose byte-pair merges make one token of every word of the captions.

    Other words have tokens for their parts, so any text can be a prompt. A tokenizer that is in the
    folder already is used: the training leaves the order of equally frequent pairs to chance, and
    an interrupted training of the generator must go on with the ids that it began with.

    Args:
      captions: the texts of the world.
      positions: length of a tokenised prompt.
      folder: in which `vocab.json` and `merges.txt` are written, or found.
      start: the folder of a tokenizer whose tokens keep their ids; those of further words follow.
      kept: texts whose tokens stay those of that tokenizer, whatever they are.

    Raises:
      UserError: what is found there cannot be read.
    """
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not vocabulary.exists():  # written last
        tokens, pairs = _first(captions) if start is None else _extended(captions, start, kept)
        lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]

        def write_merges(path: Path) -> None:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")

        write_whole(merges, write_merges)
        write_json(vocabulary, {token: index for index, token in enumerate(tokens)})
    remedy = "give another --workdir, because what is trained there goes with this tokenizer"
    return _read(folder, remedy, positions)


def _read(folder: Path, remedy: str, positions: int | None = None) -> CLIPTokenizer:
    """Returns the tokenizer of a folder."""
    files = str(folder / "vocab.json"), str(folder / "merges.txt")
    try:
        return CLIPTokenizer(*files, model_max_length=positions)
    except Exception as error:  # JSON, the tokenizer and the system raise many kinds
        raise UserError(
            f"{folder}: is no readable tokenizer ({type(error).__name__}: {error}); {remedy}"
        ) from error


def _first(captions: Sequence[str]) -> tuple[list[str], list[Pair]]:
    """Returns the tokens of captions, in the order of their ids, and the merges."""
    pairs = _merged_pairs(captions)
    symbols = list(bytes_to_unicode().values())
    tokens = [*symbols, *(s + END for s in symbols), *("".join(p) for p in pairs)]
    return [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"], pairs


def _extended(
    captions: Sequence[str], start: Path, kept: Sequence[str]
) -> tuple[list[str], list[Pair]]:
    """Returns the tokens and merges of a tokenizer and, after them, those that captions need.

    The new merges come last, so they join only what the old ones leave apart: a word that is one
    token stays that token. Other words in several parts may have other parts than before.
    """
    tokenizer = _read(start, "config.start_from must name a whole pipeline")
    tokens, old = (
        sorted(numbers, key=numbers.__getitem__)
        for numbers in (tokenizer.encoder, tokenizer.bpe_ranks)
    )
    barred = {pair for word in _words(tokenizer, kept) for pair in pairwise(word)}
    pairs = _further_pairs(_words(tokenizer, captions), old, barred)
    return [*dict.fromkeys([*tokens, *("".join(pair) for pair in pairs)])], pairs


def _words(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> set[Word]:
    """Returns the words of texts, each in its parts."""
    words: set[Word] = set()
    for text in set(texts):
        word: Word = ()
        for part in tokenizer.tokenize(text):
            word += (part,)
            if part.endswith(END):
                words.add(word)
                word = ()
    return words


def _further_pairs(
    words: Collection[Word], pairs: Sequence[Pair], barred: Container[Pair]
) -> list[Pair]:
    """Adds merges, the most frequent pair first, until every word is one token.

    Args:
      words: in the parts that `pairs` leave of them.
      barred: pairs that stay apart, even if words then stay in parts.
    """
    ranks = {pair: rank for rank, pair in enumerate(pairs)}
    while True:
        words = [_merged(word, ranks) for word in words]
        counts = Counter(p for word in words for p in pairwise(word) if p not in barred)
        if not counts:
            return list(ranks)
        ranks[min(counts, key=lambda pair: (-counts[pair], pair))] = len(ranks)


def _merged(word: Word, ranks: Mapping[Pair, int]) -> Word:
    """Returns the parts of a word after all merges that apply, those of lower rank first."""
    while found := [pair for pair in pairwise(word) if pair in ranks]:
        best, parts = min(found, key=ranks.__getitem__), list(word)
        for place in range(len(parts) - 1):
            if tuple(parts[place : place + 2]) == best:
                parts[place : place + 2] = ["".join(best)]
        word = tuple(parts)
    return word


def _merged_pairs(captions: Sequence[str]) -> list[Pair]:
    """Merges pairs, the most frequent first, until every word of the captions is one token."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(end_of_word_suffix=END))
    bpe.normalizer = normalizers.Lowercase()
    words = Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+")
    bpe.pre_tokenizer = pre_tokenizers.Split(words, "removed", invert=True)
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=1, show_progress=False, end_of_word_suffix=END
    )
    bpe.train_from_iterator(sorted(set(captions)), trainer)
    return [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
