"""Your own images: a folder of classes in, a detector out.

    python launch/main.py --config=configs/imagefolder.py \
        --config.data.folder=/data/parts --config.data.ood="('broken=/data/broken',)"

`data.folder` holds `train/<class>/*` and `test/<class>/*`, as png, jpg, webp, bmp, tif or gif. The
folders' names are the classes' names, or `data.class_names` gives them. Names that Stable
Diffusion's text encoder knows make better outliers than numbers: the outliers are imagined from
them. `data.ood` names folders of images that are of no class, to measure the detector by:
`name=folder`, any number.

The 5,000 outliers take about half an hour on an A100 by the estimate of docs/scale.md; the rest
depends on the images. Sizes are between CIFAR-100's and ImageNet-100's: a few hundred to some tens
of thousands of images, one accelerator with 16 GB. Smaller classes need a smaller `sampling.k` and
`sampling.boundary`. There is no published number for your images.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.name = "imagefolder"
    config.data.id = "imagefolder"
    config.data.folder = "data/images"
    config.data.ood = ("textures", "faces")  # these come with scikit-image
    config.data.image_size = 128
    config.data.ood_count = 1000
    config.model.arch = "resnet18"
    config.model.stem = "imagenet"
    config.latent_space.epochs = 100
    config.latent_space.batch_size = 64
    config.latent_space.augment = "random_resized_crop"
    config.latent_space.features_per_class = 500
    config.sampling.k = 50
    config.sampling.boundary = 30
    config.sampling.per_round = 30
    config.sampling.rounds = 20
    config.inliers.k = 50
    config.inliers.rounds = 10
    config.inliers.images = 5000
    config.generator.scheduler = (
        "dpmsolver++"  # 20 steps look like 50 of PLMS (docs/performance.md)
    )
    config.decoding.image_size = 144  # of which training cuts random parts
    config.decoding.steps = 20
    config.decoding.outliers = 5000
    config.decoding.by_name_test = 200
    config.classifier.epochs = 100
    config.classifier.batch_size = 64
    config.classifier.outlier_batch_size = 64
    config.method_options = ConfigDict(
        {
            "dream_ood": {"weight": 1.0, **base.FEVER_OOD},
            "bood": {"weight": 1.0, **base.FEVER_OOD},
        }
    )
    config.classifier.augment = "random_resized_crop"
    config.classifier.filter_confidence = 0.95  # outliers surer of a class are left out
    return config
