"""① Learns the text-conditioned latent space and stores the features of the training images."""

import numpy as np

from dream_jax.data.labels import check_names
from dream_jax.errors import UserError
from dream_jax.files import write_npz
from dream_jax.generator.cached import vocabulary_of
from dream_jax.results import Row
from dream_jax.run import CURVES, ID_FIELDS, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage
from dream_jax.training import hosts

READS = (
    *ID_FIELDS,
    *("seed", "model", "latent_space", "data.class_tokens"),
    *("generator.path", "generator.revision", "save_every", "eval_batch_size", "data.workers"),
    *CURVES,
)


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns the one stage "learn", which leaves `features.npz`."""
    return [Stage("learn", "learn", "latent_space", READS, make, check=check)]


def check(work: Work) -> None:
    """Checks the classes, and that the generator is here and can tell them apart."""
    from dream_jax.latent_space.anchors import check_words

    names = work.train.class_names
    if not names:
        raise UserError(
            f"data.id {work.settings.data.id!r} gives no class names; at least one is needed"
        )
    check_names(names)
    work.check_classes("data.class_tokens", work.settings.data.class_tokens)
    check_words(vocabulary_of(work), names, _words(work))


def _words(work: Work) -> list[str]:
    """Returns for each class its name, or the word given for it."""
    return [work.settings.data.class_tokens.get(name, name) for name in work.train.class_names]


def make(work: Work) -> None:
    from dream_jax.latent_space.anchors import compute_anchors
    from dream_jax.latent_space.features import extract_features, select_per_class
    from dream_jax.latent_space.learn import learn_latent_space

    settings, train = work.settings, work.train
    vocabulary = vocabulary_of(work)
    ids = [vocabulary.name_ids(word) for word in _words(work)]
    anchors = compute_anchors(vocabulary.table, ids)
    variables = learn_latent_space(settings, train, work.test, anchors, work.folder)
    count = settings.latent_space.features_per_class
    chosen = select_per_class(train.labels, count, len(anchors), settings.seed)
    images = train.images.take(chosen)
    features = extract_features(
        settings.model, variables, images, anchors.shape[1], settings.eval_batch_size
    )
    if hosts.is_main():
        write_npz(
            work.folder / "features.npz",
            features=features,
            labels=train.labels[chosen],
            rows=chosen,
            anchors=np.asarray(anchors),
        )
