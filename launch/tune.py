"""Chooses settings of trainings and detectors on OOD sets that no table reports.

    python launch/tune.py --config=configs/quickstart.py --config.methods=all
    python launch/tune.py --config=configs/quickstart.py --config.methods=vos,knn
    python launch/tune.py --config=configs/quickstart.py --workers=2

What is tried is `config.tuning.candidates`, measured on the sets of `config.data.tuning`; the
result is WORKDIR/tuning.json.
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

WORKERS = cli.define_workers()


def run(config, workdir):
    from dream_jax import tuning  # not needed for --help
    from dream_jax.workers import worker

    if worker.is_worker():
        tuning.serve(config, workdir)
    else:
        tuning.run(config, workdir, WORKERS.value)


flags.adopt_module_key_flags(cli)  # so that --help shows --config and --workdir

if __name__ == "__main__":
    cli.main(run, WORKERS)
