"""What image sets are used for: to test, to tune or to train on, and none of them for two."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from dream_jax.data.image_sets import DataOptions
from dream_jax.data.registry import check_name, id_sets, ood_sets, set_title
from dream_jax.errors import UserError
from dream_jax.settings import DataSettings

# Settings, and the roles of the registered sets that each takes. A tuning set may be looked at as
# `data.ood` in a run that is not tuned on it.
TAKES = {
    "data.ood": ("test", "tuning", "any"),
    "data.tuning": ("tuning", "any"),
    "data.auxiliary": ("auxiliary", "any"),
}


# What results call the other sets that they hold.
RESERVED = ("id", "mean", "round_trips", "sampled_by_name", "file")


def check_sets(data: DataSettings) -> None:
    """Checks the names and the roles of a configuration's image sets, here or elsewhere.

    Raises:
      UserError: names the setting `config.data.<field>`.
    """
    options = DataOptions.of(data, count=data.ood_count)
    uses: Mapping[str, Sequence[str]] = {
        "id": (data.id,),
        "ood": data.ood,
        "tuning": data.tuning,
        "auxiliary": data.auxiliary,
    }
    for field, names in uses.items():
        for name in names:
            try:
                check_name(name, options, "ID" if field == "id" else "OOD")
            except UserError as error:
                found = getattr(data, field)
                raise UserError(f"config.data.{field} is {found!r}; {error}") from None
    if data.id == "imagefolder" and not data.folder:
        raise UserError("config.data.folder is ''; with data.id = imagefolder it must be a folder")
    # Other sets may lie in the same folder as its train and test folders.
    own = f"={data.folder}/train" if data.id == "imagefolder" else ""
    try:
        check_roles(data.id + own, data.ood, data.tuning, data.auxiliary)
    except UserError as error:
        raise UserError(f"config.{error}") from None
    set_titles = [set_title(name) for name in data.ood]
    for title in set_titles:
        if set_titles.count(title) > 1 or title in RESERVED:
            raise UserError(
                f"config.data.ood is {data.ood!r}; each set must have a name of its own, other "
                f"than {', '.join(RESERVED)}, and {title!r} is not"
            )


def check_roles(
    id: str, ood: Sequence[str], tuning: Sequence[str], auxiliary: Sequence[str]
) -> None:
    """Checks that no set has two uses, and that registered sets have their own.

    Two sets are one if they have the same title, or are configurations or splits of one TFDS set,
    or folders of which one is, or lies in, the other.

    Args:
      id: the ID set's name; of folders, "imagefolder=folder".
      ood, tuning, auxiliary: names as in `data.ood`, `data.tuning` and `data.auxiliary`.

    Raises:
      UserError: names the set, where it was found twice, or what it is for.
    """
    uses = {"data.ood": ood, "data.tuning": tuning, "data.auxiliary": auxiliary}
    for setting, names in uses.items():
        for name in names:
            role = ood_sets()[name].role if name in ood_sets() else "any"
            if role not in TAKES[setting]:
                allowed = [n for n, s in sorted(ood_sets().items()) if s.role in TAKES[setting]]
                raise UserError(
                    f"{setting} is {tuple(names)!r}; the role of {name!r} is {role}; "
                    f"allowed: {', '.join(allowed)}, a name in TFDS, name=folder"
                )
    placed = [("data.id", id), *((setting, n) for setting, names in uses.items() for n in names)]
    for i, (setting, name) in enumerate(placed):
        for other_setting, other in placed[:i]:
            if setting != other_setting and same_set(name, other):
                raise UserError(
                    f"{setting} has {name!r} and {other_setting} has {other!r}, which are or share "
                    "one set; the images of each must be used in one of them only"
                )


def same_set(one: str, other: str) -> bool:
    """Returns whether two names mean sets that have, or may have, images in common."""
    if "=" in one and "=" in other:
        a, b = (Path(name.partition("=")[2]).expanduser().resolve() for name in (one, other))
        if a.is_relative_to(b) or b.is_relative_to(a):
            return True
    return _dataset(one) == _dataset(other)


def _dataset(name: str) -> str:
    """Returns the title without the configuration of a TFDS set; what is registered is itself."""
    title = set_title(name)
    return title if name in id_sets() or name in ood_sets() else title.partition("/")[0]
