"""Damaged and odd image files, read through the project's reader; `tests/soak.py` runs it.

python tests/fuzz_images.py 2000 0
"""

import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

FORMS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK", "F", "I", "LAB", "YCbCr", "HSV")
SUFFIXES = ("png", "jpg", "jpeg", "jfif", "jpe", "webp", "bmp", "tif", "tiff", "gif", "PNG")
TEXTS = (
    b"",
    b"%!PS-Adobe-3.0 EPSF-3.0\n",
    b"<html>404</html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    b"RIFF\0\0\0\0WEBP",
    b"\0\0\0\x20ftypavif",
)
SECONDS = 20  # for one file
ROOT = Path(__file__).resolve().parents[1]


def make(path: Path, seed: int) -> Path:
    """Writes a damaged or odd image, the same for the same seed; returns where it is."""
    rng = random.Random(seed)
    path = path.with_suffix(f".{rng.choice(SUFFIXES)}")
    kind = rng.random()
    if kind < 0.02:
        os.mkfifo(path)
    elif kind < 0.08:
        path.write_bytes(rng.choice(TEXTS))
    else:
        path.write_bytes(_damaged(_encoded(rng), rng))
    return path


def _encoded(rng: random.Random) -> bytes:
    while True:
        form, mode = rng.choice(FORMS), rng.choice(MODES)
        size = rng.choice([(1, 1), (1, 5000), (5000, 1), (37, 50), (640, 480), (5000, 3000)])
        noise = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (16, 16, 3), np.uint8)
        image = Image.fromarray(noise)
        options: dict = {"exif": Image.Exif()}
        options["exif"][274] = rng.randrange(1, 9)
        if rng.random() < 0.3:
            options |= {"compression": "tiff_lzw"} if form == "TIFF" else {"progressive": True}
        file = io.BytesIO()
        try:
            if mode in ("F", "I", "I;16", "LA", "LAB"):
                image = image.convert("L" if mode != "LAB" else "RGB")
            image.convert(mode).resize(size).save(file, form, **options)
        except (OSError, ValueError, KeyError, RuntimeError):
            continue  # that format has no such mode
        return file.getvalue()


def _damaged(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    kind = rng.choice(["whole", "cut", "flips", "head", "zeros", "size", "twice"])
    if kind == "cut":
        del data[rng.randrange(len(data)) :]
    for _ in range({"flips": 20, "head": 4}.get(kind, 0)):
        data[rng.randrange(min(len(data), 200 if kind == "head" else len(data)))] ^= (
            1 << rng.randrange(8)
        )
    if kind == "zeros":
        start = rng.randrange(len(data))
        data[start : start + 500] = bytes(len(data[start : start + 500]))
    if kind == "size":  # a huge declared size, where PNG, GIF and BMP keep theirs
        at = {0x89: 16, 0x47: 6, 0x42: 18}.get(data[0], rng.randrange(len(data)))
        data[at : at + 2] = rng.choice([b"\xff\xff", b"\0\0", b"\0\x7f"])
    return bytes(data * 2 if kind == "twice" else data)


def run(count: int, seed: int, folder: Path) -> dict[str, int | float]:
    """Makes `count` files in `folder` and reads each in a child process.

    Returns:
      How many were "read", "refused" in a line, "hung" and ended in "tracebacks", and "peak_mb",
      the most memory above that of the child before its first file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, int | float] = {"read": 0, "refused": 0, "hung": 0, "tracebacks": 0}
    peak, child = 0.0, None
    for number in range(count):
        path = make(folder / f"{seed}-{number}", seed * 1_000_003 + number)
        child = child if child and child.poll() is None else _start()
        answer = _ask(child, path)
        figures[answer["result"]] += 1
        peak = max(peak, answer.get("mb", 0.0))
        if answer["result"] in ("read", "refused") and answer.get("mb", 0.0) < 1024:
            path.unlink()
        else:
            print(f"{path}: {answer}", file=sys.stderr)
    if child:
        child.kill()
        child.wait()
    return figures | {"peak_mb": peak}


def _start() -> subprocess.Popen:
    command = [sys.executable, __file__, "--read"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )


def _ask(child: subprocess.Popen, path: Path) -> dict:
    """Returns what the child says of a file; one that does not answer in time is killed."""
    import select

    assert child.stdin and child.stdout
    child.stdin.write(f"{path}\n")
    child.stdin.flush()
    start = time.monotonic()
    if not select.select([child.stdout], [], [], SECONDS + 20)[0]:  # 20 s to import
        child.kill()
        child.wait()
        return {"result": "hung", "seconds": time.monotonic() - start}
    line = child.stdout.readline()
    return json.loads(line) if line else {"result": "tracebacks", "died": child.wait()}


def _read_all() -> None:
    """Reads the files named on standard input, and says of each how that went."""
    from dream_jax.data.images import Images
    from dream_jax.data.sources import Files
    from dream_jax.errors import UserError

    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # noqa: E731
    before = peak()
    for line in sys.stdin:
        path, result, why = Path(line.strip()), "read", ""
        try:
            for size, channels in ((32, 1), (224, 3)):
                source = Files(str(path.parent), [path.name])
                Images(source, np.zeros(1, int), size, channels).pixels(slice(None))
        except UserError as error:
            result, why = "refused" if "\n" not in str(error) else "tracebacks", str(error)
        except BaseException as error:
            result, why = "tracebacks", repr(error)
        print(json.dumps({"result": result, "mb": peak() - before, "why": why}), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--read"]:
        _read_all()
    else:
        with tempfile.TemporaryDirectory() as folder:
            print(run(int(sys.argv[1]), int(sys.argv[2]), Path(folder)))
