"""The queues of the classes' latest features against Python's own."""

from collections import deque

import jax
import numpy as np
import pytest

from dream_jax.detector import queues
from dream_jax.errors import UserError


def test_queues_are_first_in_first_out():
    rng = np.random.default_rng(0)
    size, classes = 5, 3
    push = jax.jit(queues.push)
    state = queues.empty(classes, size, 2)
    expected = [deque(maxlen=size) for _ in range(classes)]
    full = []
    for _ in range(30):
        rows = rng.normal(size=(20, 2)).astype(np.float32)
        # Class 0 has more rows in a batch than its queue holds, class 2 few.
        labels = rng.choice(classes, size=20, p=[0.7, 0.25, 0.05])
        mask = np.float32(rng.random(20) < 0.8)
        state = push(state, rows, labels, mask)
        for row, label in zip(rows[mask > 0], labels[mask > 0], strict=True):
            expected[label].append(row)
        full.append((bool(queues.all_full(state)), all(len(q) == size for q in expected)))
        for got, seen, want in zip(state.rows, state.seen, expected, strict=True):
            oldest = int(seen) % size if len(want) == size else 0
            in_order = np.roll(got, -oldest, axis=0)[: len(want)]
            np.testing.assert_array_equal(in_order, np.reshape(want, (-1, 2)))
    assert all(got == want for got, want in full)
    assert full[0] == (False, False) and full[-1] == (True, True)


def test_a_queue_that_is_never_full_is_refused():
    labels = np.array([0] * 9 + [1] * 4)
    queues.check_fill("vos", 11, labels, epochs=3)
    with pytest.raises(UserError, match=r"^method vos: queue is 12; it must be below 12, the im"):
        queues.check_fill("vos", 12, labels, epochs=3)
