"""Sets that TFDS has prepared on this machine. Nothing here goes to the network."""

import os
from pathlib import Path

import numpy as np

from dream_jax.data.framing import frame_28, set_rng
from dream_jax.data.registry import DataOptions, ImageSet, ood_set
from dream_jax.errors import DataUnavailable


def prepared_folder(name: str, options: DataOptions) -> Path:
    """The folder of the newest version of a TFDS set that is prepared as array_record.

    Only folders are looked at: offline, TFDS itself retries its servers for minutes.

    Raises:
      DataUnavailable: if there is none; the message says where it was sought and how to make it.
    """
    root = options.tfds_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(root).expanduser()
    versions = [
        info.parent
        for info in root.glob(f"{name}/*/dataset_info.json")
        if any(info.parent.glob("*.array_record*"))
    ]
    if not versions:
        raise DataUnavailable(
            f"{name} is not prepared in {root} (data.tfds_dir); prepare it, where tensorflow is "
            f"installed, with `tfds build {name} --data_dir={root} --file_format=array_record`"
        )
    return max(versions, key=_version)


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


def _fashion_mnist_check(options: DataOptions) -> None:
    prepared_folder("fashion_mnist", options)


@ood_set("fashion_mnist", check=_fashion_mnist_check)
def fashion_mnist(options: DataOptions) -> ImageSet:
    """A fixed random part of Fashion-MNIST's test split (Xiao et al., 2017), framed as digits are.

    28x28 grey, padded with zeros to 32x32; at most 10,000 images.

    Raises:
      DataUnavailable: if TFDS has not prepared it, or cannot read what it prepared.
    """
    import tensorflow_datasets as tfds

    folder = prepared_folder("fashion_mnist", options)
    # From the folder, not by name: a name is also looked up on TFDS's servers.
    try:
        source = tfds.builder_from_directory(folder).as_data_source(split="test")
        rng = set_rng("fashion_mnist", options.seed)
        rows = rng.choice(len(source), min(options.count, len(source)), replace=False)
        images = np.stack([source[int(row)]["image"][..., 0] for row in rows])
    except Exception as error:  # TFDS and array_record raise many kinds for a damaged folder
        reason = str(error).strip().partition("\n")[0]
        raise DataUnavailable(
            f"fashion_mnist in {folder} cannot be read: {reason}; delete that folder and prepare "
            "it again with `tfds build fashion_mnist --file_format=array_record`"
        ) from error
    return ImageSet("fashion_mnist", frame_28(images, options.image_size, options.channels))
