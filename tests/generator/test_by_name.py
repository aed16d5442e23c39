"""Pictures that are sampled by the names of classes."""

import numpy as np

from dream_jax.generator.interface import Sampling
from dream_jax.miniature.quality import by_name


def test_pictures_are_asked_for_in_turn(toy):
    sampling = Sampling("ddim", steps=2, guidance=1.0, batch_size=3, vae_batch_size=3)
    made = by_name(toy, "a picture of the {name}", ("seven", "dog"), 5, sampling)
    assert list(made.labels) == [0, 1, 0, 1, 0]
    assert made.images.shape[0] == 5 and np.ptp(made.images[0] - made.images[2]) > 0
