"""Pointers of Git Large File Storage, which lie in place of files that were not fetched."""

import os

POINTER = b"version https://git-lfs.github.com/spec/"
ADVICE = "run `git lfs pull` where it comes from"


def is_pointer(path: str | os.PathLike[str]) -> bool:
    """Returns whether a file is a pointer to the file that should be there."""
    with open(path, "rb") as file:
        return file.read(len(POINTER)) == POINTER
