"""Dream-OOD on ImageNet-100, with the original's hyper-parameters.

    python launch/main.py --config=configs/imagenet100.py --config.data.folder=/data/imagenet

Published (Du et al., NeurIPS 2023, table 1), FPR95 / AUROC in %: iNaturalist 24.10 / 96.10, Places
39.87 / 93.11, SUN 36.88 (FPR95); the energy score of the plain classifier: 32.50 / 94.82, 50.80 /
90.76, 47.60. Not repeated here: this project has had an accelerator for minutes only
(docs/scale.md).

`data.folder` has `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`; of its classes the hundred below
are used. The OOD sets are flat folders of images, as MOS (Huang & Li, CVPR 2021) published them.

Estimate, as for CIFAR-100, on one A100 and to be divided by the number of devices: ① 1.3 h, ②
minutes, ③ 18 h, ④ 1.3 h plain and 0.5 h Dream-OOD, if `data.workers` read 700 images a second.
Training needs about 4 GB for 160 images: 3.9 M convolution outputs an image, kept with their
activations, in bfloat16.

A cross-entropy network is trained first, then Dream-OOD from its weights (`init_from`).
"""

from ml_collections import ConfigDict

from configs import base
from configs.imagenet100_classes import CLASSES


def get_config() -> ConfigDict:
    config = base.get_config()
    config.name = "imagenet100"
    config.init_from = "cross_entropy"

    config.data.id = "imagefolder"
    config.data.folder = "data/imagenet"
    config.data.class_names = ConfigDict(CLASSES)  # wnid → name; folders not named are left out
    config.data.ood = (
        "inaturalist=data/iNaturalist",
        "places=data/Places",
        "sun=data/SUN",
        "textures_dtd=data/dtd/images",
    )
    config.data.image_size = 224
    config.data.ood_count = 1000  # a fifth of the ID test set
    config.model.stem = "imagenet"

    config.latent_space.epochs = 100
    config.latent_space.batch_size = 160
    config.latent_space.augment = "random_resized_crop"
    config.latent_space.features_per_class = 1000

    config.sampling.boundary = 200
    config.sampling.scale = 0.03

    config.decoding.image_size = 256  # of which training cuts random parts
    config.decoding.name_suffixes = ConfigDict(
        {
            "kite": "bird",
            "quail": "bird",
            "chest": "box",
            "tick": "bite",
            "stingray": "in the water",
            "ox": "animal",
            "impala": "animal",
            "nail": "A high-quality image of the wire nail",
        }
    )

    config.classifier.epochs = 100
    config.classifier.batch_size = 160
    config.method_options = ConfigDict(
        {
            "knn": {"k": 1000},  # KNN's paper for ImageNet
            "dice": {"sparsity": 0.7},  # DICE's paper for ImageNet
            "npos": {"k": 400, "candidates": 1000, "keep": 300},  # NPOS's code for ImageNet-100
            "dream_ood": {"weight": 1.0, "phi_hidden": 512, **base.FEVER_OOD},
            "bood": {"weight": 1.0, "phi_hidden": 512, **base.FEVER_OOD},
        }
    )
    config.classifier.augment = "random_resized_crop"
    config.fine_tune.update(epochs=20, batch_size=80, outlier_batch_size=80, learning_rate=0.001)
    return config
