"""Scores your images by a row of a finished run, or by a detector that was taken from one.

    python launch/score.py --run=runs/quickstart --images=photos --out=scores.csv
    python launch/score.py --run=runs/quickstart --row=knn --images=photos --page=scores.html
    python launch/score.py --detector=detector --images=a.png --images=b.png --out=scores.parquet

The table has a row for each image: the predicted class with its probability, the score, whether the
image is ID at the threshold that keeps a share of the run's ID test images, and its p-value.
"""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from the imports below

from absl import flags

try:
    from dream_jax import starting
except ModuleNotFoundError:  # in a clone that is not installed
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from dream_jax import starting

RUN = flags.DEFINE_string("run", "", "Folder of a finished run.")
DETECTOR = flags.DEFINE_string("detector", "", "Folder that launch/export.py wrote, for --run.")
IMAGES = flags.DEFINE_multi_string("images", [], "Folder of images, or an image; several times.")
ROW = flags.DEFINE_string("row", "", "Row of the run's results; dream_ood if not set.")
KEEP = flags.DEFINE_float("keep", 0.95, "Share of the ID test images that counts as ID.")
OUT = flags.DEFINE_string("out", "scores.csv", "The table, .csv or .parquet.")
PAGE = flags.DEFINE_string("page", "", "An HTML page with pictures and histograms.")
UNREADABLE = flags.DEFINE_enum(
    "unreadable", None, ("stop", "skip"), "Of images; as the run does if not set."
)


def run(arguments):
    from dream_jax.scoring_files.program import Request, score_files  # not needed for --help

    images = (*IMAGES.value, *arguments)
    choices = (KEEP.value, OUT.value, PAGE.value, UNREADABLE.value or "")
    score_files(Request(images, RUN.value, DETECTOR.value, ROW.value, *choices))


if __name__ == "__main__":
    starting.main(run)
