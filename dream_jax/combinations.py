"""Settings that do not go together, each allowed by itself."""

from collections.abc import Collection, Iterable

from dream_jax.detector.last_layer import DIMENSION
from dream_jax.detector.methods import PLAIN, TRAININGS, fine_tuning
from dream_jax.errors import UserError
from dream_jax.results import FROM_TEXT, Row
from dream_jax.rules import is_template
from dream_jax.settings import Settings


def check_combinations(settings: Settings, rows: Iterable[Row]) -> None:
    """Checks the filter's band, the size of patches, the network to start from, how outliers come.

    Args:
      rows: of the results.

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
    trainings = {row.training for row in rows}
    _check_start(settings, trainings)
    _check_prompts(settings, trainings)
    _check_loss(settings, trainings)


def _check_prompts(settings: Settings, trainings: Collection[str]) -> None:
    """Checks that an embedding has a place in the prompts that it is decoded with."""
    fixed = [prompt for prompt in settings.decoding.prompts if not is_template(prompt)]
    if fixed and (settings.sampling.method not in FROM_TEXT or "bood" in trainings):
        method = f"sampling.method = {settings.sampling.method!r}"
        asked = "the row 'bood'" if "bood" in trainings else method
        raise UserError(
            f"config.decoding.prompts is {settings.decoding.prompts!r}; {fixed[0]!r} must have "
            f"{{name}} in it, where the embeddings of {asked} stand; only with sampling.method = "
            f"'prompts' or 'text' are texts shown as they are"
        )


def _check_loss(settings: Settings, trainings: Collection[str]) -> None:
    """Checks that features are aligned with the anchors where BOOD's classifier reads them so."""
    asked = "bood" in trainings
    if settings.latent_space.loss != "alignment" and (asked or settings.sampling.method == "bood"):
        what = "the row 'bood'" if asked else "sampling.method = 'bood'"
        raise UserError(
            f"config.latent_space.loss is {settings.latent_space.loss!r}; with {what} it must be "
            f"'alignment', because BOOD classifies features by their cosines to the anchors"
        )


def _check_start(settings: Settings, trainings: Collection[str]) -> None:
    """Checks that a training that starts from the plain classifier has a network of its shape."""
    start, tuned = _dimension(settings, PLAIN), settings.fine_tune.rows
    if unknown := [name for name in tuned if name not in TRAININGS or name == PLAIN]:
        others = ", ".join(name for name in TRAININGS if name != PLAIN)
        raise UserError(
            f"config.fine_tune.rows is {tuned!r}; {unknown[0]!r} is no training that can start "
            f"from the plain classifier; allowed: {others}"
        )
    for name, training in fine_tuning(tuned).items():
        always = training.fine_tunes and name in trainings
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
