"""Trains the miniature Stable Diffusion for photographs that comes with the project.

    TFDS_DATA_DIR=... python launch/train_generator.py --config=configs/generator_photos.py
    TFDS_DATA_DIR=... python launch/train_generator.py --config=configs/generator_photos.py:cpu

Its world: CIFAR-10's training images and those of Tiny-ImageNet at 32×32 (`tiny_imagenet32`,
prepared as a TFDS set with the 200 classes' names), so that the words near an ID class mean
something else. Writes `runs/generator_photos/pipeline`, a `FlaxStableDiffusionPipeline` folder of
22 MB.

The first is what the package's weights were trained by, in 8 minutes on an NVIDIA H200, of which 3
were compilation; see the model card, `dream_jax/miniature/weights/photos/README.md`. `cpu` is
smaller, for some hours on two cores; no weights of it exist.
"""

from ml_collections import ConfigDict

from configs import generator_glyphs

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
    elif machine != "accelerator":
        raise ValueError(f"configs/generator_photos.py:{machine}; allowed: accelerator, cpu")
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
