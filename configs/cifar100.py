"""Dream-OOD on CIFAR-100, with the original's hyper-parameters.

    python launch/main.py --config=configs/cifar100.py

Published (Du et al., NeurIPS 2023, table 2): Dream-OOD's mean FPR95 over SVHN, Places365, LSUN-C,
iSUN and Textures 40.31 %; AUROC 87.01 on SVHN and 79.94 on Places365, FPR95 1.10 on iSUN. Not
repeated here: this project was built without accelerators (README, "Paper scale").

TFDS prepares cifar100, svhn_cropped, dtd and places365_small on first use. LSUN-C and iSUN are
folders of images, as https://github.com/deeplearning-wisc/dream-ood names them; a set that is not
there is left out with one line.

Estimate, from the FLOPs in the README ("Paper scale"), at 30 % of an A100's peak for decoding and
20 % for training: ① 0.3 h, ② a minute, ③ 25 h (100,000 images; 10 h with
`--config.generator.scheduler=dpmsolver++ --config.decoding.steps=20`), ④ 0.3 h plain and 0.6 h
Dream-OOD; to be divided by the number of devices. Memory per device: 2.1 GB of weights and 0.7 GB
per image of its share of `decoding.batch_size`.

Numbers are the original's unless a comment gives its value.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "cifar100"
    config.seed = 0
    config.seeds = ()  # of the classifiers, e.g. (0, 1, 2), if not only config.seed
    # Rows of the table: post-hoc detectors and training methods by name, or "all".
    config.methods = ("energy", "dream_ood")
    config.init_from = ""  # Dream-OOD trains from scratch
    # Settings of rows in place of their defaults, which dream_jax/detector/ gives.
    config.method_options = ConfigDict(
        {"knn": {"k": 200}, "dream_ood": {"weight": 2.5, "phi_hidden": 0}}
    )
    config.save_every = 2000  # training steps between checkpoints
    config.eval_batch_size = 1000

    config.data = ConfigDict()
    config.data.id = "cifar100"
    config.data.ood = (
        "svhn_cropped",
        "places365_small",
        "lsun_c=data/LSUN",
        "isun=data/iSUN",
        "dtd",
    )
    # ID classes with another look, to measure accuracy on: corruptions, TFDS sets or name=folder
    config.data.shifted = ()
    config.data.tuning = ()  # to choose settings by, never reported
    config.data.auxiliary = ("imagenet_resized/32x32",)  # real outliers, for Outlier Exposure
    config.data.auxiliary_count = 50_000  # images of each such set, where it has as many
    config.data.image_size = 32
    config.data.channels = 3
    config.data.ood_count = 2000  # a fifth of the ID test set
    config.data.tfds_dir = ""  # prepared TFDS sets; TFDS_DATA_DIR or ~/tensorflow_datasets if empty
    config.data.folder = ""  # of data.id = "imagefolder": train/<class>/*, test/<class>/*
    config.data.class_names = ConfigDict()  # folder or label → class name; selects, if not empty
    config.data.unreadable = "stop"  # at an image that cannot be read, or "skip" it
    config.data.hold_bytes = 2**30  # larger sets, as float32, are read from files as needed
    config.data.workers = 8  # processes that do so for training; 0: threads
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

    config.model = ConfigDict()
    config.model.arch = "resnet34"
    config.model.width = 64
    config.model.stem = "small"
    # The original computes in float32; bfloat16 halves the memory of activations, and TPU and GPU
    # multiply it several times as fast.
    config.model.precision = "bfloat16"

    # ① the text-conditioned latent space
    config.latent_space = ConfigDict()
    config.latent_space.epochs = 200
    config.latent_space.batch_size = 256
    config.latent_space.temperature = 0.1
    config.latent_space.augment = "crop_flip"
    config.latent_space.features_per_class = 500
    config.latent_space.optimizer = sgd()

    # ② outlier embeddings
    config.sampling = ConfigDict()
    config.sampling.k = 300
    config.sampling.boundary = 50
    config.sampling.per_round = 50
    config.sampling.candidates = 1500
    config.sampling.scale = 0.07
    config.sampling.keep = 2
    config.sampling.rounds = 100
    # "published" repeats the choice of the published code (README, "Where it departs").
    config.sampling.selection = "paper"

    # inlier embeddings and their images, for Dream-ID
    config.inliers = ConfigDict()
    config.inliers.k = 300
    config.inliers.per_round = 100
    config.inliers.candidates = 1500
    config.inliers.scale = 0.01
    config.inliers.keep = 1
    config.inliers.rounds = 100
    config.inliers.images = 100_000
    config.inliers.confirmed = False  # True: only images that the plain classifier reads as asked

    # ③ decoding
    config.generator = ConfigDict()
    config.generator.path = "CompVis/stable-diffusion-v1-4"
    config.generator.revision = "133a221b8aa7292a167afc5127cb63fb5005638b"
    config.generator.scheduler = "plms"
    config.generator.precision = "bfloat16"  # the original: mixed float16 on GPU
    config.decoding = ConfigDict()
    config.decoding.prompts = ("A high-quality image of the {name}",)
    config.decoding.id_prompt = "A high-quality image of the {name}"
    config.decoding.name_suffixes = ConfigDict()  # class name → what is said after it in prompts
    config.decoding.image_size = 32  # of the files, to which the VAE's pictures are resized
    config.decoding.steps = 50
    config.decoding.guidance = 7.5
    config.decoding.batch_size = 32  # images at once over all devices
    config.decoding.vae_batch_size = 8
    config.decoding.outliers = 100_000
    config.decoding.by_name = 0
    config.decoding.by_name_test = 1000

    # ④ classifiers
    config.classifier = ConfigDict()
    config.classifier.epochs = 200
    config.classifier.batch_size = 256
    config.classifier.outlier_batch_size = 256
    config.classifier.augment = "crop_flip"
    config.classifier.degrade = 0.0
    config.classifier.round_trip_share = 0.0
    config.classifier.by_name_share = 0.0
    config.classifier.filter_confidence = 1.0  # all outliers; lower it if the training collapses
    config.classifier.collapse_below = 0.1
    config.classifier.collapse_after = 0.3
    config.classifier.optimizer = sgd()

    # what launch/tune.py tries for each row, and what it wrote
    config.tuning = ConfigDict()
    config.tuning.seed = 100
    config.tuning.candidates = ConfigDict()
    config.tuning.record = ""

    # in place of the classifier's settings, where init_from is set
    config.fine_tune = ConfigDict(
        {"epochs": 20, "batch_size": 256, "outlier_batch_size": 256, "learning_rate": 0.001}
    )
    return config


def sgd() -> ConfigDict:
    """SGD with Nesterov momentum and a cosine per step."""
    return ConfigDict(
        {
            "learning_rate": 0.1,
            "final_learning_rate": 1e-6,
            "warmup": 0.0,
            "momentum": 0.9,
            "weight_decay": 5e-4,
        }
    )
