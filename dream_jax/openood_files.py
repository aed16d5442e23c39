"""The scores and measures of a finished run as OpenOOD's files, which other tools read.

For each row and seed, as OpenOOD's evaluator writes them:

    <row>/s<seed>/scores/<set>.npz   pred, conf and label of every image; label -1 of OOD images
    <row>/s<seed>/ood.csv            FPR@95, AUROC, AUPR_IN, AUPR_OUT and ACC of each set and mean
    <row>/ood.csv                    the same as mean ± standard deviation over seeds

and `fsood.csv` where the full spectrum was measured. Measures are by OpenOOD's definitions: OOD is
the positive class of FPR@95, areas are by trapezoids, deviations have no correction for the number
of seeds. Nothing is a pickle.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dream_jax.data.groups import ood_names
from dream_jax.data.registry import set_title
from dream_jax.errors import UserError
from dream_jax.evaluation.full_spectrum import NAME as FULL
from dream_jax.files import read_json, read_npz, write_npz, write_whole
from dream_jax.loaded_run import LoadedRun, load_run
from dream_jax.results import Row, place

# OpenOOD's columns, and the keys of metrics.json that they have.
COLUMNS = {
    "FPR@95": "fpr95_out",
    "AUROC": "auroc",
    "AUPR_IN": "aupr_in_trapezoid",
    "AUPR_OUT": "aupr_out_trapezoid",
}
MEANS = {"near": "nearood", "far": "farood", "ood": "ood"}
# ID sets that are called something else by everyone.
UNNAMED = ("imagelist", "imagefolder")
Table = dict[str, list[float]]  # set or mean → its numbers, in %


def export(run_path: str, key: str, out: str, higher_is_ood: bool = False) -> Path:
    """Writes the files of one row, or of all.

    Args:
      run_path: the folder of a finished run.
      key: of the row; "" for all.
      out: the folder, which must not be there.
      higher_is_ood: whether `conf` is turned, so that a higher one means more OOD, as in
        pytorch-ood; without, a higher one means more ID, as in OpenOOD.

    Raises:
      UserError: bad input, in one line before any work.
    """
    folder = Path(out).expanduser()
    if not run_path:
        raise UserError("--run is not given; it must be the folder of a finished run")
    if not out or folder.exists():
        raise UserError(f"--out is {out!r}; it must be a new folder")
    run = load_run(run_path)
    rows = [run.row(key)] if key else [run.row(name) for name in run.rows]
    metrics = read_json(run.folder / "metrics.json", "finish the run first")
    tables = {row.key: _tables(metrics, row.key, run.folder) for row in rows}
    scores = {(row.key, seed): _images(run, row, seed) for row in rows for seed in run.seeds}
    for (name, seed), sets in scores.items():
        own = folder / name.replace("/", "-") / f"s{seed}"
        for title, arrays in sets.items():
            conf = -arrays["conf"] if higher_is_ood else arrays["conf"]
            write_npz(own / "scores" / f"{title}.npz", **arrays | {"conf": conf})
        for file, by_seed in tables[name].items():
            _write(own / file, _csv("dataset", by_seed[str(seed)], "{:.2f}".format))
    for name, files in tables.items():
        for file, by_seed in files.items():
            _write(folder / name.replace("/", "-") / file, _over_seeds(list(by_seed.values())))
    return folder


def _images(run: LoadedRun, row: Row, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Returns {title: {"pred", "conf", "label"}} of the ID test images and of all test sets."""
    folder = run.folder / "evaluation" / place(row.training, seed, run.settings.seed)
    ood = map(set_title, ood_names(run.settings.data))
    scores = run.scores(row.key, seed)
    if not (folder / "predictions.npz").is_file():
        raise _too_old(run.folder)
    predictions, labels = read_npz(folder / "predictions.npz"), read_npz(folder / "labels.npz")
    given = run.settings.data.id
    named = {"id" if given in UNNAMED else given: "id"}
    named |= {title: title for title in ood if title in scores}
    found = {
        title: _arrays(predictions[name], scores[name], labels.get(name))
        for title, name in named.items()
    }
    if (full := folder / FULL).is_dir():
        own = read_npz(full / f"scores_{row.detector}.npz")
        read_as, truth = read_npz(full / "predictions.npz"), read_npz(full / "labels.npz")
        found |= {name: _arrays(read_as[name], own[name], truth[name]) for name in own}
    files = {re.sub(r"[^\w.+-]", "_", title): arrays for title, arrays in found.items()}
    if len(files) < len(found):
        raise UserError(f"{run.folder}: two of its sets {sorted(found)} would have one file")
    return files


def _arrays(
    predictions: np.ndarray, scores: np.ndarray, labels: np.ndarray | None
) -> dict[str, np.ndarray]:
    label = np.full(len(scores), -1) if labels is None else labels
    return {"pred": predictions.astype(np.int64), "conf": scores, "label": label.astype(np.int64)}


def _tables(metrics: Mapping[str, Any], key: str, run: Path) -> dict[str, dict[str, Table]]:
    """Returns file → seed → its table, of a row."""
    entries = {seed: rows[key] for seed, rows in metrics["by_seed"].items()}
    groups = metrics.get("groups", {})
    found = {"ood.csv": {seed: _table(entry, groups, run) for seed, entry in entries.items()}}
    if all(FULL in entry for entry in entries.values()):
        found["fsood.csv"] = {
            seed: _table(entry[FULL], groups, run) for seed, entry in entries.items()
        }
    return found


def _table(entry: Mapping[str, Any], groups: Mapping[str, Sequence[str]], run: Path) -> Table:
    """Returns the numbers of each set and, after each group of sets, of its mean."""
    lines: dict[str, Mapping[str, float]] = {}
    for group, titles in groups.items():
        lines |= {title: entry["ood"][title] for title in titles}
        lines[MEANS[group]] = entry["groups"][group]
    if not groups:
        lines = {MEANS["ood"] if t == "mean" else t: own for t, own in entry["ood"].items()}
    if not all(measure in own for own in lines.values() for measure in COLUMNS.values()):
        raise _too_old(run)
    accuracy = entry["id_accuracy"]
    return {
        title: [100 * number for number in (*map(own.__getitem__, COLUMNS.values()), accuracy)]
        for title, own in lines.items()
    }


def _too_old(run: Path) -> UserError:
    return UserError(
        f"{run}: was evaluated by a version that did not keep what the files hold; repeat the "
        f"command that made it, which evaluates it again"
    )


def _over_seeds(tables: Sequence[Table]) -> str:
    """Returns the means and deviations of several seeds as CSV, as OpenOOD's eval_ood.py does."""
    numbers = {title: np.asarray([table[title] for table in tables]) for title in tables[0]}
    texts = {
        title: [f"{m:.2f} ± {s:.2f}" for m, s in zip(own.mean(0), own.std(0), strict=True)]
        for title, own in numbers.items()
    }
    return _csv("", texts, str)


def _csv(corner: str, lines: Mapping[str, Iterable[Any]], text: Any) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([corner, *COLUMNS, "ACC"])
    writer.writerows([title, *map(text, numbers)] for title, numbers in lines.items())
    return out.getvalue()


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
