"""Chooses settings of methods and detectors on OOD sets that no table reports.

python launch/tune.py --config=configs/quickstart.py --config.methods=all
python launch/tune.py --config=configs/quickstart.py --config.methods=vos,knn

What is tried is `config.tuning.candidates`, by the sets of `config.data.tuning`; the result is
WORKDIR/tuning.json.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags

from dream_jax import cli


def run(config, workdir):
    from dream_jax import tuning

    tuning.run(config, workdir)


flags.adopt_module_key_flags(cli)  # so that --help shows --config and --workdir

if __name__ == "__main__":
    cli.main(run)
