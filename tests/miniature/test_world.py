"""Batches of the miniature generator's world."""

import numpy as np
import pytest

from dream_jax.miniature.world import batch_indices


@pytest.mark.parametrize("batch_size", [8, 9])
def test_half_of_a_batch_is_digits(batch_size):
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
