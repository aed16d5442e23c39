"""Names of classes from names of folders or TFDS labels, and the choice among them."""

from collections.abc import Mapping, Sequence

from dream_jax.errors import UserError


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
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"data.class_names: two classes of {where} are called {twice[0]!r}")
    return chosen, names
