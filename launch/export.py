"""Takes the detector of a row of a finished run away: a folder that needs JAX and NumPy alone.

python launch/export.py --run=runs/quickstart --row=dream_ood --out=detector
python launch/score.py --detector=detector --images=photos
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
ROW = flags.DEFINE_string("row", "", "Row of the run's results; dream_ood if not set.")
OUT = flags.DEFINE_string("out", "detector", "The folder, which must not be there.")
ONNX = flags.DEFINE_bool("onnx", False, "Write detector.onnx too; needs jax2onnx.")


def run(arguments):
    from dream_jax.detector_folder.program import export  # not needed for --help

    starting.no_arguments(arguments)
    export(RUN.value, ROW.value, OUT.value, ONNX.value)


if __name__ == "__main__":
    starting.main(run)
