"""Legibility: how many images sampled by class name the plain classifier reads as asked."""

from functools import partial

import numpy as np

from dream_jax.files import write_json
from dream_jax.results import PLAIN, Row, has_plain, seeds_of, stage_of
from dream_jax.run import Run, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts

NAME = "evaluate legible"


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns one stage if the run has a plain classifier; it takes the first seed's."""
    if not has_plain(rows):
        return []
    seed = seeds_of(settings)[0]
    inputs = (stage_of("train", PLAIN, seed, settings.seed), "decode by_name_test")
    own = {"seed": seed}
    make_it = partial(make, seed=seed)
    return [Stage(NAME, "evaluate", "evaluation/legible", (), make_it, inputs, own, derived=True)]


def make(work: Work, seed: int) -> None:
    """Writes results.json: {"legible": the share}."""
    images, asked = work.run.decoded("by_name_test")
    read = work.run.classifier(PLAIN, seed).logits(images).argmax(-1)
    if hosts.is_main():
        write_json(work.folder / "results.json", {"legible": float(np.mean(read == asked))})


def results(run: Run, seed: int) -> dict[str, dict]:
    """Returns nothing: this is about the generator, not about a row."""
    return {}
