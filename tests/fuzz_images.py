"""Damaged and odd image files, read as a set's images are; `make soak` runs it too.

    python tests/fuzz_images.py 2000 0

A process of its own reads the files one after the other. It is replaced when it hangs or dies.
"""

import functools
import io
import json
import os
import random
import resource
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

FORMS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK", "F", "I", "LAB", "YCbCr")
SIZES = ((1, 1), (1, 5000), (5000, 1), (37, 50), (640, 480), (5000, 3000))
SIZE_WEIGHTS = (4, 4, 4, 20, 6, 1)
SUFFIXES = ("png", "jpg", "jpeg", "jfif", "jpe", "webp", "bmp", "tif", "tiff", "gif", "PNG")
OPTIONS: dict[str, tuple[dict, ...]] = {
    "PNG": ({"compress_level": 1}, {"bits": 2}, {"transparency": 7}, {"frames": 3}),
    "JPEG": ({}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}),
    "WEBP": ({"method": 0}, {"method": 0, "lossless": True}, {"method": 0, "frames": 3}),
    "TIFF": tuple(
        {"compression": kind}
        for kind in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4", "zstd")
    ),
    "GIF": ({}, {"frames": 3}, {"transparency": 0}),
    "BMP": ({},),
}
TIFF_MODES = {"group4": ("1",), "jpeg": ("L", "RGB", "YCbCr")}  # compression → modes
DAMAGES = ("whole", "cut", "flips", "head", "zeros", "size", "size", "number", "twice", "swapped")
EXTENTS = (0, 1, 2, 255, 8192, 32767, 32768, 65535)
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1)
TEXTS = (
    b"",
    b"%!PS-Adobe-3.0 EPSF-3.0\n",
    b"<html>404</html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    b"RIFF\0\0\0\0WEBP",
    b"\0\0\0\x20ftypavif",
)
SECONDS = 10  # for one file
START_SECONDS = 60  # for the imports
MOST_MB = 1024  # above what the process takes before its first file
FAULTS = ("hung", "killed", "tracebacks", "noisy", "differing", "large")
ROOT = Path(__file__).resolve().parents[1]


def make(path: Path, seed: int) -> Path:
    """Writes a damaged or odd image, the same for the same seed; returns where it is."""
    rng = random.Random(seed)
    path = path.with_suffix(f".{rng.choice(SUFFIXES)}")
    kind = rng.random()
    if kind < 0.02:
        os.mkfifo(path)
    elif kind < 0.06:
        path.write_bytes(rng.choice(TEXTS))
    else:
        form, content = None, None
        while content is None:
            form = rng.choice(FORMS)
            size = rng.choices(SIZES, SIZE_WEIGHTS)[0]
            option = rng.randrange(len(OPTIONS[form]))
            content = _encoded(form, rng.choice(MODES), size, option, rng.randrange(1, 9))
        path.write_bytes(_damaged(form, content, rng))
    return path


@functools.lru_cache(maxsize=64)
def _encoded(form: str, mode: str, size: tuple[int, int], option: int, turn: int) -> bytes | None:
    """Returns an image file; None where the format has no such mode or option."""
    if mode not in TIFF_MODES.get(OPTIONS[form][option].get("compression"), MODES):
        return None  # libtiff would print a line of its own
    noise = np.random.default_rng(turn).integers(0, 256, (16, 16, 3), np.uint8)
    image = Image.fromarray(noise)
    if mode in ("F", "I", "I;16", "LA"):
        image = image.convert("L")
    options = {"exif": Image.Exif()} | OPTIONS[form][option]
    options["exif"][274] = turn
    frames = options.pop("frames", 1)
    file = io.BytesIO()
    try:
        image = image.convert(mode).resize(size)
        if frames > 1:
            options |= {"save_all": True, "append_images": [image.rotate(90)] * (frames - 1)}
        image.save(file, form, **options)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError):
        return None
    return file.getvalue()


def _damaged(form: str, content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    kind = rng.choice(DAMAGES)
    if kind == "cut":
        del data[rng.randrange(len(data)) :]
    for _ in range({"flips": 20, "head": 4}.get(kind, 0)):
        data[rng.randrange(min(len(data), 200 if kind == "head" else len(data)))] ^= (
            1 << rng.randrange(8)
        )
    if kind == "zeros":
        start = rng.randrange(len(data))
        data[start : start + 500] = bytes(len(data[start : start + 500]))
    if kind == "number":  # a length, an offset or a count
        start = rng.randrange(max(1, min(len(data) - 4, 400)))
        data[start : start + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(NUMBERS))
    if kind == "size":
        for at, code in _sizes(form, data):
            if rng.random() < 0.7 and at + struct.calcsize(code) <= len(data):
                struct.pack_into(code, data, at, rng.choice(EXTENTS))
    if kind == "swapped" and len(data) > 40:
        first, second = sorted(rng.sample(range(len(data)), 2))
        data[:] = data[:20] + data[second:] + data[first:second] + data[20:first]
    if form == "PNG" and rng.random() < 0.7:
        _renew_checksums(data)
    return bytes(data * 2 if kind == "twice" else data)


def _sizes(form: str, data: bytearray) -> list[tuple[int, str]]:
    """Returns where a file keeps its width and height, and as what."""
    if form == "JPEG":
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        return [(at + 5, ">H"), (at + 7, ">H")]
    if form == "TIFF":
        return [
            (at + 8, "<I")
            for at in (data.rfind(struct.pack("<HH", tag, 4)) for tag in (256, 257, 278, 279))
            if at >= 0
        ]
    if form == "WEBP":  # lossy: 16 bits each; with a VP8X header: 24 bits each
        return [(24, "<H"), (27, "<H")] if data[12:16] == b"VP8X" else [(26, "<H"), (28, "<H")]
    return {
        "PNG": [(16, ">I"), (20, ">I")],
        "BMP": [(18, "<i"), (22, "<i")],
        "GIF": [(6, "<H"), (8, "<H")],
    }[form]


def _renew_checksums(data: bytearray) -> None:
    """Makes the checksums of a PNG right, without which nothing but them would be tried."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + struct.unpack_from(">I", data, at)[0]
        if end + 4 > len(data):
            return
        struct.pack_into(">I", data, end, zlib.crc32(data[at + 4 : end]))
        at = end + 4


def run(count: int, seed: int, folder: Path) -> dict[str, int | float]:
    """Makes `count` files in `folder` and reads each in another process.

    Files with which something is wrong are kept and named on standard error.

    Returns:
      How many were "read" and "refused" in one line; of how many the reading "hung", was "killed"
      by a signal, ended in "tracebacks", printed something ("noisy"), gave results that are
      "differing", or took above `MOST_MB` ("large"); and "peak_mb", the most memory that one took
      above that of the process before its first file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures: dict[str, int | float] = dict.fromkeys(("read", "refused", *FAULTS), 0)
    reader = _Reader()
    peak = 0.0
    try:
        for number in range(count):
            path = make(folder / f"{seed}-{number}", seed * 1_000_003 + number)
            answer = reader.ask(path)
            figures[answer["result"]] += 1
            peak = max(peak, answer.get("mb", 0.0))
            if answer["result"] in FAULTS:
                print(f"{path}: {answer}", file=sys.stderr, flush=True)
            else:
                path.unlink()
    finally:
        reader.end()
    return figures | {"peak_mb": round(peak, 1)}


class _Reader:
    """The process that reads; it is started when there is none."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115

    def ask(self, path: Path) -> dict:
        """Returns what the process says of a file, or how it ended over it."""
        if self._child is None:
            self._start()
        assert self._child and self._child.stdin
        start, printed = time.monotonic(), self._printed.seek(0, os.SEEK_END)
        self._child.stdin.write(f"{path}\n")
        self._child.stdin.flush()
        line = self._line(SECONDS)
        if line is None:
            self.end()
            return {"result": "hung", "seconds": time.monotonic() - start}
        if not line:
            code = self._child.wait()
            self.end()
            return {"result": "killed" if code < 0 else "tracebacks", "died": code}
        answer = json.loads(line)
        self._printed.seek(printed)
        text = self._printed.read().decode(errors="replace")
        if text and answer["result"] in ("read", "refused"):
            answer |= {"result": "noisy", "printed": text[:500]}
        return answer

    def _start(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, __file__, "--read"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
        )
        if not self._line(START_SECONDS):
            self.end()
            self._printed.seek(0)
            raise RuntimeError(f"the reader did not start: {self._printed.read()!r}")

    def _line(self, seconds: float) -> str | None:
        """Returns the next line; "" if the process ended, None if it says nothing in time."""
        assert self._child and self._child.stdout
        if not select.select([self._child.stdout], [], [], seconds)[0]:
            return None
        return self._child.stdout.readline()

    def end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def memory_mb(name: str) -> float:
    """Returns an entry of this process's status: "VmHWM" is its peak, "VmSize" its addresses."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def reset_peak() -> None:
    """Makes the peak of this process's memory what it takes now."""
    Path("/proc/self/clear_refs").write_text("5")


def _read_all() -> None:
    """Reads the files named on standard input, and says of each how that went."""
    from dream_jax.errors import UserError

    _read(ROOT / "nothing.png", UserError)  # what is imported late
    reset_peak()
    before = memory_mb("VmHWM")
    # A backstop for the machine: what asks for far more than is allowed gets a MemoryError.
    most = int(memory_mb("VmSize") + 3 * MOST_MB) << 20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print("ready", flush=True)
    for line in sys.stdin:
        reset_peak()
        result, why = _read(Path(line.removesuffix("\n")), UserError)
        mb = memory_mb("VmHWM") - before
        if result in ("read", "refused") and (mb > MOST_MB or "MemoryError" in why):
            result = "large"
        print(json.dumps({"result": result, "mb": mb, "why": why}), flush=True)


def _read(path: Path, refusal: type[Exception]) -> tuple[str, str]:
    """Returns what came of reading a file in the three ways in which a set is read, and why."""
    from dream_jax.data.images import Images, RandomCrops, load_images
    from dream_jax.data.sources import Files

    source, row = Files(str(path.parent), [path.name]), np.zeros(1, int)
    whole = Images(source, row, 224, 3)
    ways = (
        lambda: whole.pixels(slice(None)),
        lambda: load_images(source, row, size=32, channels=1, hold_bytes=0, unreadable="stop"),
        lambda: RandomCrops(whole, seed=0).at(row, 0),
    )
    reasons = []
    for way in ways:
        try:
            way()
        except refusal as error:
            if "\n" in str(error):
                return "tracebacks", str(error)
            reasons.append(str(error))
        except BaseException as error:
            return "tracebacks", repr(error)
    if reasons and len(reasons) < len(ways):
        return "differing", reasons[0]
    return ("refused", reasons[0]) if reasons else ("read", "")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(int(sys.argv[1]), int(sys.argv[2]), Path(folder))
    print(figures | {"seconds": round(time.monotonic() - start, 1)})
    sys.exit(any(figures[fault] for fault in FAULTS))


if __name__ == "__main__":
    _read_all() if sys.argv[1:] == ["--read"] else main()
