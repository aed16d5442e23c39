"""What a program imports before it has something to compute."""

from toy import __file__ as TOY

from benchmarks.startup import HEAVY, PROGRAMS, STEPS, heavy, modules_of
from dream_jax import pipeline


def test_help_imports_nothing_heavy(tmp_path):
    for name in PROGRAMS:
        imported = modules_of([f"launch/{name}", "--help"], tmp_path / "modules.txt")
        assert "dream_jax.starting" in imported
        assert heavy(imported) == [], name
        assert "numpy" not in imported, name


def test_a_finished_run_imports_jax_and_nothing_that_only_computes(toy, copied_run, tmp_path):
    command = ["launch/main.py", f"--config={TOY}", f"--config.generator.path={toy.generator}"]
    imported = modules_of([*command, f"--workdir={copied_run()}"], tmp_path / "modules.txt")
    assert "dream_jax.pipeline" in imported
    assert heavy(imported) == ["jax"]


def test_every_step_is_measured():
    assert tuple(pipeline.STEPS) == STEPS
    assert {"jax", "flax", "orbax", "diffusers", "sklearn", "matplotlib"} < set(HEAVY)
