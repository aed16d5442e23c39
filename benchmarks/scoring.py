"""A classifier with its detector on NumPy images against PyTorch's bare forward pass.

    python -m benchmarks.scoring [--rounds 5] [--images 512]

Ours is what the evaluation runs: batches from the host, logits, energy scores back on the host.
The rival is only the forward pass of the same network, on tensors that it has already.
"""

import jax
import numpy as np
from scipy.special import logsumexp

from benchmarks.paired import compare, parser
from benchmarks.processes import InOwnProcess, check_installed
from benchmarks.resnet import NETWORKS, rival_shape
from dream_jax.detector.scores import energy_score
from dream_jax.models.resnet import build_model, init_model
from dream_jax.settings import ModelSettings
from dream_jax.training import devices

BATCH = 128


def benchmark(title, count, rounds):
    arch, width, stem, shape, classes, _ = NETWORKS[title]
    images = np.random.default_rng(0).random((count, *shape), np.float32)
    model = build_model(ModelSettings(arch, width, stem, "float32"), classes)
    variables = jax.tree.map(np.asarray, init_model(model, jax.random.key(0), shape))
    mapped = devices.MappedFunction(lambda v, b: model.apply(v, b["images"])[0], variables, BATCH)
    bare_forward = InOwnProcess(
        "benchmarks.rivals:forward",
        *(rival_shape(model, shape[-1]), variables, "PyTorch", images, BATCH),
    )

    def ours():
        return np.asarray(energy_score(mapped({"images": images})))

    rival = "PyTorch, bare forward pass"

    def agree(found):
        np.testing.assert_allclose(found["dream_jax"], logsumexp(found[rival], -1), atol=2e-3)

    compare(
        f"scoring_{arch}",
        f"Energy scores of {count} images by {title}",
        {"dream_jax": ours, rival: bare_forward},
        rounds,
        {"arch": arch, "image": shape, "images": count, "batch": BATCH},
        (count, "images"),
        agree,
    )


def main():
    flags = parser(__doc__)
    flags.add_argument("--images", type=int, default=512)
    args = flags.parse_args()
    check_installed("torch")
    devices.use_cores()
    for title in ("ResNet-34", "the quickstart's ResNet"):
        benchmark(title, args.images, args.rounds)


if __name__ == "__main__":
    main()
