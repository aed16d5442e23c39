"""Scoring image files: what launch/score.py does, and what a notebook needs of it."""

from dream_jax.scoring_files.calibration import Calibration
from dream_jax.scoring_files.image_list import read_images

__all__ = ["Calibration", "read_images"]
