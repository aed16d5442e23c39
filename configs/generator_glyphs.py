"""Trains the miniature Stable Diffusion that comes with the project, on digits and glyphs.

    python launch/train_generator.py --config=configs/generator_glyphs.py

writes `runs/generator_glyphs/pipeline`, a `FlaxStableDiffusionPipeline` folder of about 7 MB. Two
CPU cores take about 40 minutes; an interrupted run continues where it stopped. Of 200 digits
sampled by name, the quickstart's plain classifier reads 99.5 % as the digit asked for; see the
model card, `dream_jax/miniature/weights/glyphs/README.md`.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "generator_glyphs"
    config.seed = 0

    config.precision = "float32"  # of the trainings; bfloat16 is faster on accelerators

    # A finished pipeline that a second, shorter training starts from, if any: its autoencoder is
    # kept as it is, its tokens keep their ids, and text encoder and UNet go on from its weights.
    config.start_from = ""

    # The training images of an ID set under its prompts, and others under theirs: the pictures of
    # all named glyphs ("glyphs"), the training images of a TFDS set with labels, or the whole world
    # of `start_from` ("earlier"). Half of each batch is of the ID set. An image draws one of its
    # prompts in each step.
    config.world = ConfigDict()
    config.world.image_size = 32
    config.world.channels = 1
    config.world.id = "digits"
    config.world.id_prompts = ("a handwritten {name}",)
    config.world.id_words = ConfigDict()  # class name → a word that captions name it by as well
    config.world.others = "glyphs"
    config.world.other_prompts = ("the symbol {name}",)
    config.world.affine_versions = 4  # of each ID image, each under a random affine map; 0: as is
    config.world.mirrored = False  # whether the mirror images are learned too

    # A classifier of the world's names, in whose features the autoencoder's images are compared;
    # trained where autoencoder.perceptual_weight is above 0.
    config.perceptual = ConfigDict()
    config.perceptual.arch = "resnet8"
    config.perceptual.width = 32
    config.perceptual.batch_size = 128
    config.perceptual.steps = 1000
    config.perceptual.optimizer = ConfigDict(
        {
            "learning_rate": 2e-3,
            "final_learning_rate": 1e-5,
            "warmup": 0.05,
            "b2": 0.999,
            "weight_decay": 5e-2,
        }
    )

    config.autoencoder = ConfigDict()
    config.autoencoder.channels = (16, 16, 48)  # of the levels: 32×32×1 becomes 8×8×4
    config.autoencoder.latent_channels = 4
    config.autoencoder.layers = 1
    config.autoencoder.norm_groups = 8
    config.autoencoder.kl_weight = 1e-5
    config.autoencoder.perceptual_weight = 0.0
    config.autoencoder.batch_size = 64
    config.autoencoder.steps = 1000
    config.autoencoder.optimizer = ConfigDict(
        {
            "learning_rate": 2e-3,
            "final_learning_rate": 2e-5,
            "warmup": 0.03,
            "b2": 0.99,
            "weight_decay": 1e-4,
        }
    )

    config.text_encoder = ConfigDict()
    config.text_encoder.width = 96
    config.text_encoder.layers = 3
    config.text_encoder.heads = 4
    config.text_encoder.positions = 16

    config.unet = ConfigDict()
    config.unet.channels = (64, 96)  # multiples of 32: Flax's UNet fixes 32 norm groups
    config.unet.attention = (False, True)  # self- and cross-attention at 4×4 only, for speed
    config.unet.layers = 1
    config.unet.heads = 4

    config.diffusion = ConfigDict()
    config.diffusion.batch_size = 96
    config.diffusion.steps = 1600
    config.diffusion.unconditional = 0.1  # share of empty prompts, for classifier-free guidance
    config.diffusion.average_decay = 0.998  # of the moving average of the weights, which is saved
    config.diffusion.optimizer = ConfigDict(
        {
            "learning_rate": 1.5e-3,
            "final_learning_rate": 1e-5,
            "warmup": 0.05,
            "b2": 0.99,
            "weight_decay": 1e-2,
        }
    )

    config.save_every = 100  # steps between checkpoints
    config.wandb = ""  # a project of Weights & Biases that gets the curves too, if one is named
    return config
