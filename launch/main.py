"""Dream-OOD from images and class names to measured OOD detection.

python launch/main.py --config=configs/quickstart.py
python launch/main.py --config=configs/quickstart.py --config.sampling.k=50 --workdir=runs/k50
python launch/main.py --config=configs/quickstart.py --stages=evaluate,report --overwrite
python launch/main.py --config=configs/quickstart.py --config.report.figure_class=three
python launch/main.py --config=configs/quickstart.py --config.seeds=0,1,2 --workers=2
"""

import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from the imports below

from absl import flags

try:
    from dream_jax import cli
except ModuleNotFoundError:  # in a clone that is not installed
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from dream_jax import cli

STAGES = flags.DEFINE_list(
    "stages", None, "Some of learn,sample,decode,train,evaluate,report; all if not set."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Make the chosen stages again.")
WORKERS = cli.define_workers()


def run(config, workdir):
    from dream_jax import next_steps, pipeline  # not needed for --help
    from dream_jax.workers import worker

    if worker.is_worker():
        pipeline.serve(config, workdir)
        return
    steps = tuple(pipeline.STEPS) if STAGES.value is None else STAGES.value
    pipeline.run(config, workdir, steps, OVERWRITE.value, WORKERS.value)
    if lines := next_steps.next_steps(workdir):
        print(lines)


flags.adopt_module_key_flags(cli)  # so that --help shows --config and --workdir

if __name__ == "__main__":
    cli.main(run, WORKERS)
