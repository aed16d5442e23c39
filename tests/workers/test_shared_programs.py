"""Ablations and tuning by several workers end as those by one process do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from slow import takes_a_minute
from toy_fixtures import environment

from dream_jax.files import read_json

pytestmark = takes_a_minute
TESTS = Path(__file__).resolve().parents[1]
CONFIG = """
import toy
from ml_collections import ConfigDict


def get_config():
    config = toy.get_config()
    config.methods = ("knn", "outlier_exposure")
    config.data.tuning = ("noise", "alphabets")
    config.data.auxiliary, config.data.auxiliary_count = ("symbols",), 30
    config.tuning.candidates = ConfigDict(
        {"knn": {"k": (3, 30)}, "outlier_exposure": {"weight": (0.5, 2.0)}}
    )
    config.ablation.seeds = (0, 5)
    config.ablation.variants = (
        ("core", "sampling.method=core"),
        ("core, wide", "sampling.method=core", "method_options.dream_ood.weight=2.0"),
        ("a strict filter", "classifier.filter_confidence=0.001"),
        ("no outliers", "ablation.row=energy"),
    )
    return config
"""


@pytest.fixture
def finish(toy, tmp_path):
    """`finish(program, workdir, *flags)`: (status, output) of a program on one core."""
    file = tmp_path / "config.py"
    file.write_text(CONFIG)

    def run(program: str, workdir: Path, *flags: str) -> tuple[int, str]:
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})  # as many as each worker has: the same bits
        try:
            done = subprocess.run(
                [
                    *(sys.executable, str(TESTS.parent / "launch" / program)),
                    *(f"--config={file}", f"--config.generator.path={toy.generator}"),
                    *(f"--workdir={workdir}", *flags),
                ],
                env=environment(PYTHONPATH=str(TESTS)),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=900,
            )
        finally:
            os.sched_setaffinity(0, cores)
        return done.returncode, done.stdout

    return run


@pytest.fixture
def folders(toy_run, tmp_path) -> list[Path]:
    copies = [tmp_path / "alone" / "toy", tmp_path / "shared" / "toy"]
    for copy in copies:
        shutil.copytree(toy_run.workdir, copy)
    return copies


def test_an_ablation_with_a_variant_that_fails(finish, folders):
    alone, shared = folders
    expected, found = finish("ablate.py", alone), finish("ablate.py", shared, "--workers=2")
    assert expected[0] == found[0] == 2, found[1]
    last = [output.strip().splitlines()[-1] for _, output in (expected, found)]
    assert last[0] == last[1] and "a strict filter" in last[0]
    records = [read_json(folder / "ablation" / "ablation.json") for folder in folders]
    assert records[0] == records[1]
    for place in ("table.csv", "table.md"):
        both = [(folder / "ablation" / place).read_bytes() for folder in folders]
        assert both[0] == both[1]
    assert "Traceback" not in found[1]
    # What two variants share was made once.
    assert found[1].count("── sample\n") == expected[1].count("── sample\n") == 1
    assert "variant core\n── sample\n" in found[1]


def test_tuning(finish, folders):
    alone, shared = folders
    expected, found = finish("tune.py", alone), finish("tune.py", shared, "--workers=2")
    assert expected[0] == found[0] == 0, found[1]
    records = [read_json(folder / "tuning.json") for folder in folders]
    assert records[0] == records[1] and set(records[0]["rows"]) == {"knn", "outlier_exposure"}
    plain = "── train cross_entropy, seed 100\n"
    assert found[1].count(plain) == expected[1].count(plain) == 1
    assert "outlier_exposure/weight=2.0\n── train outlier_exposure, seed 100\n" in found[1]
