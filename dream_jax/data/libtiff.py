"""What libtiff finds wrong with a file: an error, where it would print a line and Pillow go on."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from dream_jax.data.reader import NotReadable

PROBLEM = "is damaged, or coded in a way that libtiff cannot read"
_found = threading.local()  # count: of the errors that libtiff met in this thread


@ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
def _count(module: int, message: int, arguments: int) -> None:
    """Takes libtiff's call in place of the function that prints."""
    _found.count = getattr(_found, "count", 0) + 1


# Found through Pillow's own library, which is linked against it. Where it is linked into that one,
# as on Windows, its functions cannot be found, and libtiff prints as it always does.
_set_handler = getattr(ctypes.CDLL(Image.core.__file__), "TIFFSetErrorHandler", None)
if _set_handler is not None:
    _set_handler(_count)


@contextmanager
def all_decoded() -> Iterator[None]:
    """Raises NotReadable if libtiff meets an error in the block, of this thread alone.

    Pillow raises for most of them. Where libtiff also converts the colours, as of YCbCr, Pillow
    takes what came before the error, and the rest of the picture would be arbitrary.
    """
    _found.count = 0
    try:
        yield
    except Exception as error:
        if _found.count:
            raise NotReadable(PROBLEM) from error
        raise
    if _found.count:
        raise NotReadable(PROBLEM)
