"""Dream-OOD on CIFAR-10: CIFAR-100's hyper-parameters, which the original gives for no other set.

    python launch/main.py --config=configs/cifar10.py
    python launch/main.py --config=configs/cifar10.py:small

There is no published number for this set. Time and memory of the first are CIFAR-100's.

`small` is a narrow network and few epochs, images and steps, by which the whole path runs on real
photographs on two CPU cores in under half an hour, with the miniature generator or any other
(`--config.generator.path`). It shows that the path works, and says nothing of quality: that
generator knows glyphs and no photographs.
"""

from ml_collections import ConfigDict

from configs import base

# Photographs of 32×32 pixels, each kind in a folder of its own: describable textures, natural and
# city scenes, flowers, garments.
FOLDERS = tuple(
    f"{kind}=data/ood32/{kind}" for kind in ("textures", "scenes", "flowers", "clothing")
)


def get_config(size: str = "full") -> ConfigDict:
    config = base.get_config()
    config.name = "cifar10"
    config.data.id = "cifar10"
    config.data.ood = ("svhn_cropped", "cifar100", "dtd", "lsun_c=data/LSUN", "isun=data/iSUN")
    # The published code's for CIFAR-100; KNN's default is its paper's for CIFAR-10.
    config.method_options = ConfigDict(
        {
            "dream_ood": {"weight": 2.5, "phi_hidden": 0, **base.FEVER_OOD},
            "bood": {"weight": 2.5, "phi_hidden": 0, **base.FEVER_OOD},
        }
    )
    config.data.auxiliary = ("imagenet_resized/32x32",)
    if size == "small":
        make_small(config)
    elif size != "full":
        raise ValueError(f"configs/cifar10.py:{size}; allowed: full, small")
    return config


def make_small(config: ConfigDict) -> None:
    """What two CPU cores do in an hour, with the project's own generator of photographs."""
    config.name = "cifar10_small"
    config.data.update(
        ood=(),
        near=("cifar100",),
        far=(*FOLDERS, "faces", "letters", "fashion_mnist"),
        tuning=("noise", "alphabets"),
        auxiliary=("tiny_imagenet32",),
        ood_count=2000,
        workers=0,
    )
    config.save_every = 500
    config.eval_batch_size = 500
    config.model.update(arch="resnet8", width=64, stem="stride2", precision="float32")
    config.latent_space.update(epochs=6, batch_size=128)
    config.latent_space.optimizer.warmup = 0.1
    config.sampling.update(k=200, candidates=1000, scale=0.1, rounds=6)
    config.inliers.update(k=200, rounds=2, candidates=500, images=1000)
    config.generator.update(
        path="dream_jax/miniature/weights/photos",
        revision="",
        scheduler="dpmsolver++",
        precision="float32",
    )
    config.decoding.update(
        prompts=("a photo of the {name}",),
        id_prompt="a photo of the {name}",
        steps=15,
        guidance=2.5,
        batch_size=50,
        vae_batch_size=25,
        outliers=3000,
        by_name=1000,
        by_name_test=500,
    )
    config.classifier.update(
        epochs=15,
        batch_size=128,
        outlier_batch_size=32,
        round_trip_share=0.3,
        by_name_share=0.1,
        filter_confidence=0.95,
    )
    config.classifier.optimizer.warmup = 0.1
    for row in ("dream_ood", "bood"):
        config.method_options[row].weight = 1.0
