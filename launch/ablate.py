"""Compares variants of a recipe on OOD sets that no table reports: what each part of it does.

    python launch/ablate.py --config=configs/quickstart.py
    python launch/ablate.py --config=configs/quickstart.py --config.ablation.seeds=7
    python launch/ablate.py --config=configs/quickstart.py --workers=2

The variants are `config.ablation.variants`; the result is WORKDIR/ablation/index.html.
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
    from dream_jax.ablation import program  # not needed for --help
    from dream_jax.workers import worker

    if worker.is_worker():
        program.serve(config, workdir)
    else:
        program.run(config, workdir, WORKERS.value)


flags.adopt_module_key_flags(cli)  # so that --help shows --config and --workdir

if __name__ == "__main__":
    cli.main(run, WORKERS)
