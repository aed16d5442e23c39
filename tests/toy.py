"""A whole run at toy size: quickstart's configuration made small, 400 real digits, an untrained
generator.

    python launch/main.py --config=tests/toy.py --config.generator.path=FOLDER --workdir=WORKDIR

Loading this file registers the ID set `digits_small`. The results mean nothing; how they come
about is the same as in a real run.
"""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from configs import quickstart
from dream_jax.data.image_sets import DataOptions, IdSet, ImageSet
from dream_jax.data.registry import add, load_id

REPOSITORY = Path(__file__).resolve().parents[1]
TRAIN_PER_CLASS, TEST_PER_CLASS = 40, 20
PROMPT = "a handwritten {name}"


def digits_small(options: DataOptions) -> tuple[ImageSet, ImageSet]:
    """Returns the first digits of each class of `digits`."""
    parts = zip(load_id("digits", options), (TRAIN_PER_CLASS, TEST_PER_CLASS), strict=True)
    train, test = (_first_per_class(data, count) for data, count in parts)
    return train, test


def _first_per_class(data: ImageSet, count: int) -> ImageSet:
    classes = range(len(data.class_names))
    chosen = np.sort(np.concatenate([np.flatnonzero(data.labels == c)[:count] for c in classes]))
    images, labels = data.images.take(chosen), data.labels[chosen]
    return ImageSet("digits_small", images, labels, data.class_names)


add(IdSet("digits_small", digits_small))


def get_config() -> ConfigDict:
    config = quickstart.get_config()
    config.name = "toy"
    config.save_every = 5
    config.data.id = "digits_small"
    config.data.ood = ("letters", "faces")
    config.data.ood_count = 50
    config.model.width = 8
    config.latent_space.epochs = 1
    config.latent_space.batch_size = 16  # 25 steps
    config.latent_space.features_per_class = 40
    config.sampling.k = 10
    config.sampling.boundary = 10
    config.sampling.per_round = 10
    config.sampling.candidates = 50
    config.sampling.rounds = 2
    config.sampling.noise = "own"
    config.inliers.k = 10
    config.inliers.per_round = 10
    config.inliers.candidates = 50
    config.inliers.images = 20
    config.inliers.confirmed = False
    config.generator.path = ""  # see `build_generator`
    config.decoding.prompts = (PROMPT,)
    config.decoding.id_prompt = PROMPT
    config.decoding.steps = 2
    config.decoding.batch_size = 10
    config.decoding.vae_batch_size = 4
    config.decoding.outliers = 20
    config.decoding.by_name = 10
    config.decoding.by_name_test = 10
    config.tuning.record = ""
    config.classifier.epochs = 1
    config.classifier.batch_size = 16  # 25 steps
    config.classifier.outlier_batch_size = 8
    config.classifier.filter_confidence = 1.0
    config.classifier.collapse_below = 0.0
    return config


OTHER_WORDS = (
    *("arrow", "bell", "circle", "dot", "flag", "gate", "hook", "key", "letter", "moon"),
    *("note", "oval", "plus", "ring", "square", "triangle", "wave", "yoke"),
)


def build_generator(folder: Path) -> Path:
    """Writes a tiny Stable Diffusion folder with random weights.

    Its tokenizer knows the digits and `OTHER_WORDS`.
    """
    import jax

    from dream_jax.data.sets.digits import CLASS_NAMES
    from dream_jax.miniature import networks as miniature
    from dream_jax.miniature.tokenizer import train_tokenizer

    captions = [PROMPT.format(name=name) for name in (*CLASS_NAMES, *OTHER_WORDS)]
    tokenizer = train_tokenizer(captions, 16, folder.with_name("tokenizer"))
    vae = miniature.build_autoencoder(
        ConfigDict({"channels": (8, 8, 8), "latent_channels": 4, "layers": 1, "norm_groups": 4}),
        image_size=32,
    )
    text_encoder = miniature.build_text_encoder(
        ConfigDict({"width": 32, "layers": 1, "heads": 2, "positions": 16}), tokenizer, seed=0
    )
    unet = miniature.build_unet(
        ConfigDict({"channels": (32, 32), "attention": (False, True), "layers": 1, "heads": 2}),
        text_width=32,
        latent_size=8,
    )
    rng = np.random.default_rng(0)

    def random(path, leaf) -> np.ndarray:
        """Initial values of a parameter; the models' own initialisation takes a minute."""
        kind = path[-1].key
        if kind in ("scale", "bias"):
            return np.full(leaf.shape, kind == "scale", np.float32)
        values = rng.normal(size=leaf.shape).astype(np.float32)
        return values / np.sqrt(np.prod(leaf.shape[:-1]))

    models = {"vae": vae, "unet": unet}
    shapes = {name: jax.eval_shape(m.init_weights, jax.random.key(0)) for name, m in models.items()}
    params = jax.tree_util.tree_map_with_path(random, shapes)
    params["text_encoder"] = text_encoder.params
    miniature.save_pipeline(folder, vae, text_encoder, tokenizer, unet, params)
    return folder
