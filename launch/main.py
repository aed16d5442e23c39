"""Dream-OOD from images and class names to measured OOD detection.

python launch/main.py --config=configs/quickstart.py
python launch/main.py --config=configs/quickstart.py --config.sampling.k=50 --workdir=runs/k50
python launch/main.py --config=configs/quickstart.py --stages=evaluate,report --overwrite
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags

from dream_jax import cli

STAGES = flags.DEFINE_list(
    "stages", None, "Stages to run, of learn,sample,decode,train,evaluate,report; all if not set."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Redo the chosen stages.")


def run(config, workdir):
    from dream_jax import pipeline

    stages = pipeline.STAGES if STAGES.value is None else STAGES.value
    pipeline.run(config, workdir, stages, OVERWRITE.value)


flags.adopt_module_key_flags(cli)  # so that --help shows --config and --workdir

if __name__ == "__main__":
    cli.main(run)
