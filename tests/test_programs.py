"""A process does not gather compiled programs until the system refuses to map more memory."""

import sys

import jax
import jax.numpy as jnp
import pytest

from dream_jax import pipeline, programs


@pytest.fixture
def held():
    """A program that JAX holds."""
    program = jax.jit(lambda x: x + 1)
    program(jnp.zeros(3))
    return program


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is that of Linux")
def test_many_programs_are_dropped_and_few_are_kept(held):
    programs.drop_programs(10**9)
    assert held._cache_size() == 1
    programs.drop_programs(0)
    assert held._cache_size() == 0
    assert held(jnp.ones(3)).tolist() == [2, 2, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is that of Linux")
def test_they_are_dropped_between_stages(toy, toy_run, copied_run, held, monkeypatch):
    workdir = copied_run("metrics.json")
    monkeypatch.setattr(programs, "MOST_MAPPINGS", 0)
    pipeline.run(toy.config(), workdir)
    assert (workdir / "metrics.json").exists()
    assert held._cache_size() == 0
