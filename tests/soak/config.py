"""The run that the soak test kills and damages: the toy's, with every kind of stage."""

from ml_collections import ConfigDict

from tests import toy


def get_config() -> ConfigDict:
    config = toy.get_config()
    config.name = "soak"
    config.methods = ("energy", "knn", "vos", "dream_ood", "dream_id", "outlier_exposure")
    config.method_options.vos.update(queue=20, candidates=50)
    config.data.auxiliary_count = 100
    return config
