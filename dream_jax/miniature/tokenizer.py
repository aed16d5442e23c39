"""The tokenizer of a miniature pipeline, made of the captions of its world."""

import json
from collections.abc import Sequence
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

from dream_jax.errors import UserError
from dream_jax.files import write_json, write_whole


def train_tokenizer(captions: Sequence[str], positions: int, folder: Path) -> CLIPTokenizer:
    """Returns a CLIPTokenizer whose byte-pair merges make one token of every word of the captions.

    Other words have tokens for their parts, so any text can be a prompt. A tokenizer that is in the
    folder already is used: the training leaves the order of equally frequent pairs to chance, and
    an interrupted training of the generator must go on with the ids that it began with.

    Args:
      captions: the texts of the world.
      positions: length of a tokenised prompt.
      folder: in which `vocab.json` and `merges.txt` are written, or found.

    Raises:
      UserError: what is found there cannot be read.
    """
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not vocabulary.exists():  # written last
        pairs = _merged_pairs(captions)
        symbols = list(bytes_to_unicode().values())
        tokens = [*symbols, *(s + "</w>" for s in symbols), *("".join(p) for p in pairs)]
        tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
        lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]

        def write_merges(path: Path) -> None:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")

        write_whole(merges, write_merges)
        write_json(vocabulary, {token: index for index, token in enumerate(tokens)})
    try:
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=positions)
    except Exception as error:  # JSON, the tokenizer and the system raise many kinds
        raise UserError(
            f"{folder}: is no readable tokenizer ({type(error).__name__}: {error}); give another "
            f"--workdir, because what is trained there goes with this tokenizer"
        ) from error


def _merged_pairs(captions: Sequence[str]) -> list[tuple[str, str]]:
    """Merges pairs, the most frequent first, until every word of the captions is one token."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    words = Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+")
    bpe.pre_tokenizer = pre_tokenizers.Split(words, "removed", invert=True)
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, min_frequency=1, show_progress=False, end_of_word_suffix="</w>"
    )
    bpe.train_from_iterator(sorted(set(captions)), trainer)
    return [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
