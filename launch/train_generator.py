"""Trains the miniature Stable Diffusion: the autoencoder, then text encoder and UNet together.

python launch/train_generator.py --config=configs/generator_glyphs.py
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


def run(config, workdir):
    from dream_jax import generator_training  # not needed for --help

    print(f"generator: {generator_training.run(config, workdir)}")


flags.adopt_module_key_flags(cli)  # so that --help shows --config and --workdir

if __name__ == "__main__":
    cli.main(run)
