"""What image sets are used for: to test, to tune or to train on, and none of them for two."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from unicodedata import normalize

from dream_jax.data import places
from dream_jax.data.corruptions import CORRUPTIONS
from dream_jax.data.groups import GROUPS, ood_names
from dream_jax.data.image_sets import LISTS, DataOptions
from dream_jax.data.registry import check_name, id_sets, ood_sets, set_title
from dream_jax.data.shifted import parts
from dream_jax.errors import UserError
from dream_jax.settings import DataSettings

# Settings, and the roles of the registered sets that each takes. A tuning set may be looked at as
# `data.ood` in a run that is not tuned on it.
TAKES = {
    "data.ood": ("test", "tuning", "any"),
    "data.near": ("test", "tuning", "any"),
    "data.far": ("test", "tuning", "any"),
    "data.tuning": ("tuning", "any"),
    "data.auxiliary": ("auxiliary", "any"),
}
# What messages call the sets of a field.
USES = {"ood": "OOD", "near": "OOD", "far": "OOD", "tuning": "tuning", "auxiliary": "auxiliary"}
# Sets that have images of another one, under another name.
SHOWN_BY = {
    "digits": "mnist",
    "cifar10_h": "cifar10",
    "cifar10_n": "cifar10",
    "cifar100_n": "cifar100",
    "imagenet2012_fewshot": "imagenet2012",
    "imagenet2012_multilabel": "imagenet2012",
    "imagenet2012_real": "imagenet2012",
    "imagenet2012_subset": "imagenet2012",
}
# What results, and the function that writes scores, call something else.
RESERVED = ("id", "mean", "round_trips", "sampled_by_name", "file", "args", "allow_pickle")
ID_SPLITS = ("train", "test", "val")
# The settings that an ID set of files needs, and what they are.
NEEDS = {
    "imagefolder": {"folder": "a folder"},
    "imagelist": {"folder": "a folder", **dict.fromkeys(LISTS, "an image list")},
}


def check_sets(data: DataSettings) -> None:
    """Checks the names and the roles of a configuration's image sets, here or elsewhere.

    Raises:
      UserError: names the setting `config.data.<field>`.
    """
    options = DataOptions.of(data, count=data.ood_count)
    _check_names(data, options)
    if not ood_names(data):
        raise UserError(
            "config.data.ood is (), and so are data.near and data.far; it must be one or more of "
            "the OOD sets' names"
        )
    _check_places(data)
    declared = id_sets().get(data.id)
    for field in ("folder", *LISTS) if declared is None else declared.ignores:
        if found := getattr(data, field):
            raise UserError(
                f"config.data.{field} is {found!r}; it must be empty, because data.id = {data.id} "
                f"does not use it"
            )
    try:
        check_roles(
            *(data.id, data.ood, data.tuning, data.auxiliary, data.shifted, id_places(data)),
            *(data.near, data.far),
        )
    except UserError as error:
        raise UserError(f"config.{error}") from None
    reserved = (*RESERVED, *GROUPS) if data.near or data.far else RESERVED
    for field in (*USES, "shifted"):
        _check_titles(field, getattr(data, field), reserved)
    _check_groups(data)
    if data.full_spectrum and not data.shifted:
        raise UserError(
            "config.data.shifted is (); with config.data.full_spectrum = True it must name sets "
            "that join the ID images"
        )


def _check_places(data: DataSettings) -> None:
    """Raises UserError where an ID set of files lacks the setting that says where they are."""
    for field, kind in NEEDS.get(data.id, {}).items():
        if not getattr(data, field):
            raise UserError(
                f"config.data.{field} is ''; with data.id = {data.id} it must be {kind}"
            )


def _check_names(data: DataSettings, options: DataOptions) -> None:
    """Raises UserError where a name stands for no set."""
    given = {"id": ((data.id,), "ID")}
    given |= {field: (getattr(data, field), use) for field, use in USES.items()}
    for field, (names, use) in given.items():
        for name in names:
            try:
                check_name(name, options, use)
            except UserError as error:
                found = getattr(data, field)
                raise UserError(f"config.data.{field} is {found!r}; {error}") from None
    for name in data.shifted:
        try:
            parts(name, options)
        except UserError as error:
            raise UserError(f"config.data.shifted is {data.shifted!r}; {error}") from None


def _check_groups(data: DataSettings) -> None:
    """Raises UserError where sets of two groups have one title."""
    groups: dict[str, str] = {}
    for group in GROUPS:
        for title in map(set_title, getattr(data, group)):
            if groups.setdefault(title, group) != group:
                raise UserError(
                    f"config.data.{group} and config.data.{groups[title]} both have {title!r}; "
                    f"an OOD set is of one group"
                )


def _check_titles(field: str, names: Sequence[str], reserved: Sequence[str]) -> None:
    """Raises UserError unless each set has a title of its own, and no folder a second title."""
    titles = [set_title(name) for name in names]
    for title in titles:
        if titles.count(title) > 1 or title in reserved:
            raise UserError(
                f"config.data.{field} is {names!r}; each set must have a name of its own, other "
                f"than {', '.join(reserved)}, and {title!r} is not"
            )
    found: dict[tuple[Path, ...], str] = {}
    for name in names:
        if "=" in name:
            place = places.resolved(_place(name))
            if (other := found.setdefault(place, name)) != name:
                kind = "folder" if len(place) == 1 else "list"
                raise UserError(
                    f"config.data.{field} has {other!r} and {name!r}, which are one {kind}"
                )


def id_places(data: DataSettings) -> tuple[str, ...]:
    """Returns the folders that hold images of an `imagefolder`, whether they exist or not.

    Of an `imagelist` they are its lists, with the folder of its images.

    Where `data.class_names` selects classes, other classes of the same folder are of no ID class.
    """
    if data.id == "imagelist":
        return tuple(f"{file}@{data.folder}" for file in (data.train_list, data.test_list))
    if data.id != "imagefolder":
        return ()
    splits = [Path(data.folder, split) for split in ID_SPLITS]
    if not data.class_names:
        return tuple(map(str, splits))
    spelt = {normalize(form, name) for name in data.class_names for form in ("NFC", "NFD")}
    names = sorted({*spelt, *data.class_names})
    return tuple(str(split / name) for split in splits for name in names)


def check_roles(
    id: str,
    ood: Sequence[str],
    tuning: Sequence[str],
    auxiliary: Sequence[str],
    shifted: Sequence[str] = (),
    id_places: Sequence[str] = (),
    near: Sequence[str] = (),
    far: Sequence[str] = (),
) -> None:
    """Checks that no set has two uses, and that registered sets have their own.

    Two sets are one if they have the same title, or are configurations or splits of one TFDS set,
    or have the same images, or are folders of which one is, or lies in, the other. Links are
    followed.

    Args:
      id: the ID set's name; of folders, also "imagefolder=folder".
      ood, tuning, auxiliary, shifted: names as in `data.ood`, `data.tuning`, ....
      id_places: the folders or lists with the ID set's images.
      near, far: as `ood`; a set is in one of the three.

    Raises:
      UserError: names the set, where it was found twice, or what it is for.
    """
    uses = {"data.ood": ood, "data.near": near, "data.far": far}
    uses |= {"data.tuning": tuning, "data.auxiliary": auxiliary}
    for setting, names in uses.items():
        for name in names:
            role = ood_sets()[name].role if name in ood_sets() else "any"
            if role not in TAKES[setting]:
                allowed = [n for n, s in sorted(ood_sets().items()) if s.role in TAKES[setting]]
                raise UserError(
                    f"{setting} is {tuple(names)!r}; the role of {name!r} is {role}; allowed: "
                    f"{', '.join(allowed)}, a name in TFDS, name=folder, name=list.txt@folder"
                )
    own = [("data.id and its files", f"{id}={place}") for place in id_places]
    placed = [("data.id", id), *own]
    for setting, names in uses.items():
        placed += [(setting, name) for name in names]
    # A corruption is made of the ID test images, whatever sets are called by its name.
    placed += [("data.shifted", name) for name in shifted if name not in CORRUPTIONS]
    for i, (setting, name) in enumerate(placed):
        for other_setting, other in placed[:i]:
            one_use = setting == other_setting or setting.startswith("data.id")
            if one_use or not _in_common(setting, name, other_setting, other):
                continue
            raise UserError(
                f"{setting} has {name!r} and {_where(other_setting, other)}, which are or share "
                "one set; the images of each must be used in one of them only"
            )


def _where(setting: str, name: str) -> str:
    if setting.startswith("data.id and"):
        return f"data.id has the images in {name.partition('=')[2]}"
    return f"{setting} has {name!r}"


def _in_common(setting: str, name: str, other_setting: str, other: str) -> bool:
    """Returns whether two uses have images in common that they must not have."""
    if setting == "data.shifted" and other_setting.startswith("data.id"):
        # It may show the ID images with another look, but not as they are.
        return name == other or share_images(name, other)
    return same_set(name, other)


def same_set(one: str, other: str) -> bool:
    """Returns whether two names mean sets that have, or may have, images in common."""
    return share_images(one, other) or _dataset(one) == _dataset(other)


def share_images(one: str, other: str) -> bool:
    """Returns whether two names are of places that have images in common."""
    return "=" in one and "=" in other and places.share_images(_place(one), _place(other))


def _place(name: str) -> str:
    return name.partition("=")[2]


def _dataset(name: str) -> str:
    """Returns the title without the configuration of a TFDS set; what is registered is itself."""
    title = set_title(name)
    known: Mapping = id_sets() | ood_sets()
    title = title if name in known else title.partition("/")[0]
    return title if "=" in name else SHOWN_BY.get(title, title)
