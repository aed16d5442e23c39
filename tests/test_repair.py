"""What is missing or damaged in a finished run is found where it is needed, and made again."""

import re
import shutil
from pathlib import Path

import pytest

from dream_jax import pipeline
from dream_jax.errors import UserError
from dream_jax.files import read_json


def half_zeroed(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


def newest(folder: Path) -> Path:
    return max(folder.glob("checkpoints/[0-9]*"), key=lambda path: int(path.name))


def results(workdir: Path) -> dict[str, bytes]:
    """Returns the files that must come out the same, whatever was lost."""
    patterns = ("*.npz", "*.npy", "*.png", "metadata.jsonl", "weights.json", "results.json")
    found = {
        path.relative_to(workdir).as_posix(): path.read_bytes()
        for pattern in patterns
        for path in workdir.rglob(pattern)
        if "report" not in path.parts and "checkpoints" not in path.parts
    }
    return found | {"metrics.json": (workdir / "metrics.json").read_bytes()}


def test_whatever_is_lost_is_made_again_and_nothing_else(toy, toy_run, copied_run):
    """A part of every kind of stage at once, some of it in files that keep their size."""
    workdir = copied_run("evaluation/legible")
    images = workdir / "images"
    png = next(images.glob("outliers/part-00000/three/*.png"))
    (workdir / "latent_space" / "features.npz").unlink()
    shutil.rmtree(newest(workdir / "latent_space"))
    png.unlink()
    half_zeroed(next(images.glob("by_name_test/part-00000/*/*.png")))  # needed by what is missing
    (images / "by_name" / "part-00000" / "metadata.jsonl").write_text("{}\n")
    half_zeroed(images / "round_trips_test" / "images.npy")
    shutil.rmtree(newest(workdir / "classifier" / "dream_ood"))
    half_zeroed(workdir / "evaluation" / "dream_ood" / "scores_energy.npz")
    (workdir / "metrics.json").write_text("[]")
    (workdir / "report" / "table.csv").write_text("")
    times = {path: path.stat().st_mtime_ns for path in images.rglob("*.png")}
    output = toy.finish(workdir)
    assert results(workdir) == results(toy_run.workdir)
    assert (workdir / "report" / "table.csv").read_bytes() == (
        toy_run.workdir / "report" / "table.csv"
    ).read_bytes()
    again = [path for path, time in times.items() if path.stat().st_mtime_ns != time]
    assert len(again) == 1  # and the one that was deleted
    for lost in ("features.npz", png.name, "round_trips_test/images.npy", "metadata.jsonl"):
        assert re.search(f"missing or damaged, made again: .*{re.escape(lost)}", output), output
    assert "── sample\n" not in output and "── train cross_entropy\n" not in output
    assert "classifier dream_ood:  80%" in output.replace("\r", "\n")  # from the last checkpoint


def test_damage_in_a_stage_that_is_not_chosen_is_named(toy, toy_run, copied_run):
    workdir = copied_run("embeddings", "images", "classifier", "evaluation", "report")
    half_zeroed(workdir / "latent_space" / "features.npz")
    before = (workdir / "latent_space" / "stage.json").read_bytes()
    with pytest.raises(UserError) as caught:
        pipeline.run(toy.config(), workdir, ["sample"], overwrite=True)
    assert str(caught.value) == (
        f"{workdir / 'latent_space' / 'features.npz'}: is missing or damaged, and stage learn is "
        f"not chosen to make it again; add learn to --stages"
    )
    assert (workdir / "latent_space" / "stage.json").read_bytes() == before


def test_a_gap_in_the_chosen_steps_is_named(toy, toy_run, copied_run):
    workdir = copied_run("classifier", "evaluation", "report", "metrics.json")
    with pytest.raises(UserError, match=r"--stages lacks train, whose stage 'train .*' is needed"):
        pipeline.run(toy.config(), workdir, ["decode", "evaluate"])


def test_overwrite_clears_nothing_before_all_is_checked(toy, toy_run, copied_run):
    workdir = copied_run("images", "classifier", "evaluation", "report", "metrics.json")
    half_zeroed(workdir / "latent_space" / "features.npz")
    embeddings = (workdir / "embeddings" / "outliers.npz").read_bytes()
    with pytest.raises(UserError, match="add learn to --stages"):
        pipeline.run(toy.config(), workdir, ["sample"], overwrite=True)
    assert (workdir / "embeddings" / "outliers.npz").read_bytes() == embeddings
    assert read_json(workdir / "embeddings" / "stage.json")["done"]


def test_a_lost_configuration_is_written_again(toy, toy_run, copied_run):
    workdir = copied_run()
    config = (workdir / "config.json").read_bytes()
    for damaged, line in {
        "[]": r"config\.json: holds no JSON object.*; delete it: it is",
        config.decode().replace('"epochs": 1', '"epochs": 2'): "is damaged; delete it: it is",
    }.items():
        (workdir / "config.json").write_text(damaged)
        with pytest.raises(UserError, match=line):
            pipeline.run(toy.config(), workdir)
    (workdir / "config.json").unlink()
    pipeline.run(toy.config(), workdir)
    assert (workdir / "config.json").read_bytes() == config
