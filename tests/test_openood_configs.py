"""The configurations of OpenOOD's benchmarks: valid, with the benchmark's sets, on any machine."""

import importlib

import pytest

from dream_jax.checks import check
from dream_jax.data.groups import ood_names
from dream_jax.rules import place_parts

SETS = {
    "cifar10": ("cifar100", "tin", "mnist", "svhn", "texture", "places365"),
    "cifar100": ("cifar10", "tin", "mnist", "svhn", "texture", "places365"),
    "imagenet200": ("ssb_hard", "ninco", "inaturalist", "textures", "openimage_o"),
}
# Epochs and batch size of the trainings whose numbers are published, and the network's stem.
TRAINING = {
    "cifar10": (100, 128, "small"),
    "cifar100": (100, 128, "small"),
    "imagenet200": (90, 256, "imagenet"),
}


@pytest.mark.parametrize("benchmark", SETS)
def test_configuration_is_valid_and_has_the_sets(benchmark, tmp_path):
    module = importlib.import_module(f"configs.openood_{benchmark}")
    settings = check(module.get_config(str(tmp_path)))
    data = settings.data
    names = dict(name.split("=") for name in ood_names(data))
    assert tuple(names) == SETS[benchmark] and len(data.near) == 2
    for name, place in names.items():
        file, folder = place_parts(place)
        assert file == f"{tmp_path}/benchmark_imglist/{benchmark}/test_{name}.txt"
        assert folder.startswith(f"{tmp_path}/images_")
    assert data.test_list == f"{tmp_path}/benchmark_imglist/{benchmark}/test_{benchmark}.txt"
    assert len(set(data.class_names.values())) == {"cifar10": 10, "cifar100": 100}.get(
        benchmark, 200
    )
    classifier = settings.classifier
    found = (classifier.epochs, classifier.batch_size, settings.model.stem)
    assert found == TRAINING[benchmark] and settings.model.arch == "resnet18"
    assert len(settings.seeds) == 3
    assert (benchmark == "imagenet200") == data.full_spectrum
