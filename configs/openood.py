"""What the configurations of OpenOOD's benchmarks share: where its data are, and its schedule."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from configs import base

# The rows whose published numbers the configurations quote, then this project's.
ROWS = ("msp", "energy", "knn", "vim", "vos", "npos", "outlier_exposure", "dream_ood")
CLASSIC = "images_classic"
LARGE = "images_largescale"
# More than any of the test sets has (SSB-hard: 49,000), so that all of their images count.
ALL = 50_000


def listed(benchmark: str, name: str, images: str = CLASSIC, root: str = "data") -> str:
    """Returns a list of a benchmark with the folder of its images, as `name=list@folder` has it."""
    return f"{root}/benchmark_imglist/{benchmark}/{name}.txt@{root}/{images}"


def get_config(
    benchmark: str,
    images: str,
    near: Mapping[str, str],
    far: Mapping[str, str],
    outliers: str,
    tuning: str,
    root: str,
) -> ConfigDict:
    """Returns a configuration with the sets of a benchmark and what its trainings share.

    Args:
      benchmark: the folder of its lists: "cifar10", "cifar100" or "imagenet200".
      images: the folder of its ID images.
      near, far: name of an OOD set → the folder of its images.
      outliers: the list of the real outliers that Outlier Exposure trains on.
      tuning: the list of OOD images to choose settings by.
      root: OpenOOD's folder `data`.
    """
    config = base.get_config()
    config.name = f"openood_{benchmark}"
    config.seeds = (0, 1, 2)
    config.methods = ROWS
    config.data.id = "imagelist"
    config.data.folder = f"{root}/{images}"
    lists = f"{root}/benchmark_imglist/{benchmark}"
    config.data.train_list = f"{lists}/train_{benchmark}.txt"
    config.data.test_list = f"{lists}/test_{benchmark}.txt"
    for group, sets in (("near", near), ("far", far)):
        config.data[group] = tuple(
            f"{name}={listed(benchmark, f'test_{name}', where, root)}"
            for name, where in sets.items()
        )
    config.data.auxiliary = (f"{outliers}={listed(benchmark, f'train_{outliers}', images, root)}",)
    config.data.auxiliary_count = 2_000_000  # all
    config.data.tuning = (f"val_{tuning}={listed(benchmark, f'val_{tuning}', images, root)}",)
    config.data.ood_count = ALL
    config.model.arch = "resnet18"
    config.classifier.outlier_batch_size = 256
    return config
