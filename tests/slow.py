"""A mark of tests that take about a minute each; the others finish in time without them."""

import os

import pytest

takes_a_minute = pytest.mark.skipif(
    "DREAM_JAX_SHARED" not in os.environ,
    reason="takes a minute; runs where DREAM_JAX_SHARED is set",
)
