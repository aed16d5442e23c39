"""Settings of step ④ that do not go together, each allowed by itself."""

from dream_jax.detector.last_layer import DIMENSION
from dream_jax.detector.methods import PLAIN, TRAININGS
from dream_jax.errors import UserError
from dream_jax.settings import Settings


def check_combinations(settings: Settings) -> None:
    """Checks the band of the filter, the size of patches, and the network to start from.

    Raises:
      UserError: names the setting `config.<field>`.
    """
    own = settings.classifier
    if own.filter_least_confidence >= own.filter_confidence:
        raise UserError(
            f"config.classifier.filter_least_confidence is {own.filter_least_confidence}; it must "
            f"be below classifier.filter_confidence = {own.filter_confidence}"
        )
    size, files = settings.data.image_size, settings.decoding.image_size
    if own.outlier_view == "patches" and files < size:
        raise UserError(
            f"config.decoding.image_size is {files}; with classifier.outlier_view = 'patches' it "
            f"must be at least data.image_size = {size}, the size of a patch"
        )
    _check_start(settings)


def _check_start(settings: Settings) -> None:
    """Checks that a training that starts from the plain classifier has a network of its shape."""
    start = _dimension(settings, PLAIN)
    for name, training in TRAININGS.items():
        asked = name in {row.partition("/")[0] for row in settings.methods}
        always = training.fine_tunes and asked
        if not (always or (settings.init_from and training.extra == "outliers")):
            continue
        if (value := _dimension(settings, name)) != start:
            why = "" if always else f"with init_from = {settings.init_from!r} "
            raise UserError(
                f"config.method_options.{name}.{DIMENSION} is {value}; {why}it must be that of the "
                f"plain classifier, method_options.{PLAIN}.{DIMENSION} = {start}"
            )


def _dimension(settings: Settings, training: str) -> int:
    return settings.method_options.get(training, {}).get(DIMENSION, 0)
