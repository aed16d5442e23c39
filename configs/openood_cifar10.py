"""OpenOOD v1.5's benchmark on CIFAR-10 (Zhang et al., 2023, https://arxiv.org/abs/2306.09301).

    python launch/main.py --config=configs/openood_cifar10.py

Published: AUROC in % over near and over far OOD sets and ID accuracy, mean ± standard deviation
over three trainings, from the benchmark's leaderboard (https://zjysteven.github.io/OpenOOD/,
results/cifar10.csv of July 2024).

    row                  near           far            ID accuracy
    MSP                  88.03 ± 0.25   90.73 ± 0.43   95.06 ± 0.30
    Energy               87.58 ± 0.46   91.21 ± 0.92   95.06 ± 0.30
    KNN                  90.64 ± 0.20   92.96 ± 0.14   95.06 ± 0.30
    ViM                  88.68 ± 0.28   93.48 ± 0.24   95.06 ± 0.30
    VOS (Energy)         87.70 ± 0.48   90.83 ± 0.92   94.31 ± 0.64
    NPOS (KNN)           89.78 ± 0.33   94.07 ± 0.49   not given
    Outlier Exposure     94.82 ± 0.21   96.00 ± 0.13   94.63 ± 0.26

It has no row of Dream-OOD. Not repeated here: this project has had an accelerator for minutes only.

Data: `python scripts/download/download.py` of https://github.com/Jingkang50/OpenOOD (its
download.sh has the flags) makes a folder `data` with benchmark_imglist and images_classic. Run from
the folder that holds it, or give another: `--config=configs/openood_cifar10.py:/data/openood`.
Outlier Exposure needs the set tin597 as well. A set that is not there is left out with one line.

As in the benchmark: ResNet-18 with the 3×3 stem, 100 epochs of SGD with Nesterov momentum, batches
of 128, the learning rate along a cosine from 0.1 to 1e-6, crops after padding by 4 and flips; the
lists, whole; VOS and NPOS with its settings, which are their defaults here. Not as there:

- Images go to [-1, 1], not to a mean of 0 and a deviation of 1 over the training set. The first
  convolution and its normalisation absorb the difference in training; ODIN's ε counts in [-1, 1].
- Pictures are resized whole to 32 pixels with antialiasing; those that are not square, of Textures
  and Places365, are cut there.
- k of KNN and the dimension of ViM are fixed at its first choice and this project's default; there
  they are chosen on `val_tin`, which `launch/tune.py` can do with `tuning.candidates`.
- The settings of Dream-OOD's own stages are those of configs/base.py.
"""

from ml_collections import ConfigDict

from configs import base, openood

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def get_config(root: str = "data") -> ConfigDict:
    near = dict.fromkeys(("cifar100", "tin"), openood.CLASSIC)
    far = dict.fromkeys(("mnist", "svhn", "texture", "places365"), openood.CLASSIC)
    config = openood.get_config("cifar10", openood.CLASSIC, near, far, "tin597", "tin", root)
    config.data.class_names = ConfigDict({str(label): name for label, name in enumerate(NAMES)})
    config.classifier.epochs = 100
    config.classifier.batch_size = 128
    config.method_options = ConfigDict(
        {
            "knn": {"k": 50},
            "dream_ood": {"weight": 2.5, "phi_hidden": 0, **base.FEVER_OOD},
        }
    )
    return config
