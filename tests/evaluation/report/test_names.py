"""Names of classes, sets and rows are shown as they are, whatever characters they have."""

import numpy as np
import pytest

from dream_jax.evaluation.report import embeddings, image_sheets, scores, tables

RNG = np.random.default_rng(0)
NAMES = ["$", "$$", "$$$", r"a_b^{c}\%", "$\\frac{$", "caf\udce9", "line\nend", "x" * 300, "שלום é"]


@pytest.mark.parametrize("name", NAMES)
def test_figures_draw_any_name(tmp_path, name):
    images, labels = np.zeros((2, 8, 8, 1), np.float32), np.array([0, 1])
    known = RNG.normal(size=(12, 4)), np.arange(12) % 2, RNG.normal(size=(2, 4))
    of = {"id": RNG.normal(size=9), name: RNG.normal(size=9)}
    drawn = [
        image_sheets.image_grid_by_class(
            images, labels, images, labels, [name, "b"], tmp_path / "1.png"
        ),
        embeddings.map_anchors(*known, [name, "b"], tmp_path / "2.png"),
        embeddings.map_outliers(known[0], known[0], name, tmp_path / "3.png"),
        scores.score_histograms(of["id"], {name: of[name]}, {}, name, tmp_path / "4.png"),
        scores.score_grid({name: of}, [name], tmp_path / "5.png"),
    ]
    assert all(path.stat().st_size > 1000 for path in drawn)


def test_tables_escape_names():
    row = {"fpr95": 0.25, "auroc": 0.875, "aupr_in": 0.5}
    sets = ["=a|b", "$x$", "caf\udce9", "[y]\nz"]
    metrics = {
        "methods": {"energy": {"id_accuracy": 0.9, "ood": dict.fromkeys([*sets, "mean"], row)}},
        "seed": 0,
    }
    markdown = tables.markdown_table(metrics)
    assert r"=a\|b" in markdown and r"\$x\$" in markdown and "caf\ufffd" in markdown
    latex = tables.latex_table(metrics)
    assert r"=a\textbar{}b" in latex and r"\$x\$" in latex and "{[}y{]} z" in latex
    heading = tables.csv_table(metrics).splitlines()[0]
    assert ",'=a|b.fpr95," in heading and "[y] z.fpr95" in heading
    for text in (markdown, latex, heading, tables.text_table(metrics)):
        text.encode("utf-8")


def test_characters_that_no_font_has_are_named_once(tmp_path, capsys, recwarn):
    images, labels = np.zeros((1, 8, 8, 1), np.float32), np.array([0])
    for number in range(2):
        image_sheets.image_grid_by_class(
            images, labels, images, labels, ["\U000e01f0"], tmp_path / f"{number}.png"
        )
    assert capsys.readouterr().err.count("no installed font has") == 1
    assert not [w for w in recwarn if "Glyph" in str(w.message)]
