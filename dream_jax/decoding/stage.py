"""③ Decodes embeddings to images, names to images, and takes ID images through the autoencoder.

Every kind of image is a stage of its own, so that a setting outdates the images that depend on it
and no others, and so that more kinds can be decoded in a finished run.
"""

from functools import partial

from dream_jax.generator.interface import Generator, Sampling
from dream_jax.results import Row, decode_stage, images_of_kind
from dream_jax.run import ID_FIELDS, Work
from dream_jax.settings import Settings
from dream_jax.stage import Stage

GENERATOR = ("generator.path", "generator.revision", "generator.precision")
DECODING = (
    *ID_FIELDS,
    *GENERATOR,
    *("seed", "generator.scheduler", "decoding.name_suffixes", "decoding.image_size"),
    *("decoding.steps", "decoding.guidance", "decoding.batch_size", "decoding.vae_batch_size"),
)
OF_KIND = {
    "outliers": ("data.class_tokens", "decoding.prompts", "decoding.outliers"),
    "inliers": ("data.class_tokens", "decoding.id_prompt", "inliers.images"),
    "by_name": ("decoding.id_prompt", "decoding.by_name"),
    "by_name_test": ("decoding.id_prompt", "decoding.by_name_test"),
}
SAMPLED = {"outliers": "sample", "inliers": "sample inliers"}


def stages(settings: Settings, rows: tuple[Row, ...]) -> list[Stage]:
    """Returns a stage for each kind of image that the rows need."""
    extras = {row.extra for row in rows}
    kinds = ["outliers", *(["by_name"] if settings.decoding.by_name else []), "by_name_test"]
    kinds += ["inliers"] if "inliers" in extras else []
    parts = ["test", *(["train"] if settings.classifier.round_trip_share else [])]
    return [*map(_decoding, kinds), *map(_round_trips, parts)]


def _decoding(kind: str) -> Stage:
    return Stage(
        decode_stage(kind),
        "decode",
        f"images/{kind}",
        (*DECODING, *OF_KIND[kind]),
        partial(decode, kind=kind),
        (SAMPLED[kind],) if kind in SAMPLED else (),
        check=check,
    )


def _round_trips(part: str) -> Stage:
    reads = (*ID_FIELDS, *GENERATOR, "decoding.vae_batch_size")
    made = partial(round_trips, part=part)
    return Stage(
        f"round trips {part}", "decode", f"images/round_trips_{part}", reads, made, check=check
    )


def check(work: Work) -> None:
    """Loads the generator, which shows whether it can be read, and checks names of classes."""
    if "decoding.name_suffixes" in work.stage.reads:
        work.check_classes("decoding.name_suffixes", work.settings.decoding.name_suffixes)
    _generator(work)


def _generator(work: Work) -> Generator:
    from dream_jax.generator.load import load_generator  # diffusers: slow to import

    own = work.settings.generator
    arguments = (own.path, own.revision, own.precision)
    return work.run.cache.get(("generator", *arguments), lambda: load_generator(*arguments))


def decode(work: Work, kind: str) -> None:
    """Decodes the images of a kind that are not in the folder yet."""
    from dream_jax.decoding.pictures import Order, decode_pictures, plan_pictures

    settings, decoding, names = work.settings, work.settings.decoding, work.train.class_names
    words, embeddings = names, None
    if kind in SAMPLED:
        words = tuple(settings.data.class_tokens.get(name, name) for name in names)
        embeddings = work.run.embeddings(kind)
    count = images_of_kind(settings, kind)
    order = Order(kind, count, names, words, settings.seed, embeddings)
    sampling = Sampling(
        settings.generator.scheduler,
        decoding.steps,
        decoding.guidance,
        decoding.batch_size,
        decoding.vae_batch_size,
    )
    shape = (decoding.image_size, decoding.image_size, settings.data.channels)
    pictures = plan_pictures(order, decoding)
    decode_pictures(order, pictures, _generator(work), sampling, shape, work.folder)


def round_trips(work: Work, part: str) -> None:
    """Writes the images of a split after the autoencoder, (n, H, W, C) uint8, as `images.npy`."""
    from dream_jax.decoding.round_trips import write_round_trips

    generator = _generator(work)
    generator.release()  # of what decoding keeps on the devices
    images = (work.train if part == "train" else work.test).images
    batch_size = work.settings.decoding.vae_batch_size
    write_round_trips(work.folder / "images.npy", generator, images, batch_size, part)
