"""Which batches are too large to be held, whatever the machine."""

from dream_jax.errors import UserError
from dream_jax.rules import MOST_WHOLE
from dream_jax.settings import Settings, value_of

MOST_BYTES = 2**36  # of the inputs of a batch over all devices, in float32: 64 GiB
# Batch sizes, with the field that gives the images' height and width.
BATCHES = {
    "eval_batch_size": "data.image_size",
    "latent_space.batch_size": "data.image_size",
    "classifier.batch_size": "data.image_size",
    "classifier.outlier_batch_size": "data.image_size",
    "fine_tune.batch_size": "data.image_size",
    "fine_tune.outlier_batch_size": "data.image_size",
    "decoding.batch_size": "decoding.image_size",
    "decoding.vae_batch_size": "decoding.image_size",
}
LEAST_WIDTH = 256  # of the features that candidates are drawn around


def check_sizes(settings: Settings) -> None:
    """Checks that no batch of images, and no round of the samplers, takes more than `MOST_BYTES`.

    Raises:
      UserError: names the setting `config.<field>`.
    """
    for field, side in BATCHES.items():
        size = value_of(settings, side)
        most = MOST_BYTES // (4 * size * size * settings.data.channels)
        if (value := value_of(settings, field)) > most:
            raise UserError(
                f"config.{field} is {value}; with config.{side} = {size} it must be at most {most}"
            )
    for section in ("sampling", "inliers"):
        drawn = settings.sampling.boundary if section == "sampling" else MOST_WHOLE
        drawn = min(drawn, settings.latent_space.features_per_class)
        per_round = min(drawn, value_of(settings, f"{section}.per_round"))
        most = MOST_BYTES // (4 * LEAST_WIDTH * per_round)
        if (value := value_of(settings, f"{section}.candidates")) > most:
            raise UserError(
                f"config.{section}.candidates is {value}; with {per_round} features drawn in "
                f"a round it must be at most {most}"
            )
