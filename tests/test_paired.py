"""The comparison with rivals: the memory of each is measured alone."""

import subprocess
import sys

import pytest
from toy import REPOSITORY

from benchmarks.paired import table
from dream_jax.files import read_json


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_contender_hides_the_memory_of_another(tmp_path):
    command = [sys.executable, "-m", "tests.two_sizes", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=300)
    first, second = read_json(tmp_path / "first.json"), read_json(tmp_path / "second.json")
    assert 400 < first["peak_mb"]["b"] - first["peak_mb"]["a"] < 600
    ours, large, own = (second["peak_mb"][who] for who in ("dream_jax", "large", "own process"))
    assert 150 < large - ours < 300
    assert own < ours - 100  # it does not import JAX
    rows = table([second]).splitlines()[2:]
    assert rows[0].endswith(f"| {large:,.0f} MB | {ours:,.0f} MB |")
    del second["peak_mb"]  # as results of earlier versions are
    assert table([second]).splitlines()[2].endswith("| – | – |")
