"""Dream-OOD on CIFAR-100, with the original's hyper-parameters.

    python launch/main.py --config=configs/cifar100.py
    python launch/main.py --config=configs/cifar100.py:small

Published (Du et al., NeurIPS 2023, table 2): Dream-OOD's mean FPR95 over SVHN, Places365, LSUN-C,
iSUN and Textures 40.31 %; AUROC 87.01 on SVHN and 79.94 on Places365, FPR95 1.10 on iSUN. Not
repeated here: this project has had an accelerator for minutes only (docs/scale.md).

BOOD (Liao et al., ICML 2025): mean FPR95 10.67 % and AUROC 97.42 % over the same sets, against
40.31 and 90.15 of Dream-OOD. The settings are those of `bood` in configs/base.py, as far as they
are known here; they give 25 embeddings a class. `--config.methods=energy,dream_ood,bood` has both
in one table and decodes 100,000 images for each; `--config.methods=energy,bood` with
`--config.sampling.method=bood` decodes BOOD's alone.

TFDS prepares cifar100, svhn_cropped, dtd and places365_small on first use. LSUN-C and iSUN are
folders of images, as https://github.com/deeplearning-wisc/dream-ood names them; a set that is not
there is left out with one line.

Estimate, from the FLOPs in docs/scale.md, at 40 % of an A100's peak for decoding and
20 % for training: ① 0.3 h, ② a minute, ③ 18 h (100,000 images; 8 h with
`--config.generator.scheduler=dpmsolver++ --config.decoding.steps=20`), ④ 0.3 h plain and 0.6 h
Dream-OOD; to be divided by the number of devices. Memory per device: 2.1 GB of weights and 0.7 GB
per image that is decoded at once, of which there are as many as fit (docs/scale.md).

`small` is for two CPU cores: CIFAR-10's small network and recipe (configs/cifar10.py) with the
miniature Stable Diffusion that a second round of training has taught CIFAR-100's names. It reads
CIFAR-100, CIFAR-10, Fashion-MNIST, SVHN and Tiny-ImageNet at 32×32 as prepared TFDS sets, and
photographs from `data/ood32/{textures,clothing}`. The recipe is CIFAR-10's, and no better than
Energy here; `--config.sampling.method=vocabulary` is, by far: docs/photographs.md.

Its OOD sets are those that show no ID class. Left out are CIFAR-10's flowers (CIFAR-100 has roses,
tulips, sunflowers, poppies, orchids), scenes (forest, mountain, sea, road) and faces (man, woman,
boy, girl, baby); and of its tuning sets tench (fish) and church (house, castle). Two remarks belong
to the figures:

- CIFAR-10's training images are in the world of the generator, under its ten names. No test image
  is, but `far` is the group by which rows with imagined images are fairly judged.
- Outlier Exposure trains on Tiny-ImageNet, of whose 200 classes ten are ID classes by name (lion,
  orange, ...) and some thirty more are kinds of one (school bus, boa constrictor): it learns to
  call these OOD.
"""

from ml_collections import ConfigDict

from configs import base, cifar10
from configs.cifar100_variants import VARIANTS
from configs.generator_photos import CIFAR100_WORDS

# Photographs of which none shows an ID class, to test on and to choose settings by.
FOLDERS = cifar10.folders(cifar10.SMALL_PHOTOS, "textures", "clothing")
TUNING = cifar10.folders(
    cifar10.TUNING_PHOTOS,
    *("parachute", "golf ball", "French horn", "cassette player", "chain saw", "gas pump"),
)


def get_config(size: str = "full") -> ConfigDict:
    config = base.get_config()
    config.name = "cifar100"
    config.method_options = ConfigDict(
        {
            "knn": {"k": 200},
            "dream_ood": {"weight": 2.5, "phi_hidden": 0, **base.FEVER_OOD},
            "bood": {"weight": 2.5, "phi_hidden": 0, **base.FEVER_OOD},
        }
    )
    config.data.id = "cifar100"
    config.data.ood = (
        "svhn_cropped",
        "places365_small",
        "lsun_c=data/LSUN",
        "isun=data/iSUN",
        "dtd",
    )
    config.data.auxiliary = ("imagenet_resized/32x32",)
    # The original's one-token words, by TFDS' names; any name works without them.
    config.data.class_tokens = ConfigDict(
        {
            "apple": "apples",
            "aquarium fish": "fish",
            "bottle": "bottles",
            "bowl": "bowls",
            "can": "cans",
            "chimpanzee": "chimp",
            "cup": "cups",
            "lawn mower": "mower",
            "maple tree": "maple",
            "mushroom": "mushrooms",
            "oak tree": "oak",
            "orange": "oranges",
            "orchid": "orchids",
            "palm tree": "palm",
            "pear": "pears",
            "pickup truck": "truck",
            "pine tree": "pine",
            "plate": "plates",
            "poppy": "poppies",
            "rose": "roses",
            "sunflower": "sunflowers",
            "sweet pepper": "peppers",
            "tulip": "tulips",
            "willow tree": "willow",
        }
    )
    if size == "small":
        make_small(config)
    elif size != "full":
        raise ValueError(f"configs/cifar100.py:{size}; allowed: full, small")
    return config


def make_small(config: ConfigDict) -> None:
    """Makes it fit two CPU cores, with the project's own generator of photographs."""
    cifar10.make_small(config)
    config.name = "cifar100_small"
    config.data.update(
        near=("cifar10",),
        far=(*FOLDERS, "letters", "fashion_mnist", "svhn_cropped"),
        tuning=("noise", "alphabets", *TUNING),
    )
    config.data.class_tokens = ConfigDict(CIFAR100_WORDS)  # in place of the original's
    config.generator.path = "dream_jax/miniature/weights/photos100"
    config.latent_space.epochs = 4
    config.decoding.by_name_test = 1000  # 10 of each class
    config.inliers.images = 2000
    config.ablation.variants = VARIANTS
