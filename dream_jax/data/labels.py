"""Names of classes from names of folders or TFDS labels, and the choice among them."""

from collections.abc import Mapping, Sequence

from dream_jax.errors import UserError
from dream_jax.rules import is_name


def check_names(names: Sequence[str]) -> None:
    """Checks that names of classes can stand in a prompt.

    Raises:
      UserError: a name is empty, has control characters, or is no valid text.
    """
    for name in names:
        fault = "" if is_name(name) else "is empty, or has line breaks or control characters"
        try:
            name.encode()
        except UnicodeEncodeError:  # a folder's name of another encoding
            fault = "is not UTF-8"
        if fault:
            raise UserError(
                f"the name of class {name!a} {fault}; rename its folder, or give it a name by "
                f"data.class_names"
            )


def select_classes(
    labels: Sequence[str], class_names: Mapping[str, str], where: str
) -> tuple[list[int], tuple[str, ...]]:
    """Chooses the labels of a set that are used, and names their classes.

    Args:
      labels: of the whole set.
      class_names: label → class name; only these are used, if there are any. Otherwise all are,
        under their own names with spaces for underscores.
      where: the set, for messages.

    Returns:
      Indices into `labels`, ascending, and one name for each.

    Raises:
      UserError: `class_names` has a label that the set lacks, or two classes have one name.
    """
    unknown = [label for label in class_names if label not in labels]
    if unknown:
        raise UserError(
            f"data.class_names names {unknown[0]!r} ({len(unknown)} such), which {where} lacks; "
            f"it has {len(labels)}, the first {', '.join(labels[:5])}"
        )
    chosen = [i for i, label in enumerate(labels) if not class_names or label in class_names]
    names = tuple(class_names.get(labels[i], labels[i].replace("_", " ")) for i in chosen)
    first: dict[str, int] = {}
    for index, name in zip(chosen, names, strict=True):
        if (other := first.setdefault(name, index)) != index:
            raise UserError(
                f"data.class_names: two classes of {where} are called {name!r}: "
                f"{labels[other]!r} and {labels[index]!r}"
            )
    return chosen, names
