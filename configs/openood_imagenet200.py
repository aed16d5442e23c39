"""OpenOOD v1.5's benchmark on ImageNet-200 (Zhang et al., 2023, https://arxiv.org/abs/2306.09301).

    python launch/main.py --config=configs/openood_imagenet200.py

Published: AUROC in % over near and over far OOD sets and ID accuracy, mean ± standard deviation
over three trainings, from the benchmark's leaderboard (https://zjysteven.github.io/OpenOOD/,
results/imagenet200_ood.csv and imagenet200_fsood.csv of July 2024); then the same with the full
spectrum, where shifted ID images (ImageNet-V2, -C and -R) count as ID images.

    row               near          far           ID accuracy   full: near    far           accuracy
    MSP               83.34 ± 0.06  90.13 ± 0.09  86.37 ± 0.08  54.35 ± 0.35  66.11 ± 0.37  43.92
    Energy            82.50 ± 0.05  90.86 ± 0.21  86.37 ± 0.08  50.51 ± 0.30  64.59 ± 0.76  43.92
    KNN               81.57 ± 0.17  93.16 ± 0.22  86.37 ± 0.08  49.28 ± 0.51  71.84 ± 0.72  43.92
    ViM               78.68 ± 0.24  91.26 ± 0.19  86.37 ± 0.08  51.22 ± 0.86  73.19 ± 1.10  43.92
    VOS (Energy)      82.51 ± 0.11  91.00 ± 0.28  86.23 ± 0.19  50.14 ± 0.24  64.44 ± 0.83  43.90
    NPOS (KNN)        79.40 ± 0.39  94.49 ± 0.07       –        51.19 ± 0.55  78.99 ± 0.10      –
    Outlier Exposure  84.84 ± 0.16  89.02 ± 0.18  85.82 ± 0.21  56.58 ± 0.17  60.80 ± 0.42  44.29

It has no row of Dream-OOD. Not repeated here: this project has had an accelerator for minutes only.

Data: as for configs/openood_cifar10.py, with images_largescale; ImageNet's training images come
from https://image-net.org and belong into images_largescale/imagenet_1k/train/<wnid>. Outlier
Exposure trains on the other 800 classes, by the list train_imagenet800.

As in the benchmark: ResNet-18 with the 7×7 stem (ResNet-50 is its network for ImageNet-1K, where it
takes torchvision's), 90 epochs of SGD with Nesterov momentum, batches of 256, the learning rate
along a cosine from 0.1 to 1e-6, random resized crops and flips; in tests the shorter side becomes
256 pixels and the centre is cut out. Not as there: what configs/openood_cifar10.py lists, and that
ImageNet-C, whose pictures have 224 pixels, is framed like all others. Classes are known by the
folders of the training images. The settings of Dream-OOD's own stages are those for ImageNet-100.
"""

from ml_collections import ConfigDict

from configs import base, openood
from configs.imagenet200_classes import CLASSES

SHIFTED = {"imagenet_v2": "v2", "imagenet_c": "c", "imagenet_r": "r"}


def get_config(root: str = "data") -> ConfigDict:
    near = dict.fromkeys(("ssb_hard", "ninco"), openood.LARGE)
    far = {"inaturalist": openood.LARGE, "textures": openood.CLASSIC, "openimage_o": openood.LARGE}
    config = openood.get_config(
        "imagenet200", openood.LARGE, near, far, "imagenet800", "openimage_o", root
    )
    config.data.class_names = ConfigDict(CLASSES)
    config.data.shifted = tuple(
        f"{name}={openood.listed('imagenet200', f'test_imagenet200_{end}', openood.LARGE, root)}"
        for name, end in SHIFTED.items()
    )
    config.data.full_spectrum = True
    config.data.image_size = 224
    config.model.stem = "imagenet"
    config.latent_space.epochs = 100
    config.latent_space.batch_size = 256
    config.latent_space.augment = "random_resized_crop"
    config.latent_space.features_per_class = 1000
    config.sampling.boundary = 200
    config.sampling.scale = 0.03
    config.decoding.image_size = 256  # of which training cuts random parts
    config.classifier.epochs = 90
    config.classifier.batch_size = 256
    config.classifier.augment = "random_resized_crop"
    config.method_options = ConfigDict(
        {
            "knn": {"k": 50},
            "npos": {"k": 400, "boundary": 300, "candidates": 1000},
            "dream_ood": {"weight": 1.0, "phi_hidden": 512, **base.FEVER_OOD},
        }
    )
    return config
