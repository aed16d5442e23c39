"""Finding the images below folders: each file once, and what is no image is counted and named."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from dream_jax.data.names import printable
from dream_jax.data.reader import SUFFIXES
from dream_jax.errors import UserError

# Suffixes of image formats that are not read, which are named. Files of other kinds are not.
OTHER_FORMATS = (
    ".ai",
    ".apng",
    ".arw",
    ".avif",
    ".avifs",
    ".cr2",
    ".cr3",
    ".dcm",
    ".dds",
    ".dib",
    ".djvu",
    ".dng",
    ".emf",
    ".eps",
    ".exr",
    ".fits",
    ".hdr",
    ".heic",
    ".heif",
    ".hif",
    ".ico",
    ".j2k",
    ".jp2",
    ".jpx",
    ".jxl",
    ".jxr",
    ".nef",
    ".nii",
    ".orf",
    ".pam",
    ".pbm",
    ".pcx",
    ".pfm",
    ".pgm",
    ".pnm",
    ".ppm",
    ".ps",
    ".psd",
    ".qoi",
    ".raf",
    ".raw",
    ".rw2",
    ".sgi",
    ".svg",
    ".svgz",
    ".tga",
    ".wmf",
    ".xbm",
    ".xcf",
    ".xpm",
)
NAMED = 3  # of the files that are left out for one reason

OTHER_FORMAT = "of a format that is not read"
ABOVE_CLASSES = "above the folders of classes"
BROKEN = "broken links"
UPWARDS = "links to a folder that they are in"
AGAIN = "links to what is read already"
SPECIAL = "neither files nor folders"
FOLDER = "folders named as images"


class Walk:
    """Finds the images below folders.

    Links are followed, after everything that is found without them, and not to a folder that the
    link itself is in. So each file counts once, and under its own name where it has one.

    Attributes:
      root: what names are relative to.
      left_out: why → the names of what looks like an image and is not taken.
    """

    def __init__(self, root: Path):
        self.root = root
        self.left_out: dict[str, list[str]] = {}
        self._folders: set[str] = set()  # real paths of those that were listed
        self._linked: set[str] = set()  # real paths of image files that links led to
        self._links: list[tuple[str, str, list[str]]] = []  # name, real folder, where images go

    def below(self, folders: Sequence[str]) -> list[list[str]]:
        """Returns the images anywhere below each of the folders, relative to `root` and sorted.

        Raises:
          UserError: a folder cannot be read.
        """
        real = os.path.realpath(self.root)
        found: list[list[str]] = [[] for _ in folders]
        for folder, images in zip(folders, found, strict=True):
            if os.path.islink(self.root / folder):
                self._links.append((folder, real, images))
            else:
                self._list(folder, os.path.realpath(self.root / folder), images)
        while self._links:
            links, self._links = self._links, []
            for name, parent, images in links:
                self._follow(name, parent, images)
        for images in found:
            images.sort()
        self._name_folders(found)
        return found

    def _list(self, name: str, real: str, images: list[str]) -> None:
        """Adds the images below a folder, but for what links lead to."""
        waiting = [(name, real)]
        while waiting:
            name, real = waiting.pop()
            if real in self._folders:
                self._leave_out(AGAIN, name)
                continue
            self._folders.add(real)
            for entry in entries(self.root / name):
                below = entry.name if name == "." else os.path.join(name, entry.name)
                if entry.is_symlink():
                    self._links.append((below, real, images))
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append((below, os.path.join(real, entry.name)))
                    if is_image_name(entry.name):
                        self._leave_out(FOLDER, below)
                elif not entry.is_file(follow_symlinks=False):
                    self._leave_out(SPECIAL, below)
                elif self._linked and os.path.join(real, entry.name) in self._linked:
                    self._leave_out(AGAIN, below)
                else:
                    self._take(below, images)

    def _follow(self, name: str, parent: str, images: list[str]) -> None:
        """Adds what a link in the real folder `parent` leads to."""
        path = self.root / name
        try:
            mode = path.stat().st_mode
        except PermissionError as error:
            raise unreadable_folder(path, error) from error
        except OSError:  # it leads nowhere, or in a circle
            self._leave_out(BROKEN, name)
            return
        real = os.path.realpath(path)
        if stat.S_ISDIR(mode):
            if is_within(parent, real):
                self._leave_out(UPWARDS, name)
            else:
                self._list(name, real, images)
        elif not stat.S_ISREG(mode):
            self._leave_out(SPECIAL, name)
        elif not is_image_name(name):
            self._take(name, images)
        elif real in self._linked or (
            os.path.dirname(real) in self._folders and is_image_name(os.path.basename(real))
        ):
            self._leave_out(AGAIN, name)
        else:
            self._linked.add(real)
            images.append(name)

    def _take(self, name: str, images: list[str]) -> None:
        """Adds a file if it is an image by its name."""
        if is_image_name(name):
            images.append(name)
        elif name.lower().endswith(OTHER_FORMATS):
            self._leave_out(OTHER_FORMAT, name)

    def _leave_out(self, why: str, name: str) -> None:
        self.left_out.setdefault(why, []).append(name)

    def _name_folders(self, found: list[list[str]]) -> None:
        """Keeps in `left_out` the folders named as images only if they hold none."""
        named = self.left_out.pop(FOLDER, [])
        empty = [
            name
            for name in named
            if not any(image.startswith(f"{name}/") for images in found for image in images)
        ]
        if empty:
            self.left_out[FOLDER] = empty


def is_image_name(name: str) -> bool:
    """Returns whether a path is that of an image by its suffix."""
    return name.lower().endswith(SUFFIXES)


def is_within(folder: str, other: str) -> bool:
    """Returns whether a real path is another one or lies below it."""
    return folder == other or folder.startswith(other.rstrip(os.sep) + os.sep)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what a folder holds, sorted by name, but for names that begin with a dot.

    Some systems keep notes under an image's name with a dot before it.

    Raises:
      UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            visible = [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise unreadable_folder(folder, error) from error
    return sorted(visible, key=lambda entry: entry.name)


def is_folder(path: Path) -> bool:
    """Returns whether there is a folder.

    Raises:
      UserError: the system does not say, because a folder above may not be read.
    """
    try:
        return path.is_dir()
    except PermissionError as error:
        raise unreadable_folder(path, error) from error


def unreadable_folder(folder: Path, error: OSError) -> UserError:
    """Returns the error for a folder that the system does not let be listed."""
    return UserError(
        f"{printable(str(folder))}: this folder of images cannot be read ({error.strerror}); "
        "make it readable, or take it away"
    )


def described(left_out: dict[str, list[str]]) -> str:
    """Returns how many are left out for each reason, with the names of the first; in one line."""
    return "; ".join(
        f"{len(names)} {why} ({', '.join(printable(name) for name in sorted(names)[:NAMED])}"
        + (", ...)" if len(names) > NAMED else ")")
        for why, names in left_out.items()
    )
