"""Every setting once, with what it does. Other configurations change what differs.

The values are those of the published code for CIFAR-100 unless a comment says otherwise.
"""

from ml_collections import ConfigDict

# FEVER-OOD's settings of a training (dream_jax/detector/last_layer.py), switched off. Here they
# stand for `config.method_options`: a flag sets what a configuration names.
FEVER_OOD = {
    "regulariser": "smallest_singular_value",  # of the last layer, or "condition_number"
    "regulariser_weight": 0.0,  # FEVER-OOD's example has 0.1
    "feature_dimension": 0,  # features before the last layer; 0 as many as the network has
}


def get_config() -> ConfigDict:
    """Returns a configuration that lacks only its name and its data."""
    config = ConfigDict()
    config.name = "base"  # of the run; its folder is runs/<name> unless --workdir is given
    config.seed = 0  # of everything that is drawn at random, but for the choice of test images
    config.seeds = ()  # of the classifiers, e.g. (0, 1, 2), if not only `seed`
    # Rows of the results: a training ("dream_ood", scored by the detector of its paper), a detector
    # ("knn", fitted to the plain classifier), a pair ("outlier_exposure/knn"); or "all" of them but
    # some trainings, or "every" one.
    config.methods = ("energy", "dream_ood")
    # Settings by the name of a training, a detector or a pair, in place of the defaults that
    # dream_jax/detector/ gives: {"knn": {"k": 10}, "npos/knn": {"k": 50}, "vos": FEVER_OOD}.
    config.method_options = ConfigDict()
    # What Dream-OOD starts its training from: "" fresh weights, "cross_entropy" the plain
    # classifier of this run, or a folder classifier/<method>/checkpoints of another run.
    config.init_from = ""
    config.save_every = 2000  # training steps between checkpoints
    # Epochs of a training between measurements of ID accuracy on the test images, for its curves;
    # 0 for none. Nothing but the curves depends on it.
    config.test_every = 1
    config.wandb = ""  # a project of Weights & Biases that gets the curves too, if one is named
    # Images at once over all devices, where nothing is trained; 0 as many as fit into their memory.
    config.eval_batch_size = 0
    config.data = data()
    config.model = model()
    config.latent_space = latent_space()
    config.sampling = sampling()
    config.bood = bood()
    config.inliers = inliers()
    config.generator = generator()
    config.decoding = decoding()
    config.classifier = classifier()
    config.fine_tune = fine_tune()
    config.zero_shot = zero_shot()
    config.tuning = tuning()
    config.ablation = ablation()
    config.report = report()
    return config


def data() -> ConfigDict:
    data = ConfigDict()
    # The ID set: a name of dream_jax/data/sets/, a TFDS set, "imagefolder" or "imagelist".
    data.id = ""
    # OOD sets to test on: such names, name=folder, or name=list.txt@folder: an image list with a
    # line "path label" for each image, and the folder that its paths are relative to.
    data.ood = ()
    # More of them, in groups whose means are reported too: semantically near to the ID classes
    # (CIFAR-100 for CIFAR-10), and far from them.
    data.near = ()
    data.far = ()
    data.shifted = ()  # the ID classes with another look: corruptions, TFDS sets, name=...
    # Whether all is measured a second time with the shifted sets as ID images, as a detector should
    # take them: OpenOOD's full spectrum.
    data.full_spectrum = False
    # OOD sets by which launch/tune.py chooses settings, and launch/ablate.py compares variants;
    # never reported in the table of results.
    data.tuning = ()
    data.auxiliary = ()  # real outliers to train on, for Outlier Exposure
    data.auxiliary_count = 50_000  # images of each such set, or all if it has fewer
    data.image_size = 32  # height and width in pixels
    data.channels = 3  # 3 RGB, 1 grey
    data.ood_count = 2000  # images of each OOD set: a fifth of the ID test set
    data.tfds_dir = ""  # folder of prepared TFDS sets; "" TFDS_DATA_DIR or ~/tensorflow_datasets
    data.folder = ""  # of "imagefolder": holds train/<class>/* and test/<class>/*
    # Of "imagelist": lists of images in `folder`. Classes are numbers, called like the folders of
    # their images, or as `class_names` says, {"0": "airplane"}.
    data.train_list = ""
    data.test_list = ""
    data.class_names = ConfigDict()  # folder or label → class name; if not empty, selects classes
    data.class_tokens = ConfigDict()  # class name → the word whose token stands for it
    data.unreadable = "stop"  # what an image that cannot be read does, or "skip" it
    data.hold_bytes = 2**30  # image sets up to this size are held in memory
    data.workers = 8  # processes that read the images of larger sets for training; 0 threads
    return data


def model() -> ConfigDict:
    """The network of the feature extractor and of the classifiers."""
    model = ConfigDict()
    model.arch = "resnet34"  # resnet8, resnet18, resnet34, resnet50; "airbench" for short trainings
    model.width = 64  # channels of the first stage
    # 3×3; "stride2" 3×3 with stride 2; "imagenet" 7×7 and max-pooling; "whitened" patches of 2×2.
    model.stem = "small"
    # "auto" is bfloat16 where the device computes it natively (TPU, GPU of compute capability 8.0
    # or more), which halves the memory of activations and is several times as fast there, and else
    # float32, in which the published code computes. A run keeps the one that it began with.
    model.precision = "auto"
    return model


def network_optimizer() -> ConfigDict:
    """SGD with Nesterov momentum and a learning rate that follows a cosine, step by step.

    Muon in its place for convolutions, if asked for: short trainings learn more by it.
    """
    optimizer = ConfigDict()
    optimizer.learning_rate = 0.1
    optimizer.final_learning_rate = 1e-6
    optimizer.warmup = 0.0  # share of the steps in which the learning rate rises linearly
    optimizer.momentum = 0.9
    optimizer.weight_decay = 5e-4
    # Muon's rate for the kernels of convolutions in multiples of `learning_rate`; 0 leaves them to
    # SGD. They have no weight decay then.
    optimizer.muon = 0.0
    return optimizer


def latent_space() -> ConfigDict:
    """① The text-conditioned latent space."""
    latent_space = ConfigDict()
    latent_space.epochs = 200
    latent_space.batch_size = 256
    latent_space.temperature = 0.1  # t, which divides the cosines
    # "alignment" of features with the anchors T(y), or the "cross_entropy" of a linear layer on
    # them: features of a plain classifier, which the generator cannot read. For comparison.
    latent_space.loss = "alignment"
    latent_space.augment = "crop_flip"  # or none, affine, shift_flip, random_resized_crop
    latent_space.features_per_class = 500  # features of each class that are stored, at most
    latent_space.optimizer = network_optimizer()
    return latent_space


def sampling() -> ConfigDict:
    """② Outlier embeddings."""
    sampling = ConfigDict()
    # "knn" is Dream-OOD's: noise around the features that are farthest from the others. With "bood"
    # features walk across the boundary of their class, by the settings of `bood`; of the ones below
    # only `k` is then used, where d_k is reported. The others are what the paper's way is compared
    # with (docs/ablation.md). "core": noise around the features that are nearest to the others.
    # Without any choice by distance, noise of `scale` around random features ("random"), their mean
    # ("mean") or the class's token embedding ("token"); "interpolation" between the tokens of two
    # classes. "vocabulary": the tokens of the words that are least similar to any class, of those
    # that the generator knows. "prompts": no embedding, decoding.prompts as they are; "text": these
    # with noise of `scale` on the text encoder's output.
    sampling.method = "knn"
    sampling.k = 300  # the neighbour whose distance counts
    sampling.boundary = 50  # m, features of a class with the largest k-NN distance
    sampling.per_round = 50  # boundary features drawn in a round
    sampling.candidates = 1500  # L, candidates around each boundary feature in a round
    sampling.scale = 0.07  # s, standard deviation of the noise around a unit feature
    sampling.keep = 2  # candidates kept for each boundary feature and round
    sampling.rounds = 100
    # "own": each boundary feature has noise vectors of its own, as in the paper. "shared": those of
    # a round share L of them, as in the published code; the embeddings then collapse to a few.
    sampling.noise = "own"
    # "published" repeats what the published code chooses, with "shared" noise.
    sampling.selection = "paper"
    sampling.words = 16  # that "vocabulary" takes
    return sampling


def bood() -> ConfigDict:
    """Outlier embeddings of BOOD: for its row, and for all rows where `sampling.method` says so."""
    bood = ConfigDict()
    bood.step = 0.015  # α, by which a step changes each component of a unit feature
    bood.share = 0.05  # r, share of a class's features that become embeddings: the nearest to leave
    bood.beyond = 2  # c, steps from the first point behind the boundary to the embedding
    bood.most_steps = 100  # K, steps after which a feature that is still in its class is left out
    return bood


def inliers() -> ConfigDict:
    """Inlier embeddings and images, for Dream-ID."""
    inliers = ConfigDict()
    inliers.k = 300
    inliers.per_round = 100
    inliers.candidates = 1500
    inliers.scale = 0.01
    inliers.keep = 1
    inliers.rounds = 100
    inliers.images = 100_000  # decoded images, spread evenly over the classes
    inliers.confirmed = False  # True: train on those alone that the plain classifier reads as asked
    return inliers


def generator() -> ConfigDict:
    """③ The text-to-image pipeline."""
    generator = ConfigDict()
    generator.path = "CompVis/stable-diffusion-v1-4"  # a folder, or owner/name on the hub
    generator.revision = "133a221b8aa7292a167afc5127cb63fb5005638b"  # on the hub: commit or tag
    # "plms", "ddim" or "dpmsolver++"; "lcm" for a latent consistency model, "euler" for Turbo.
    generator.scheduler = "plms"
    # "auto" is bfloat16 as above, float16 (the published code) on older GPUs, and else float32.
    generator.precision = "auto"
    return generator


def decoding() -> ConfigDict:
    """③ What is decoded."""
    decoding = ConfigDict()
    # Of outliers, taken in turn. Where `sampling.method` is "prompts" or "text", {name} may be
    # missing: ("a photo of a goldfish", "an unknown object").
    decoding.prompts = ("A high-quality image of the {name}",)
    decoding.id_prompt = "A high-quality image of the {name}"  # of images of the plain classes
    decoding.name_suffixes = ConfigDict()  # class name → what prompts say after it
    decoding.image_size = 32  # of the files; may be larger than data.image_size
    # How the generator's pictures are brought to it: "antialiased"; "bilinear" without antialiasing
    # (the published code); "nearest"; or "mixed", one of the three for each picture, by its own
    # random key. Files that are read at another size are resized antialiased, and so are round
    # trips.
    decoding.resize = "antialiased"
    decoding.steps = 50  # denoising steps
    decoding.guidance = 7.5  # scale of classifier-free guidance; 1 leaves out the empty prompt
    # DeepCache: what comes from below a skip connection of the UNet is computed at every n-th step
    # and reused in between. 1 computes all at each step, as the published code does. The branch is
    # the skip connection: from 0, the cheapest, to the UNet's last, the nearest to the original.
    decoding.cache_interval = 1
    decoding.cache_branch = 0
    # Images at once over all devices, and of these the images that the VAE decodes at once, which
    # needs more memory for each; 0 as many as fit.
    decoding.batch_size = 0
    decoding.vae_batch_size = 0
    decoding.outliers = 100_000  # images, spread evenly over the classes
    decoding.by_name = 0  # images of plain class names, to train on as ID images
    decoding.by_name_test = 1000  # the same, to test that a detector takes them for ID images
    return decoding


def classifier() -> ConfigDict:
    """④ Classifiers."""
    classifier = ConfigDict()
    classifier.epochs = 200
    classifier.batch_size = 256
    classifier.outlier_batch_size = 256  # outliers or inliers shown in a step, with the ID images
    classifier.augment = "crop_flip"
    classifier.degrade = 0.0  # share of images blurred, dimmed and made noisy, ID or not
    classifier.round_trip_share = 0.0  # share of ID images shown after the autoencoder and back
    classifier.by_name_share = 0.0  # share of ID images that were decoded from class names
    # How outliers are shown: "whole", or "patches": of data.image_size, cut at random places from
    # files of decoding.image_size after padding by 4 pixels (the published code for CIFAR-100).
    # A patch takes the place of the cut that `augment` makes.
    classifier.outlier_view = "whole"
    # Outliers to which the plain classifier gives a class with at least this confidence are left
    # out; 1 keeps all. Lower it if the training collapses.
    classifier.filter_confidence = 1.0
    # So are those to which it gives every class with less than this one: outliers of middling
    # confidence are left. 0 keeps all.
    classifier.filter_least_confidence = 0.0
    # Share of the decoded outliers that are taken, before the filter: the first of each class, so
    # that fewer are shown without decoding any anew.
    classifier.outliers_used = 1.0
    classifier.collapse_below = 0.1  # ID accuracy that stops a training ...
    classifier.collapse_after = 0.3  # ... after this share of its steps
    classifier.optimizer = network_optimizer()
    return classifier


def fine_tune() -> ConfigDict:
    """What takes the place of the classifier's settings in trainings that go on from a trained one.

    Those are `energy_fine_tuning`, the rows with imagined outliers if `init_from` is set, and
    `rows`.
    """
    fine_tune = ConfigDict()
    # More trainings that go on from the plain classifier, where the time for each from fresh
    # weights is missing: ("godin", "vos", "outlier_exposure").
    fine_tune.rows = ()
    fine_tune.degrade = 0.0  # in place of classifier.degrade
    fine_tune.epochs = 20
    fine_tune.batch_size = 256
    fine_tune.outlier_batch_size = 256
    fine_tune.learning_rate = 0.001
    fine_tune.muon = 0.0  # in place of classifier.optimizer.muon
    return fine_tune


def zero_shot() -> ConfigDict:
    """The rows "mcm", "gl_mcm" and "neg_label", of photographs by CLIP; nothing is downloaded."""
    zero_shot = ConfigDict()
    zero_shot.path = "openai/clip-vit-base-patch16"  # a folder, or in the hub's cache
    zero_shot.revision = ""  # in the hub's cache: a commit, tag or branch; "" main
    zero_shot.prompt = "a photo of a {name}"
    # Of which neg_label takes negative labels: a file of words, one a line; "" the words that are
    # one token of CLIP's tokenizer.
    zero_shot.words = ""
    return zero_shot


def tuning() -> ConfigDict:
    """What launch/tune.py tries."""
    tuning = ConfigDict()
    tuning.seed = 100  # of the classifiers that are tried
    tuning.candidates = ConfigDict()  # row → setting → values; all combinations are tried
    tuning.record = ""  # the tuning.json that settings were chosen by, for the report
    return tuning


def ablation() -> ConfigDict:
    """What launch/ablate.py compares with the configuration as it is."""
    ablation = ConfigDict()
    ablation.row = "dream_ood"  # of the results; the only one that is measured
    ablation.seeds = ()  # of the classifiers, e.g. (100, 101, 102); () those of the run
    # ("name", "field=value", ...) each, as flags give settings; see docs/ablation.md. A variant may
    # measure another row: ("without outliers", "ablation.row=energy").
    ablation.variants = ()
    # Names of variants, or how they begin: only these are made, and the table shows them and all
    # that were made before. () makes all.
    ablation.only = ()
    return ablation


def report() -> ConfigDict:
    """What the report shows."""
    report = ConfigDict()
    report.figure_class = ""  # whose outlier embeddings are drawn (figure 4); "" one in the middle
    report.map = "tsne"  # how features are drawn in two dimensions; "umap" needs umap-learn
    return report
