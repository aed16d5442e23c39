"""What `launch/ablate.py` compares with the recipe of `configs/cifar100.py:small`.

    python launch/ablate.py --config=configs/cifar100.py:small --config.ablation.only=filter

What was measured is in docs/photographs.md.
"""

from configs.cifar10_variants import of_texts, photos_of

# In the generator's world too, by Tiny-ImageNet's names. None is of a class of CIFAR-100, or a kind
# of one.
OTHERS = (
    *("jellyfish", "pizza", "teapot", "sunglasses", "umbrella", "broom", "obelisk", "volleyball"),
    *("sock", "pretzel", "candle", "banana", "fountain", "guacamole", "syringe"),
)
NEAR = "sampling.k=20", "sampling.scale=0.05"
MUON = "latent_space.optimizer.muon=0.5", "latent_space.optimizer.warmup=0.0"
UNSURE = "classifier.filter_confidence=0.3"
STRONG = "method_options.dream_ood.weight=2.5"
MANY = "decoding.outliers=10000"

TRAINING = (
    ("no outliers (Energy)", "ablation.row=energy"),
    ("filter: none", "classifier.filter_confidence=1.0", "classifier.collapse_below=0.0"),
    *((f"filter: {c:g}", f"classifier.filter_confidence={c}") for c in (0.5, 0.3, 0.15)),
    ("weight 0.3", "method_options.dream_ood.weight=0.3"),
    ("weight 2.5", STRONG),
    ("filter: 0.3, weight 2.5", UNSURE, STRONG),
    ("FEVER-OOD", "method_options.dream_ood.regulariser_weight=0.1"),
    ("degradations", "fine_tune.degrade=0.5"),
)
# 3,000 outliers each, or 10,000.
SAMPLING = (
    *((f"scale {s:g}", f"sampling.scale={s}") for s in (0.05, 0.2, 0.4)),
    ("scale 0.4, filter 0.3", "sampling.scale=0.4", UNSURE),
    ("k 20", "sampling.k=20"),
    ("k 20, scale 0.05", *NEAR),
    ("k 20, scale 0.05, filter 0.3", *NEAR, UNSURE),
    ("guidance 5", "decoding.guidance=5.0"),
    ("guidance 5, filter 0.3", "decoding.guidance=5.0", UNSURE),
    ("10,000 outliers", MANY),
    ("10,000 outliers, filter 0.3", MANY, UNSURE),
    ("BOOD", "sampling.method=bood"),
    ("claim: around random features", "sampling.method=random"),
    ("claim: noise on the token embedding", "sampling.method=token"),
    ("claim: words of the generator's vocabulary", "sampling.method=vocabulary"),
    ("claim: names of other classes", *photos_of(OTHERS)),
    ("claim: an unknown object", *of_texts("an unknown object")),
    # Stages ① and ② too.
    ("space of 12 epochs", "latent_space.epochs=12", *MUON),
)
VARIANTS = (*TRAINING, *SAMPLING)
