"""Sets by their name in TensorFlow Datasets (TFDS), as array_record: read from the folder in which
they were prepared, and prepared on first use where that is possible.
"""

import functools
import importlib.util
import os
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dream_jax.data.framing import set_rng
from dream_jax.data.image_sets import DataOptions, ImageSet
from dream_jax.data.images import Images, load_images
from dream_jax.data.labels import select_classes
from dream_jax.data.sources import Records
from dream_jax.errors import DataUnavailable, UserError
from dream_jax.fingerprint import of_files

NAME = re.compile(r"[a-z][a-z0-9_]*(/[A-Za-z0-9_.+-]+)?")  # set, or set/configuration
# The server on which TFDS keeps its sets; asked once whether it answers.
HOST = "https://storage.googleapis.com/tfds-data"
PATIENCE = 8.0  # seconds


def is_tfds_name(name: str) -> bool:
    """Returns whether `name` has the form of a TFDS name; does not check that the set exists."""
    return NAME.fullmatch(name) is not None


def known(name: str, options: DataOptions) -> bool:
    """Returns whether TFDS has a set of that name, or its folder holds a prepared one."""
    if not is_tfds_name(name):
        return False
    if _prepared_versions(name, options):
        return True
    import tensorflow_datasets as tfds

    dataset, _, config = name.partition("/")
    if dataset not in tfds.list_builders(with_community_datasets=False):
        return False
    return not config or config in tfds.builder_cls(dataset).builder_configs


def configurations(dataset: str, options: DataOptions) -> list[str]:
    """Returns the configurations of a set that TFDS knows or that are prepared, sorted."""
    import tensorflow_datasets as tfds

    prepared = data_root(options).glob(f"{dataset}/*/*/dataset_info.json")
    names = {info.parents[1].name for info in prepared}
    if dataset in tfds.list_builders(with_community_datasets=False):
        names |= set(tfds.builder_cls(dataset).builder_configs)
    return sorted(names)


def data_root(options: DataOptions) -> Path:
    """Returns the folder in which TFDS prepares its sets."""
    root = options.tfds_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(root).expanduser()


def prepared_folder(name: str, options: DataOptions) -> Path:
    """Returns the folder of the newest version of a set that is prepared as array_record.

    Looks at folders only: without a network, TFDS itself retries its servers for minutes.

    Args:
      name: of the set, with "/" and the configuration where it has several.

    Raises:
      DataUnavailable: there is none; the message says which folder was searched and how to make it.
    """
    versions = _prepared_versions(name, options)
    if not versions:
        raise _unprepared(name, options, "")
    return max(versions, key=_version)


def _prepared_versions(name: str, options: DataOptions) -> list[Path]:
    return [
        info.parent
        for info in data_root(options).glob(f"{name}/*/dataset_info.json")
        if any(info.parent.glob("*.array_record*"))
    ]


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in folder.name.split("."))


def _unprepared(name: str, options: DataOptions, reason: str) -> DataUnavailable:
    root, dataset = data_root(options), name.partition("/")[0]
    because = f" and cannot be prepared here: {reason}" if reason else ""
    return DataUnavailable(
        f"{name} is not prepared in {root} (data.tfds_dir){because}; on a machine with tensorflow "
        f"and network, run `tfds build {name} --file_format=array_record`, and copy "
        f"~/tensorflow_datasets/{dataset} from there to {root / dataset}"
    )


def fingerprint(name: str, options: DataOptions) -> dict[str, Any]:
    """Returns the version and the files of a prepared set; see `IdSet.fingerprint`.

    Raises:
      DataUnavailable: it is not prepared.
    """
    folder = prepared_folder(name, options)
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return {"version": folder.name} | of_files(folder, names)


def prepare(name: str, options: DataOptions) -> Path:
    """Returns the folder of a set; downloads and prepares it if that has not been done.

    Raises:
      DataUnavailable: it is not prepared and cannot be. Without network that takes `PATIENCE`
        seconds at most, in the whole process.
    """
    if _prepared_versions(name, options):
        return prepared_folder(name, options)
    if importlib.util.find_spec("tensorflow") is None:
        raise _unprepared(name, options, "tensorflow, which prepares sets, is not installed")
    if not reachable(HOST):
        raise _unprepared(name, options, f"{HOST.split('/')[2]} does not answer")
    build(name, options)
    return prepared_folder(name, options)


@functools.cache
def reachable(url: str) -> bool:
    """Returns whether a server answers one request, in any way, within `PATIENCE` seconds."""
    answered = []

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE)
        except urllib.error.HTTPError:
            pass  # it is there, if not at that address
        except (OSError, ValueError):
            return
        answered.append(True)

    # In a thread, since looking up the host's name does not keep to the time given.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answered)


def build(name: str, options: DataOptions) -> None:
    """Downloads and prepares a set as array_record.

    Raises:
      DataUnavailable: TFDS could not do it; its reason is in the message.
    """
    import tensorflow_datasets as tfds

    print(f"preparing {name} in {data_root(options)}", flush=True)
    try:
        builder = tfds.builder(name, data_dir=data_root(options), file_format="array_record")
        builder.download_and_prepare()
    except Exception as error:  # TFDS, its downloads and its sets' own code raise many kinds
        raise _unprepared(name, options, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def open_set(name: str, options: DataOptions) -> Any:
    """Returns the TFDS builder of a set, made from its folder: TFDS looks names up on its servers.

    Raises:
      DataUnavailable: it is not prepared and cannot be, or its folder is damaged.
    """
    import tensorflow_datasets as tfds

    folder = prepare(name, options)
    with reading(name, folder):
        return tfds.builder_from_directory(folder)


@contextmanager
def reading(name: str, folder: Path) -> Iterator[None]:
    """Turns whatever TFDS and array_record raise for a damaged folder into one line.

    Raises:
      DataUnavailable: in place of any other error.
    """
    try:
        yield
    except Exception as error:
        raise DataUnavailable(
            f"{name} in {folder} cannot be read: {_first_line(error)}; delete that folder and "
            f"prepare it again with `tfds build {name} --file_format=array_record`"
        ) from error


def _records(builder: Any, name: str, split: str) -> Records:
    """Returns the examples of a split, their images still encoded."""
    import tensorflow_datasets as tfds

    image = dict(builder.info.features.items()).get("image")
    if not isinstance(image, tfds.features.Image) or image.np_dtype == np.float32:
        raise UserError(f"the TFDS set {name} has no images under 'image'; choose another set")
    with reading(name, Path(builder.data_dir)):
        skip = {"image": tfds.decode.SkipDecoding()}
        examples = builder.as_data_source(split=split, decoders=skip)
        len(examples)
    return Records(examples, f"{name} {split}")


def load_id(name: str, options: DataOptions) -> tuple[ImageSet, ImageSet]:
    """Loads the splits `train` and `test` of a set with `image` and `label` as an ID set.

    Where there is no `test`, or it has no labels, `validation` is taken. Classes are the label's
    names with spaces for underscores; `data.class_names` renames and selects them.

    Raises:
      UserError: the set lacks images, labels or one of the splits, or an image is unreadable.
      DataUnavailable: it is not prepared and cannot be.
    """
    builder, labels = _open_labelled(name, options)
    chosen, names = select_classes(labels, options.class_names, f"the TFDS set {name}")
    new_label = np.full(len(labels), -1, np.int32)
    new_label[chosen] = np.arange(len(chosen))
    train = _labelled_split(builder, name, new_label, ("train",), options)
    test = _labelled_split(builder, name, new_label, ("test", "validation"), options)
    return ImageSet(name, *train, names), ImageSet(name, *test, names)


def load_labelled(
    name: str, options: DataOptions, relabel: Callable[[Sequence[str]], np.ndarray]
) -> tuple[Images, np.ndarray]:
    """Loads the test images of a set and their labels, int32 (n,).

    Where there is no `test`, or it has no labels, `validation` is taken.

    Args:
      relabel: the set's label names → (names,) the label of each; images of -1 are left out.

    Raises:
      UserError: the set lacks images, labels or the splits, or an image is unreadable.
      DataUnavailable: it is not prepared and cannot be.
    """
    builder, labels = _open_labelled(name, options)
    return _labelled_split(builder, name, relabel(labels), ("test", "validation"), options)


def load_split(
    name: str, split: str, options: DataOptions
) -> tuple[Images, np.ndarray, Sequence[str]]:
    """Loads the images of a split, their labels, int32 (n,), and the names of all labels.

    Raises:
      UserError: the set lacks images, labels or the split, or an image is unreadable.
      DataUnavailable: it is not prepared and cannot be.
    """
    builder, names = _open_labelled(name, options)
    same = np.arange(len(names), dtype=np.int32)
    return *_labelled_split(builder, name, same, (split,), options), names


def label_names(name: str, options: DataOptions) -> list[str]:
    """Returns the names of all labels of a set, in their order.

    Raises:
      UserError: it has none, or there is no such set.
      DataUnavailable: it is not prepared and cannot be.
    """
    if not known(name, options):
        raise UserError(f"{name!r} is not a TFDS set, so that its labels have no order to go by")
    return _open_labelled(name, options)[1]


def _open_labelled(name: str, options: DataOptions) -> tuple[Any, list[str]]:
    """Opens a set with classes: its builder, and their names in the order of its labels."""
    builder = open_set(name, options)
    label = dict(builder.info.features.items()).get("label")
    names = getattr(label, "names", None)
    if names is None:
        raise UserError(f"the TFDS set {name} has no classes under 'label'; choose another set")
    return builder, names


def _labelled_split(
    builder: Any,
    name: str,
    new_label: np.ndarray,
    candidates: tuple[str, ...],
    options: DataOptions,
) -> tuple[Images, np.ndarray]:
    """Loads the first of the candidate splits that exists and has labels."""
    for part in candidates:
        if part not in builder.info.splits:
            continue
        source = _records(builder, name, part)
        with reading(name, Path(builder.data_dir)):
            given = source.labels()
        if given.min(initial=0) < 0:
            continue
        labels = new_label[given]
        rows = np.flatnonzero(labels >= 0)
        images, kept = load_images(source, rows, **options.reading)
        return images, labels[rows[kept]]
    raise UserError(
        f"the TFDS set {name} has no labelled split {' or '.join(candidates)}; it has "
        f"{', '.join(builder.info.splits)}: choose another set"
    )


def ood_rows(name: str, options: DataOptions) -> tuple[Records, np.ndarray]:
    """Returns a set's test images, or its next best split, and a fixed random part of them."""
    builder = open_set(name, options)
    split = next(
        (part for part in ("test", "validation", "train") if part in builder.info.splits), None
    )
    if split is None:
        raise UserError(
            f"the TFDS set {name} has no split test, validation or train; it has "
            f"{', '.join(builder.info.splits)}"
        )
    source = _records(builder, name, split)
    rng = set_rng(name, options.seed)
    return source, rng.choice(len(source), min(options.count, len(source)), replace=False)


def load_ood(name: str, options: DataOptions) -> ImageSet:
    """Loads a fixed random part of a set's test images as an OOD set.

    Raises:
      UserError: the set has no images, or one is unreadable.
      DataUnavailable: it is not prepared and cannot be.
    """
    source, rows = ood_rows(name, options)
    images, _ = load_images(source, rows, **options.reading)
    return ImageSet(name, images)
