"""Trains the miniature Stable Diffusion: the autoencoder, then text encoder and UNet together.

python launch/train_generator.py --config=configs/generator_glyphs.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags

from dream_jax import cli


def run(config, workdir):
    from dream_jax.miniature.training import train_generator

    print(f"generator: {train_generator(config, workdir)}")


flags.adopt_module_key_flags(cli)  # so that --help shows --config and --workdir

if __name__ == "__main__":
    cli.main(run)
