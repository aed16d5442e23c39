"""What `launch/ablate.py` compares with the recipe of `configs/cifar10.py:small`.

    python launch/ablate.py --config=configs/cifar10.py:small --config.ablation.only=claim
    python launch/ablate.py --config=configs/cifar10.py:small --config.ablation.only=images,filter

The names begin with their group, so that one group can be made after the other; the page shows all
that are made. What each group makes anew, besides a fine-tuning for each seed, is said below; the
rest is shared.
"""

PROMPT = "a photo of the {name}"
FOUR = (PROMPT, "a picture of the {name}", "an image of the {name}", "the {name}")
# In the generator's world too, by Tiny-ImageNet's names. None is of a class of CIFAR-10, or a kind
# of one: far from them, and next to them.
OTHERS = (
    *("goldfish", "jellyfish", "pizza", "lakeside", "teapot", "sunglasses", "umbrella", "broom"),
    *("mushroom", "obelisk", "volleyball", "sock", "pretzel", "candle", "banana", "fountain"),
)
NEIGHBOURS = (
    *("gazelle", "ox", "bison", "hog", "bighorn", "lion", "cougar", "koala", "brown bear"),
    *("African elephant", "Arabian camel", "tractor", "school bus", "bullet train", "freight car"),
    "American alligator",
)


def of_texts(*prompts: str, method: str = "prompts") -> tuple[str, ...]:
    """Returns the settings with which outliers are decoded from texts."""
    return f"sampling.method={method}", f"decoding.prompts={prompts!r}"


def photos_of(names: tuple[str, ...]) -> tuple[str, ...]:
    return of_texts(*(PROMPT.format(name=name) for name in names))


WITHOUT_TRIPS = "classifier.round_trip_share=0.0"
BY_NAME = ("classifier.by_name_share=0.1", "decoding.by_name=1000")

# No outliers: fine-tuning, and decoded ID images.
TRAINING = (
    ("no outliers (Energy)", "ablation.row=energy"),
    *((f"images {share:g}", f"classifier.outliers_used={share}") for share in (0.03, 0.1, 0.3)),
    *((f"weight {w:g}", f"method_options.dream_ood.weight={w}") for w in (0.0, 0.3, 2.5)),
    ("filter: none", "classifier.filter_confidence=1.0", "classifier.collapse_below=0.0"),
    *((f"filter: {c:g}", f"classifier.filter_confidence={c}") for c in (0.7, 0.99)),
    ("filter: middling confidence alone", "classifier.filter_least_confidence=0.5"),
    ("decoded ID: none", WITHOUT_TRIPS),
    ("decoded ID: by name alone", WITHOUT_TRIPS, *BY_NAME),
    ("decoded ID: by name too", *BY_NAME),
    ("zoom 2", "method_options.dream_ood.zoom=2.0"),
    ("FEVER-OOD", "method_options.dream_ood.regulariser_weight=0.1"),
    ("degradations", "fine_tune.degrade=0.5"),
)
# 3,000 outliers each.
SAMPLING = (
    *((f"scale {s:g}", f"sampling.scale={s}") for s in (0.05, 0.2, 0.4)),
    *((f"k {k}", f"sampling.k={k}") for k in (20, 50, 400)),
    ("BOOD", "sampling.method=bood"),
    ("prompt: another", "decoding.prompts=('the {name}',)"),
    (
        "prompt: four in turn",
        f"decoding.prompts={FOUR!r}",
    ),
)
CLAIMS = (
    ("claim: around the core", "sampling.method=core"),
    ("claim: around random features", "sampling.method=random"),
    ("claim: around the mean feature", "sampling.method=mean"),
    ("claim: noise on the token embedding", "sampling.method=token"),
    ("claim: between two classes", "sampling.method=interpolation"),
    ("claim: words of the generator's vocabulary", "sampling.method=vocabulary"),
    ("claim: names of other classes", *photos_of(OTHERS)),
    ("claim: names of neighbouring classes", *photos_of(NEIGHBOURS)),
    ("claim: an unknown object", *of_texts("an unknown object")),
    ("claim: not a {name}", *of_texts("not a {name}")),
    ("claim: noise on the text's encoding", *of_texts(PROMPT, method="text")),
    # Stages ① and ② too.
    ("claim: features of a plain classifier", "latent_space.loss=cross_entropy"),
)
# All decoded images: outliers and those by name.
GENERATOR = (
    *((f"guidance {g:g}", f"decoding.guidance={g}") for g in (1.0, 5.0)),
    ("resize: patches of 64 pixels", "decoding.image_size=64", "classifier.outlier_view=patches"),
    (
        "resize: patches of 64 pixels, nearest",
        *("decoding.image_size=64", "classifier.outlier_view=patches", "decoding.resize=nearest"),
    ),
)
VARIANTS = (*TRAINING, *SAMPLING, *CLAIMS, *GENERATOR)
