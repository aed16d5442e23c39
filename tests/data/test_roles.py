"""No image set is used for two things, and registered sets only for what they are for."""

import pytest

from dream_jax.data.roles import check_roles
from dream_jax.errors import UserError

ALLOWED = [
    ("digits", ("letters", "textures", "fashion_mnist"), ("noise", "alphabets"), ("symbols",)),
    ("digits", ("noise", "alphabets"), (), ("symbols", "scenes")),  # a run that looks at tuning
    ("digits", ("letters",), ("noise",), ("fashion_mnist",)),
    ("cifar10", ("svhn_cropped", "isun=data/iSUN"), ("dtd",), ("fashion_mnist", "sun=data/SUN")),
    ("imagefolder=data/in", ("a=data/ood/a", "b=data/ood/ab"), ("c=data/ood/c",), ()),
    ("cifar10", ("cifar100",), (), ("cifar10_1/v4",)),  # other sets with like names
]
REFUSED = [
    # Registered sets in a role that is not theirs.
    (("digits", ("symbols",), (), ()), ["data.ood", "'symbols'", "auxiliary"]),
    (("digits", (), ("letters",), ()), ["data.tuning", "'letters'", "test", "alphabets"]),
    (("digits", (), ("scenes",), ()), ["data.tuning", "'scenes'"]),
    (("digits", (), (), ("noise",)), ["data.auxiliary", "'noise'", "tuning", "scenes"]),
    (("digits", (), (), ("faces",)), ["data.auxiliary", "'faces'"]),
    # One set with two uses.
    (("digits", ("noise",), ("noise",), ()), ["data.ood", "data.tuning", "'noise'"]),
    (("cifar10", ("dtd",), (), ("dtd",)), ["data.ood", "data.auxiliary", "'dtd'"]),
    (("cifar10", (), ("svhn_cropped",), ("svhn_cropped",)), ["data.tuning", "data.auxiliary"]),
    (("cifar10", ("cifar10",), (), ()), ["data.id", "data.ood"]),
    (("mnist", ("mnist_corrupted/fog",), (), ("mnist_corrupted/spatter",)), ["fog", "spatter"]),
    (("cifar10", ("a=data/x",), ("a=data/y",), ()), ["a=data/x", "a=data/y"]),
    (("cifar10", ("a=data/x",), (), ("b=data/../data/x/",)), ["a=data/x", "b=data"]),
    (("cifar10", ("a=data/x/test",), (), ("b=data/x",)), ["a=data/x/test"]),
    (("imagefolder=data/in", (), (), ("a=data/in",)), ["data.id", "data.auxiliary"]),
]


@pytest.mark.parametrize("uses", ALLOWED)
def test_allowed_uses(uses):
    check_roles(*uses)


@pytest.mark.parametrize(("uses", "said"), REFUSED)
def test_refused_uses_are_one_line(uses, said):
    with pytest.raises(UserError) as caught:
        check_roles(*uses)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in said), message


def test_linked_folders_are_one(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match=r"data\.tuning"):
        check_roles("digits", (f"x={tmp_path}/a",), (f"y={tmp_path}/b",), ())
