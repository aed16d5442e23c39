"""The world of a miniature generator, and its batches."""

import numpy as np
import pytest

from configs import generator_glyphs
from dream_jax.data.image_sets import DataOptions
from dream_jax.data.registry import load_id
from dream_jax.generator_training import check
from dream_jax.miniature.world import batch_indices, build_world


def test_the_world_of_digits_and_glyphs():
    config = generator_glyphs.get_config()
    config.world.affine_versions = 0
    config.world.id_prompts = ("a handwritten {name}", "the digit {name}")
    world = build_world(check(config).world)
    digits, _ = load_id("digits", DataOptions())
    assert (world.id_images, world.id_classes) == (4000, 10)
    np.testing.assert_array_equal(world.images[:4000], digits.images.pixels(slice(None)))
    np.testing.assert_array_equal(world.labels[:4000], digits.labels)
    assert len(world.images) - 4000 == 19_837 and len(world.captions) - 10 == 3_970
    assert world.captions[3] == ("a handwritten three", "the digit three")
    assert set(world.labels[4000:]) == set(range(10, len(world.captions)))
    queens = [n for n, names in enumerate(world.captions) if "black chess queen" in names[0]]
    assert world.captions[queens[0]] == ("the symbol black chess queen",) * 2
    ink = world.images[world.labels == queens[0]].mean()
    assert 20 < ink < 120
    assert len(world.all_captions) == 2 * len(world.captions)


@pytest.mark.parametrize("batch_size", [8, 9])
def test_half_of_a_batch_is_of_the_id_set(batch_size):
    batches = [batch_indices(20, 50, batch_size, step, seed=0) for step in range(100)]
    for batch in batches:
        assert len(batch) == batch_size and np.sum(batch < 20) == batch_size // 2
    shown = np.bincount(np.concatenate(batches), minlength=70)
    assert len(shown) == 70 and np.ptp(shown[:20]) <= 1 and np.ptp(shown[20:]) <= 1


def test_batches_depend_on_the_seed_and_the_step_alone():
    first = batch_indices(20, 50, 8, 3, seed=0)
    assert np.array_equal(first, batch_indices(20, 50, 8, 3, seed=0))
    assert not np.array_equal(first, batch_indices(20, 50, 8, 4, seed=0))
    assert not np.array_equal(first, batch_indices(20, 50, 8, 3, seed=1))
