"""A run in OpenOOD's layout, from its image lists to the table."""

from pathlib import Path

import numpy as np
from PIL import Image
from slow import takes_a_minute
from toy import digits_small

from dream_jax.data.image_sets import DataOptions
from dream_jax.data.images import Images
from dream_jax.data.registry import load_ood
from dream_jax.files import read_json


def write_list(root: Path, name: str, images: Images, folders: list[str], labels) -> Path:
    """Writes images in folders below `images_classic`, and their list as the benchmark has it."""
    lines = []
    for index, (image, folder, label) in enumerate(zip(images, folders, labels, strict=True)):
        path = root / "images_classic" / folder / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(255 * np.asarray(image)[..., 0]).astype(np.uint8)).save(path)
        lines.append(f"{folder}/{index}.png {label}\n")
    file = root / "benchmark_imglist" / "digits" / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(lines))
    return file


@takes_a_minute
def test_a_run_by_lists_has_the_numbers_of_one_by_the_sets_themselves(toy, toy_run, tmp_path):
    """`launch/main.py` with the toy's images, as files that lists name: the same to the bit."""
    root, options = tmp_path / "data", DataOptions(channels=1, count=50)
    flags = ["--config.data.id=imagelist", f"--config.data.folder={root / 'images_classic'}"]
    flags += ["--config.methods=energy"]
    for part, found in zip(("train", "test"), digits_small(options), strict=True):
        folders = [f"digits/{part}/{found.class_names[label]}" for label in found.labels]
        file = write_list(root, f"{part}_digits", found.images, folders, found.labels)
        flags.append(f"--config.data.{part}_list={file}")
    flags.append("--config.data.ood=()")
    for group, name in (("near", "letters"), ("far", "faces")):
        images = load_ood(name, options).images
        file = write_list(root, f"test_{name}", images, [name] * len(images), [-1] * len(images))
        flags.append(f"--config.data.{group}={name}={file}@{root / 'images_classic'}")
    printed = toy.finish(tmp_path / "run", flags)
    assert "letters" in printed
    own, expected = (read_json(run / "metrics.json") for run in (tmp_path / "run", toy_run.workdir))
    assert own["groups"] == {"near": ["letters"], "far": ["faces"]}
    found, known = own["methods"]["energy"], expected["methods"]["energy"]
    assert {key: found[key] for key in known} == known
    assert found["groups"]["near"] == known["ood"]["letters"]
