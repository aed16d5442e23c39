"""Dream-OOD on CIFAR-100, with the original's hyper-parameters.

    python launch/main.py --config=configs/cifar100.py

Published (Du et al., NeurIPS 2023, table 2): Dream-OOD's mean FPR95 over SVHN, Places365, LSUN-C,
iSUN and Textures 40.31 %; AUROC 87.01 on SVHN and 79.94 on Places365, FPR95 1.10 on iSUN. Not
repeated here: this project was built without accelerators (docs/scale.md).

BOOD (Liao et al., ICML 2025): mean FPR95 10.67 % and AUROC 97.42 % over the same sets, against
40.31 and 90.15 of Dream-OOD. The settings are those of `bood` in configs/base.py, as far as they
are known here; they give 25 embeddings a class. `--config.methods=energy,dream_ood,bood` has both
in one table and decodes 100,000 images for each; `--config.methods=energy,bood` with
`--config.sampling.method=bood` decodes BOOD's alone.

TFDS prepares cifar100, svhn_cropped, dtd and places365_small on first use. LSUN-C and iSUN are
folders of images, as https://github.com/deeplearning-wisc/dream-ood names them; a set that is not
there is left out with one line.

Estimate, from the FLOPs in docs/scale.md, at 30 % of an A100's peak for decoding and
20 % for training: ① 0.3 h, ② a minute, ③ 25 h (100,000 images; 10 h with
`--config.generator.scheduler=dpmsolver++ --config.decoding.steps=20`), ④ 0.3 h plain and 0.6 h
Dream-OOD; to be divided by the number of devices. Memory per device: 2.1 GB of weights and 0.7 GB
per image that is decoded at once, of which there are as many as fit (docs/scale.md).
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
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
    return config
