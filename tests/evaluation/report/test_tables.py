"""The tables in their forms."""

import csv
import io
import re

import pytest

from dream_jax.evaluation.report.tables import (
    csv_table,
    latex_table,
    markdown_table,
    shifted_table,
    text_table,
    tuning_table,
)
from dream_jax.evaluation.seeds import summarise

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


def test_a_mean_follows_each_group_of_sets(metrics):
    metrics["groups"] = {"ood": ["faces"], "near": ["letters"], "far": ["textures"]}
    for i, entry in enumerate(metrics["methods"].values()):
        entry["groups"] = {name: row(0.6 + i / 10) for name in metrics["groups"]}
    order = ["faces", "mean of others", "letters", "near mean", "textures", "far mean"]
    order += ["fashion mnist", "mean"]
    titles = text_table(metrics, NAMES, width=400).splitlines()[0]
    places = [re.search(rf"(?<!\w ){title}(?! mean)", titles).start() for title in order[:-1]]
    assert places == sorted(places)
    headings = markdown_table(metrics, NAMES).splitlines()[0].split(" | ")
    assert headings[1:9] == order
    lines = list(csv.DictReader(io.StringIO(csv_table(metrics))))
    assert [line["near.fpr95"] for line in lines] == ["0.6", "0.7"]
    assert [line["far.aupr_in"] for line in lines] == ["0.602", "0.702"]
    latex = latex_table(metrics, NAMES)
    assert all(f"{{c}}{{{title}}}" in latex for title in order)


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


def entry(letters, faces, accuracy):
    """(FPR95, AUROC) of two sets; AUPRs are 0.5."""
    ood = {
        name: {"fpr95": fpr, "auroc": auroc, "aupr_in": 0.5}
        for name, (fpr, auroc) in (("letters", letters), ("faces", faces))
    }
    mean = {k: sum(of[k] for of in ood.values()) / 2 for k in ("fpr95", "auroc", "aupr_in")}
    return {"id_accuracy": accuracy, "kept": {"round_trips": 0.9}, "ood": ood | {"mean": mean}}


def shifted(noise, blur):
    noise = {"1": noise + 0.1, "5": noise - 0.1, "mean": noise}
    return {"noise": noise, "photo_copies": {"mean": blur}, "mean": (noise["mean"] + blur) / 2}


@pytest.fixture
def over_seeds():
    first = {
        "knn": entry((0.30, 0.90), (0.10, 0.97), 0.95),
        "a_&_b": entry((0.28, 0.91), (0.40, 0.80), 0.95),
        "dream_ood": entry((0.20, 0.95), (0.10, 0.97), 0.90),
    }
    second = {
        "knn": entry((0.40, 0.80), (0.10, 0.97), 0.97),
        "a_&_b": entry((0.28, 0.91), (0.50, 0.70), 0.93),
        "dream_ood": entry((0.26, 0.95), (0.10, 0.97), 0.94),
    }
    for run, plus in ((first, 0), (second, 0.02)):
        run["knn"]["shifted"] = shifted(0.6 + plus, 0.5)
        run["dream_ood"]["shifted"] = shifted(0.5 + plus, 0.7)
    told, not_told = [0.1, 0.05, 0.15], [0.05, -0.01, 0.11]
    pairs = {"knn": {"a_&_b": told, "dream_ood": told}, "a_&_b": {"dream_ood": not_told}}
    of_sets = dict.fromkeys(("letters", "faces", "mean"), pairs)
    differences = {"fpr95": of_sets, "auroc": of_sets}
    bootstrap = {"resamples": 1000, "level": 0.95, "differences": differences}
    return summarise({0: first, 1: second}) | {"bootstrap": bootstrap, "config": "toy"}


SECTIONS = {"knn": "Post-hoc", "a_&_b": "Post-hoc", "dream_ood": "Trained | 100 %"}


def test_marks_and_deviations_in_markdown(over_seeds):
    text = markdown_table(over_seeds, NAMES, SECTIONS)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == "| Method | letters | faces | mean | ID acc. ↑ |"
    assert rows[2].count("FPR95 ↓ / AUROC ↑ |") == 3
    # Deviations of two numbers: their distance over the square root of two.
    assert rows[3:] == [
        "| **Post-hoc** |  |  |  |  |",
        "| knn | 35.0 ± 7.1 / 85.0 ± 7.1 | **10.0** ± 0.0 / **97.0** ± 0.0 "
        "| 22.5 ± 3.5 / 91.0 ± 3.5 | **96.0** ± 1.4 |",
        "| a & b | 28.0 ± 0.0† / 91.0 ± 0.0† | 45.0 ± 7.1† / 75.0 ± 7.1† "
        "| 36.5 ± 3.5† / 83.0 ± 3.5† | 94.0 ± 1.4 |",
        r"| **Trained \| 100 %** |  |  |  |  |",
        "| Dream-OOD | **23.0** ± 4.2 / **95.0** ± 0.0 | **10.0** ± 0.0 / **97.0** ± 0.0 "
        "| **16.5** ± 2.1 / **96.0** ± 0.0 | 92.0 ± 2.8 |",
    ]
    for words in ("over 2 seeds", "is bold", "†: ", "1,000 resamples", "95 % interval"):
        assert words in text


def test_marks_need_a_bootstrap(over_seeds):
    del over_seeds["bootstrap"]
    assert "†" not in markdown_table(over_seeds) and "±" in markdown_table(over_seeds)
    assert "resamples" not in text_table(over_seeds)


def test_one_seed_with_a_bootstrap_has_all_columns_and_marks(over_seeds):
    del over_seeds["std"]
    over_seeds["by_seed"].popitem()
    row = next(line for line in markdown_table(over_seeds).splitlines() if "a & b" in line)
    assert row.startswith("| a & b | 28.0† / 91.0† / 50.0 | 45.0† / 75.0† / 50.0 |")
    assert row.endswith("| 94.0 | 90.0 / – |")
    assert "FPR95 ↓ / AUROC ↑ / AUPR ↑" in markdown_table(over_seeds)
    assert "std" not in csv_table(over_seeds) and "over 1" not in text_table(over_seeds)
    assert " 28.0†  91.0† 50.0 " in text_table(over_seeds)


def test_text_over_seeds(over_seeds):
    lines = table_lines(text_table(over_seeds, NAMES, sections=SECTIONS))
    assert lines[3] == "[Post-hoc]" and lines[6] == "[Trained | 100 %]"
    numbers = [re.findall(r"[\d.]+ ± [\d.]+[*†]?", line) for line in lines]
    assert numbers[5] == [
        *("28.0 ± 0.0†", "91.0 ± 0.0†", "45.0 ± 7.1†", "75.0 ± 7.1†", "36.5 ± 3.5†"),
        *("83.0 ± 3.5†", "94.0 ± 1.4"),
    ]
    assert numbers[7][:2] == ["23.0 ± 4.2*", "95.0 ± 0.0*"]
    # Decimal points of a column stand below each other.
    points = [[m.start() for m in re.finditer(r"\.", lines[i])][::2] for i in (4, 5, 7)]
    assert points[0] == points[1] == points[2] and len(points[0]) == 7
    narrow = text_table(over_seeds, NAMES, width=60, sections=SECTIONS)
    assert narrow.count("[Post-hoc]") > 1 and max(map(len, narrow.splitlines())) <= 60


def test_latex(over_seeds):
    text = latex_table(over_seeds, NAMES, SECTIONS)
    opened = re.findall(r"\\begin\{(\w+)\}", text)
    assert opened == re.findall(r"\\end\{(\w+)\}", text)[::-1] == ["table", "adjustbox", "tabular"]
    assert text.isascii() and text.count("{") == text.count("}")
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    columns = len(re.search(r"\\begin\{tabular\}\{(lr+)\}", text)[1])
    assert columns == 8
    for line in body.splitlines():
        if not line.endswith(r"\\"):
            assert line.startswith((r"\toprule", r"\midrule", r"\cmidrule"))
            continue
        spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
        assert len(re.findall(r"(?<!\\)&", line)) + 1 + spans == columns, line
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-5} \cmidrule(lr){6-7} \cmidrule(lr){8-8}" in body
    rows = body.splitlines()
    assert rows[4:6] == [r"\midrule", r"\multicolumn{8}{l}{\textit{Post-hoc}} \\"]
    assert rows[6].startswith(r"knn & 35.0 $\pm$ 7.1 & 85.0 $\pm$ 7.1 & \textbf{10.0} $\pm$ 0.0 &")
    assert rows[7].startswith(r"a \& b & 28.0 $\pm$ 0.0$^\dagger$ &")
    assert rows[8:10] == [r"\midrule", r"\multicolumn{8}{l}{\textit{Trained \textbar{} 100 \%}} \\"]
    escaped = latex_table(over_seeds, {"knn": r"\a_{b}~^#$%"})
    assert r"\textbackslash{}a\_\{b\}\textasciitilde{}\textasciicircum{}\#\$\% & 35.0" in escaped


def test_latex_of_one_seed(metrics):
    text = latex_table(metrics, NAMES)
    assert r"Energy & \textbf{10.0} & 10.1 & \textbf{15.0} &" in text
    assert r"$\pm$" not in text and "dagger" not in text and "AUPR" not in text


def test_csv_over_seeds(over_seeds):
    knn, *_ = csv.DictReader(io.StringIO(csv_table(over_seeds)))
    assert float(knn["letters.fpr95"]) == over_seeds["methods"]["knn"]["ood"]["letters"]["fpr95"]
    assert float(knn["letters.fpr95.std"]) == pytest.approx(0.1 / 2**0.5)
    assert float(knn["letters.aupr_in"]) == 0.5 and float(knn["kept.round_trips.std"]) == 0
    assert float(knn["id_accuracy.std"]) == pytest.approx(0.02 / 2**0.5)


def test_shifted(over_seeds):
    lines = shifted_table(over_seeds, NAMES).splitlines()
    assert lines[0] == "| Method | noise acc. ↑ | photo copies acc. ↑ | mean acc. ↑ | ID acc. ↑ |"
    assert lines[2:4] == [
        "| knn | **61.0** ± 1.4 | 50.0 ± 0.0 | 55.5 ± 0.7 | **96.0** ± 1.4 |",
        "| Dream-OOD | 51.0 ± 1.4 | **70.0** ± 0.0 | **60.5** ± 0.7 | 92.0 ± 2.8 |",
    ]
    assert "†" not in "".join(lines)
    _, dream = csv.DictReader(io.StringIO(shifted_table(over_seeds, form="csv")))
    assert float(dream["noise.5"]) == pytest.approx(0.41)
    assert float(dream["noise.mean.std"]) == pytest.approx(0.02 / 2**0.5)
    assert "photo_copies.mean" in dream and float(dream["mean"]) == pytest.approx(0.605)
    assert r"\textbf{61.0} $\pm$ 1.4 & 50.0" in shifted_table(over_seeds, form="latex")
    assert "61.0 ± 1.4*" in shifted_table(over_seeds, form="text")


def test_tuning(over_seeds):
    over_seeds["tuning"] = {
        "sets": ["noise", "glyph_parts"],
        "seed": 100,
        "rows": {
            "knn": {"candidates": 4, "chosen": {"k": 50, "epsilon": 0.0014}},
            "a_&_b": {"candidates": 0, "chosen": {"k": 7}},
        },
    }
    lines = tuning_table(over_seeds, NAMES).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    assert cells[0] == ["Method", "Tuned", "Chosen", "Candidates"]
    assert cells[2] == ["knn", "k, epsilon", "k = 50, epsilon = 0.0014", "4"]
    assert cells[3] == ["a & b", "k", "k = 7", "set by hand"]
    assert cells[4] == ["Dream-OOD", "defaults", "–", "–"]
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[-1] == "Chosen on the validation OOD sets noise, glyph parts, with seed 100."
