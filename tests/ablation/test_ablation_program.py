"""An ablation at toy size: what is shared, continued, measured and written."""

import csv
import io
import json
import os
import shutil
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from ml_collections import ConfigDict
from slow import takes_a_minute

import dream_jax
from dream_jax import pipeline
from dream_jax.ablation import program
from dream_jax.ablation.measures import less_recipe
from dream_jax.ablation.sharing import Finished, identity
from dream_jax.ablation.variants import RECIPE
from dream_jax.errors import UserError
from dream_jax.files import read_json

pytestmark = takes_a_minute
WIDE, PLAIN, STRICT = "wide noise", "no outliers", "a strict filter"
SEEDS = (0, 5)


def config_of(toy) -> ConfigDict:
    config = toy.config()
    config.data.tuning = ("noise", "alphabets")
    config.ablation.seeds = SEEDS
    config.ablation.variants = (
        (WIDE, "sampling.scale=0.5"),
        (PLAIN, "ablation.row=energy"),
        (STRICT, "classifier.filter_confidence=0.001"),  # which leaves out all outliers
    )
    return config


class Ablated(NamedTuple):
    """A finished ablation in the folder of a finished run; not to be changed."""

    workdir: Path
    before: dict[Path, bytes]  # the run's own records
    outputs: list[str]  # of the attempts, the first of which was interrupted
    errors: list[BaseException]

    @property
    def record(self) -> dict:
        return read_json(self.workdir / "ablation" / "ablation.json")

    def folder(self, variant: str) -> Path:
        return self.workdir / "ablation" / self.record["variants"][variant]["folder"]

    @property
    def output(self) -> str:
        return "".join(self.outputs)


class Stopped(BaseException):
    """What an interruption raises."""


@pytest.fixture(scope="module")
def ablated(toy, toy_run, tmp_path_factory) -> Ablated:
    """Interrupted in the middle of the second variant, and started again."""
    workdir = tmp_path_factory.mktemp("ablated") / "toy"
    shutil.copytree(toy_run.workdir, workdir)
    before = {path: path.read_bytes() for path in workdir.rglob("stage.json")}
    outputs, errors = [], []
    with pytest.MonkeyPatch.context() as patch:
        make = pipeline.make

        def interrupted(run, name):
            make(run, name)
            if name == "decode":
                raise Stopped

        for interruption in (interrupted, make):
            patch.setattr(pipeline, "make", interruption)
            with redirect_stdout(io.StringIO()) as output:
                try:
                    program.run(config_of(toy).lock(), workdir)
                except (UserError, Stopped) as error:
                    errors.append(error)
            outputs.append(output.getvalue())
    return Ablated(workdir, before, outputs, errors)


def test_every_stage_is_made_once(ablated):
    """The run has what the seed 0 shares, and the interrupted attempt everything until then."""
    made = Counter(line for line in ablated.output.splitlines() if line.startswith("── "))
    failing = ("── train dream_ood", "── train dream_ood, seed 5")  # one for each variant
    assert made == {
        **{"── sample": 1, "── decode": 1, "── train cross_entropy, seed 5": 1},
        **{failing[0]: 2, failing[1]: 2},
        **{"── evaluate dream_ood": 2, "── evaluate dream_ood, seed 5": 2},
        **{"── evaluate cross_entropy": 1, "── evaluate cross_entropy, seed 5": 1},
        **{"── evaluate outliers": 1, "── evaluate embeddings": 1, "── metrics": 3},
    }
    expected = (
        "4 variants x 2 seeds: 32 of 66 stages are shared; of the other 34, 12 are done and 22"
    )
    assert (
        f"{expected} remain\nvariant 1 of 4, the recipe: takes over 12 stages, makes 5"
        in (ablated.outputs[0])
    )
    assert "variant 1 of 4, the recipe: done\nvariant 2 of 4, wide noise: " in ablated.outputs[1]
    assert all(path.read_bytes() == content for path, content in ablated.before.items())


def test_shared_stages_are_the_same_files(ablated):
    recipe, wide, plain = map(ablated.folder, (RECIPE, WIDE, PLAIN))
    own = (recipe, wide, plain, ablated.workdir)
    for shared, folders in (
        ("latent_space/features.npz", own),
        ("images/round_trips_test/images.npy", own),
        ("embeddings/outliers.npz", (recipe, plain, ablated.workdir)),
        ("classifier/dream_ood/outliers.json", (recipe, ablated.workdir)),
        ("classifier/cross_entropy-seed5/metrics.csv", (recipe, wide, plain)),
    ):
        assert len({os.stat(folder / shared).st_ino for folder in folders}) == 1, shared
    assert (wide / "embeddings/outliers.npz").stat().st_ino != (
        recipe / "embeddings/outliers.npz"
    ).stat().st_ino


def test_a_finished_ablation_does_nothing(toy, ablated, tmp_path, capsys):
    workdir = tmp_path / "copy"
    shutil.copytree(ablated.workdir, workdir)
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("stage.json")}
    config = config_of(toy)
    config.ablation.variants = config.ablation.variants[:2]  # without the one that fails
    record = program.run(config.lock(), workdir)
    assert record == ablated.record | {"variants": record["variants"]}
    output = capsys.readouterr().out
    assert "──" not in output and "variant 3 of 3, no outliers: done" in output
    assert f"1 folders in {workdir / 'ablation'} are of variants that are not listed" in output
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("stage.json")} == before
    config = config_of(toy)
    config.sampling.scale = 0.5  # the recipe itself becomes what a variant was
    config.ablation.variants = config.ablation.variants[1:2]
    found = program.run(config.lock(), workdir)
    made = [line for line in capsys.readouterr().out.splitlines() if line.startswith("──")]
    assert made == ["── metrics"]  # of the plain row, with what is known of other embeddings
    assert found["methods"][RECIPE] == record["methods"][WIDE]


def test_a_part_of_the_list(toy, ablated, tmp_path, capsys):
    """What is not asked for is not made, and shown where it is done already."""
    workdir = tmp_path / "copy"
    shutil.copytree(ablated.workdir, workdir)
    config = config_of(toy)
    config.ablation.only = (RECIPE,)
    found = program.run(config.lock(), workdir)
    assert list(found["methods"]) == [RECIPE, WIDE, PLAIN] and STRICT not in found["variants"]
    shutil.rmtree(workdir / "ablation" / ablated.record["variants"][WIDE]["folder"])
    found = program.run(config, workdir)
    assert list(found["methods"]) == list(found["variants"]) == [RECIPE, PLAIN]
    output = capsys.readouterr().out
    assert "──" not in output and "not listed" not in output


def test_numbers_are_those_of_a_plain_run(toy, ablated, copied_run):
    """The same settings through the pipeline, where they are made anew: the same metrics."""
    workdir = copied_run("embeddings", "images/outliers", "classifier/dream_ood", "evaluation",
                         "metrics.json", "report")  # fmt: skip
    config = toy.config()
    config.data.ood, config.data.tuning = ("noise", "alphabets"), ()
    config.methods, config.seeds, config.sampling.scale = ("dream_ood",), SEEDS, 0.5
    pipeline.run(config, workdir, steps=program.STEPS)
    own = ablated.folder(WIDE)
    assert (own / "metrics.json").read_bytes() == (workdir / "metrics.json").read_bytes()
    metrics, record = read_json(workdir / "metrics.json"), ablated.record
    for found, known in (
        (record["methods"][WIDE], metrics["methods"]["dream_ood"]),
        (record["std"][WIDE], metrics["std"]["dream_ood"]),
        (record["by_seed"]["5"][WIDE], metrics["by_seed"]["5"]["dream_ood"]),
    ):
        outliers = {key: found["outliers"][key] for key in known["outliers"]}
        assert {key: found[key] for key in known} | {"outliers": outliers} == known
    judged = [
        read_json(workdir / "classifier" / place / "outliers.json")["in_class"]
        for place in ("dream_ood", "dream_ood-seed5")
    ]
    assert record["methods"][WIDE]["outliers"]["in_class"] == np.mean(judged)
    assert record["methods"][WIDE]["embeddings"] == metrics["embeddings"]["mean"]
    assert record["methods"][WIDE]["embeddings"] != record["methods"][RECIPE]["embeddings"]


def test_a_variant_that_fails_stops_no_other(ablated):
    *_, error = ablated.errors
    assert str(error).startswith(f"config.ablation.variants: {STRICT!r}: config.classifier.filter_")
    assert "it leaves out all 20 outliers" in str(error)
    record = ablated.record
    assert set(record["methods"]) == {RECIPE, WIDE, PLAIN}
    assert "leaves out all" in record["variants"][STRICT]["failed"]
    assert "outliers" not in record["methods"][PLAIN]


def test_variants_are_measured_on_the_tuning_sets_alone(ablated):
    for result in ablated.record["methods"].values():
        assert set(result["ood"]) == {"noise", "alphabets", "mean"}
    scores = [*(ablated.workdir / "ablation").rglob("scores_*.npz")]
    assert len(scores) == 6
    for path in scores:
        assert not {"letters", "faces"} & set(np.load(path))


def test_tables_and_page(ablated):
    folder = ablated.workdir / "ablation"
    with (folder / "table.csv").open() as file:
        rows = {row["variant"]: row for row in csv.DictReader(file)}
    recipe = ablated.record["methods"][RECIPE]
    assert set(rows) == {RECIPE, WIDE, PLAIN}
    assert float(rows[RECIPE]["mean.fpr95"]) == recipe["ood"]["mean"]["fpr95"]
    rank = recipe["embeddings"]["effective_rank"]
    assert float(rows[RECIPE]["embeddings.effective_rank"]) == rank
    assert rows[PLAIN]["embeddings.effective_rank"] == ""
    text = (folder / "table.md").read_text()
    assert "| Variant | mean | noise | alphabets | ID acc. ↑ |" in text
    assert f"/ {rank:.1f} |" in text or f"/ **{rank:.1f}** |" in text
    assert "sampling.scale=0.5" in text and "failed: config.classifier.filter" in text
    assert r"\label{tab:ablation}" in (folder / "table.tex").read_text()
    page = (folder / "index.html").read_text()
    for expected in ("Ablation: toy", "What it changes", "seeds 0, 5", WIDE, "sampling.scale=0.5"):
        assert expected in page, expected
    assert page.count("data:image/png;base64,") == 2
    assert (folder / "variants.png").exists() and (folder / "outliers.png").exists()


def test_differences_from_the_recipe(ablated):
    """Of the means over sets and seeds, with intervals; in the list of variants, as texts."""
    record = ablated.record
    assert less_recipe(record, RECIPE, "fpr95") is None
    text = (ablated.workdir / "ablation" / "table.md").read_text()
    for name in (WIDE, PLAIN):
        for metric in ("fpr95", "auroc"):
            means = [record["methods"][n]["ood"]["mean"][metric] for n in (name, RECIPE)]
            value, low, high = less_recipe(record, name, metric)
            assert value == pytest.approx(means[0] - means[1], abs=1e-6)
            assert low <= value <= high and low < high
        shown = [f"{100 * n:+.1f}".replace("-", "−") for n in less_recipe(record, name, "fpr95")]
        assert f"| {shown[0]} ({shown[1]} to {shown[2]}) |" in " ".join(text.split())


def test_a_variant_is_a_run(ablated):
    run = dream_jax.load_run(ablated.folder(WIDE))
    assert run.settings.sampling.scale == 0.5 and list(run.rows) == ["dream_ood"]
    images, _ = run.images("test")
    (scores,) = (ablated.folder(WIDE) / "evaluation/dream_ood").glob("scores_*.npz")
    stored = np.load(scores)["id"]
    np.testing.assert_allclose(run.score(images[:5]), stored[:5], atol=1e-5)


def test_a_stage_is_taken_over_whole_or_not_at_all(toy, ablated, tmp_path):
    """What is damaged, or was made from other files, is made anew."""
    workdir = tmp_path / "toy"
    shutil.copytree(ablated.folder(RECIPE), workdir)
    run = dream_jax.load_run(workdir)._run
    finished = Finished([workdir])
    other = pipeline.make_run(run.settings, tmp_path / "other")
    assert not finished.give(other.record("decode"))  # whose embeddings the other run has not
    assert finished.give(other.record("learn")) and other.record("learn").done
    (workdir / "embeddings" / "outliers.npz").write_bytes(b"")
    assert not finished.give(other.record("sample"))
    assert identity(other.record("sample")) in finished
    assert (other.folder("learn") / "features.npz").exists()
    assert not other.record("sample").exists
    half = json.loads((workdir / "images/by_name/stage.json").read_text()) | {"done": False}
    (workdir / "images/by_name/stage.json").write_text(json.dumps(half))
    assert identity(other.record("decode by_name")) not in Finished([workdir])
