"""Takes the detector of a row of a finished run away, or its scores: as folders for other tools.

python launch/export.py --run=runs/quickstart --row=dream_ood --out=detector
python launch/score.py --detector=detector --images=photos
python launch/export.py --run=runs/quickstart --scores --out=scores
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
ROW = flags.DEFINE_string(
    "row", "", "Row of the run's results; dream_ood if not set, with --scores all."
)
OUT = flags.DEFINE_string("out", "detector", "The folder, which must not be there.")
ONNX = flags.DEFINE_bool("onnx", False, "Write detector.onnx too; needs jax2onnx.")
SCORES = flags.DEFINE_bool("scores", False, "Write scores and measures as OpenOOD's files instead.")
HIGHER_IS_OOD = flags.DEFINE_bool(
    "higher_is_ood", False, "With --scores: higher means more OOD, as in pytorch-ood."
)


def run(arguments):
    from dream_jax import openood_files  # not needed for --help
    from dream_jax.detector_folder import program
    from dream_jax.errors import UserError

    starting.no_arguments(arguments)
    if ONNX.value and SCORES.value:
        raise UserError("--onnx is set with --scores, which writes no detector; leave one out")
    if HIGHER_IS_OOD.value and not SCORES.value:
        raise UserError("--higher_is_ood is set without --scores, which it is for")
    if SCORES.value:
        written = openood_files.export(RUN.value, ROW.value, OUT.value, HIGHER_IS_OOD.value)
        print(f"written: {written}")
    else:
        program.export(RUN.value, ROW.value, OUT.value, ONNX.value)


if __name__ == "__main__":
    starting.main(run)
