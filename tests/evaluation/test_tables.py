"""The table of results in its three forms."""

import csv
import io
import re

import pytest

from dream_jax.evaluation.tables import csv_table, markdown_table, text_table

NAMES = {"energy": "Energy", "dream_ood": "Dream-OOD"}
SETS = ("letters", "textures", "faces", "fashion_mnist")


def row(start):
    return {"fpr95": start, "auroc": start + 0.001, "aupr_in": start + 0.002}


@pytest.fixture
def metrics():
    methods = {}
    for base, key in ((0.1, "energy"), (0.5, "dream_ood")):
        ood = {name: row(base + 0.05 * i) for i, name in enumerate(SETS)}
        methods[key] = {"id_accuracy": base + 0.4, "ood": {"mean": row(base + 0.3), **ood}}
    methods["dream_ood"]["kept"] = {"round_trips": 0.93, "sampled_by_name": 1.0}
    return {"methods": methods, "seed": 0, "config": "quickstart"}


def table_lines(text):
    return text.split("\n\n")[0].splitlines()


def test_text_has_every_number_in_order(metrics):
    lines = table_lines(text_table(metrics, NAMES))
    energy, dream = lines[3].split(), lines[4].split()
    expected = [f"{x + d:.1f}" for x in (10, 15, 20, 25, 40) for d in (0, 0.1, 0.2)]
    assert energy == ["Energy", *expected, "50.0", "–", "–"]
    assert dream[0] == "Dream-OOD"
    assert dream[-3:] == ["90.0", "93.0", "100.0"]


def test_text_fits_and_is_aligned(metrics):
    text = text_table(metrics, NAMES)
    assert max(map(len, text.splitlines())) <= 140
    titles, headings, rule, *rows = table_lines(text)
    # Every number ends where its heading ends.
    ends = [[m.end() for m in re.finditer(r"[^ ]+", line)][1:] for line in (headings, *rows)]
    assert len(ends[0]) == 18 and all(line == ends[0] for line in ends)
    # Titles stand in the order of the columns, the mean after every set.
    order = [titles.index(t) for t in ("letters", "textures", "faces", "fashion mnist", "mean")]
    assert order == sorted(order)
    assert titles.split()[-2:] == ["ID", "kept"]
    assert set(rule) == {"-", " "}


@pytest.mark.parametrize("width", [80, 60, 10])
def test_narrow_text_wraps_whole_groups(metrics, width):
    text = text_table(metrics, NAMES, width=width)
    blocks = [block for block in text.split("\n\n") if "Method" in block]
    assert len(blocks) > 1
    longest = max(len(line) for block in blocks for line in block.splitlines())
    assert longest <= max(width, len("Dream-OOD") + 2 + 17)
    assert all("Dream-OOD" in block for block in blocks)
    assert sum(block.count("FPR95") for block in blocks) == 5
    assert "".join(text.split()).count("10.010.110.2") == 1


def test_without_names_or_kept(metrics):
    del metrics["methods"]["dream_ood"]["kept"]
    text = text_table(metrics)
    assert "kept" not in text.splitlines()[0] and "Kept" not in text
    assert "dream ood" in text


def test_a_set_that_one_method_lacks_is_a_dash(metrics):
    del metrics["methods"]["energy"]["ood"]["faces"]
    metrics["methods"]["energy"]["ood"]["letters"]["auroc"] = float("nan")
    energy = table_lines(text_table(metrics, NAMES))[3].split()
    assert energy[1:4] == ["10.0", "–", "10.2"]
    # Sets stay in order of appearance; faces is now first met in the second method.
    assert energy.count("–") == 1 + 3 + 2


def test_markdown(metrics):
    metrics["methods"]["a|b"] = metrics["methods"]["energy"]
    lines = markdown_table(metrics, NAMES).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    cells = [row.replace(r"\|", "").count("|") for row in rows]
    assert set(cells) == {9} and len(rows) == 6
    assert rows[1].startswith("| --- | ---: |")
    assert rows[3].startswith("| Energy | 10.0 / 10.1 / 10.2 | 15.0 / 15.1 / 15.2 |")
    assert rows[4].endswith("| 80.0 / 80.1 / 80.2 | 90.0 | 93.0 / 100.0 |")


def test_csv_keeps_keys_and_full_precision(metrics):
    metrics["methods"]["energy"]["ood"]["faces"]["fpr95"] = 1 / 3
    energy, dream = csv.DictReader(io.StringIO(csv_table(metrics)))
    assert list(energy)[:4] == ["method", "letters.fpr95", "letters.auroc", "letters.aupr_in"]
    assert energy["method"] == "energy" and float(energy["faces.fpr95"]) == 1 / 3
    assert float(dream["mean.auroc"]) == metrics["methods"]["dream_ood"]["ood"]["mean"]["auroc"]
    assert float(dream["id_accuracy"]) == 0.9
    assert energy["kept.round_trips"] == "" and float(dream["kept.round_trips"]) == 0.93
