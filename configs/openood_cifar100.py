"""OpenOOD v1.5's benchmark on CIFAR-100 (Zhang et al., 2023, https://arxiv.org/abs/2306.09301).

    python launch/main.py --config=configs/openood_cifar100.py

Published: AUROC in % over near and over far OOD sets and ID accuracy, mean ± standard deviation
over three trainings, from the benchmark's leaderboard (https://zjysteven.github.io/OpenOOD/,
results/cifar100.csv of July 2024).

    row                  near           far            ID accuracy
    MSP                  80.27 ± 0.11   77.76 ± 0.44   77.25 ± 0.10
    Energy               80.91 ± 0.08   79.77 ± 0.61   77.25 ± 0.10
    KNN                  80.18 ± 0.15   82.40 ± 0.17   77.25 ± 0.10
    ViM                  74.98 ± 0.13   81.70 ± 0.62   77.25 ± 0.10
    VOS (Energy)         80.93 ± 0.29   81.32 ± 0.09   77.20 ± 0.10
    NPOS (KNN)           78.35 ± 0.37   82.29 ± 1.55   not given
    Outlier Exposure     88.30 ± 0.10   81.41 ± 1.49   76.84 ± 0.42

It has no row of Dream-OOD. Not repeated here: this project has had an accelerator for minutes only.

Data, network, schedule, and what is not as in the benchmark: see configs/openood_cifar10.py. The
labels of the lists are taken to be CIFAR-100's own, which are in the order of the names.
"""

from ml_collections import ConfigDict

from configs import base, openood

NAMES = """
apple, aquarium fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy,
bridge, bus, butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock,
cloud, cockroach, couch, crab, crocodile, cup, dinosaur, dolphin, elephant, flatfish,
forest, fox, girl, hamster, house, kangaroo, keyboard, lamp, lawn mower, leopard, lion,
lizard, lobster, man, maple tree, motorcycle, mountain, mouse, mushroom, oak tree, orange,
orchid, otter, palm tree, pear, pickup truck, pine tree, plain, plate, poppy, porcupine,
possum, rabbit, raccoon, ray, road, rocket, rose, sea, seal, shark, shrew, skunk,
skyscraper, snail, snake, spider, squirrel, streetcar, sunflower, sweet pepper, table, tank,
telephone, television, tiger, tractor, train, trout, tulip, turtle, wardrobe, whale, willow
tree, wolf, woman, worm
"""


def get_config(root: str = "data") -> ConfigDict:
    near = dict.fromkeys(("cifar10", "tin"), openood.CLASSIC)
    far = dict.fromkeys(("mnist", "svhn", "texture", "places365"), openood.CLASSIC)
    config = openood.get_config("cifar100", openood.CLASSIC, near, far, "tin597", "tin", root)
    names = " ".join(NAMES.split()).split(", ")
    config.data.class_names = ConfigDict({str(label): name for label, name in enumerate(names)})
    config.classifier.epochs = 100
    config.classifier.batch_size = 128
    config.method_options = ConfigDict(
        {
            "knn": {"k": 50},
            "dream_ood": {"weight": 2.5, "phi_hidden": 0, **base.FEVER_OOD},
        }
    )
    return config
