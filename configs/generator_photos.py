"""Trains the miniature Stable Diffusion for photographs that comes with the project.

    export TFDS_DATA_DIR=...
    python launch/train_generator.py --config=configs/generator_photos.py
    python launch/train_generator.py --config=configs/generator_photos.py:cpu
    python launch/train_generator.py --config=configs/generator_photos.py:cifar100
    python launch/train_generator.py --config=configs/generator_photos.py:cifar100_cpu

Its world: CIFAR-10's training images and those of Tiny-ImageNet at 32×32 (`tiny_imagenet32`,
prepared as a TFDS set with the 200 classes' names), so that the words near an ID class mean
something else. Writes `runs/generator_photos/pipeline`, a `FlaxStableDiffusionPipeline` folder of
22 MB.

The first is what the package's weights were trained by, in 8 minutes on an NVIDIA H200, of which 3
were compilation; see the model card, `dream_jax/miniature/weights/photos/README.md`. `cpu` is
smaller, for some hours on two cores; no weights of it exist.

`cifar100` and `cifar100_cpu` are a second, shorter round that starts from the package's weights and
learns CIFAR-100's names, for `configs/cifar100.py:small`: docs/generator.md. Their world is
CIFAR-100's training images and, as the other half of each batch, all of the first round's. The
package's `photos100` is the work of `cifar100`, on an H200 too; of `cifar100_cpu` no weights exist.
"""

from ml_collections import ConfigDict

from configs import generator_glyphs

FIRST_ROUND = "dream_jax/miniature/weights/photos"
# CIFAR-100's names of two words: captions name these classes by one word as well, which is the
# token that `configs/cifar100.py:small` aligns features with. None is another set's name.
CIFAR100_WORDS = {
    "aquarium fish": "aquarium",
    "lawn mower": "mower",
    "maple tree": "maple",
    "oak tree": "oak",
    "palm tree": "palm",
    "pickup truck": "pickup",
    "pine tree": "pine",
    "sweet pepper": "pepper",
    "willow tree": "willow",
}

PROMPTS = (
    "a photo of the {name}",
    "a picture of the {name}",
    "an image of the {name}",
    "the {name}",
)


def get_config(machine: str = "accelerator") -> ConfigDict:
    config = generator_glyphs.get_config()
    config.name = "generator_photos"
    config.precision = "bfloat16"
    config.world.update(
        channels=3,
        id="cifar10",
        id_prompts=PROMPTS,
        others="tiny_imagenet32",
        other_prompts=PROMPTS,
        affine_versions=0,
        mirrored=True,
    )
    config.perceptual.update(arch="resnet18", width=32, batch_size=512, steps=2500)
    config.autoencoder.update(
        channels=(48, 96, 96),  # 32×32×3 becomes 8×8×10
        latent_channels=10,
        layers=1,
        kl_weight=3e-6,
        perceptual_weight=0.5,
        batch_size=256,
        steps=5500,
    )
    config.text_encoder.update(width=128, layers=3, heads=4, positions=16)
    config.unet.update(channels=(96, 128), attention=(True, True), layers=2, heads=4)
    config.diffusion.update(batch_size=512, steps=9000, average_decay=0.9995)
    config.diffusion.optimizer.update(learning_rate=1e-3, warmup=0.03)
    config.save_every = 5000
    if machine == "cpu":
        make_small(config)
    elif machine in ("cifar100", "cifar100_cpu"):
        go_on(config)
        if machine == "cifar100_cpu":
            make_hour(config)
    elif machine != "accelerator":
        raise ValueError(
            f"configs/generator_photos.py:{machine}; allowed: accelerator, cpu, cifar100, "
            f"cifar100_cpu"
        )
    return config


def make_small(config: ConfigDict) -> None:
    """What two CPU cores train in a few hours."""
    config.name = "generator_photos_cpu"
    config.precision = "float32"
    config.perceptual.update(arch="resnet8", width=32, batch_size=128, steps=3000)
    config.autoencoder.update(channels=(32, 64, 64), batch_size=64, steps=3000)
    config.unet.update(channels=(64, 128))
    config.diffusion.update(batch_size=128, steps=15_000)
    config.save_every = 200


def go_on(config: ConfigDict) -> None:
    """The second round, with CIFAR-100's names: the first one's networks and autoencoder."""
    config.name = "generator_photos100"
    config.start_from = FIRST_ROUND
    config.world.update(id="cifar100", id_words=CIFAR100_WORDS, others="earlier")
    config.diffusion.update(steps=5000)
    config.diffusion.optimizer.update(learning_rate=5e-4)
    config.save_every = 2500


def make_hour(config: ConfigDict) -> None:
    """What two CPU cores train of it in about an hour."""
    config.name = "generator_photos100_cpu"
    config.precision = "float32"
    config.diffusion.update(batch_size=128, steps=3000, average_decay=0.999)
    config.save_every = 100
