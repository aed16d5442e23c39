"""Time to start: `--help` of every program, a run that is finished already, the imports of a stage.

    python -m benchmarks.startup
    python -m benchmarks.startup --also "launch/main.py --config=configs/quickstart.py"

Every round starts each program once in turn, next to `python -c "import jax"`; shown are the
medians of user time and of wall time, and the ratio of user times to that of importing JAX. What a
stage imports is found by making it, in a whole run at toy size (tests/toy.py); the same modules are
then imported alone, so that no computing counts. "Slowest" are the packages whose own modules take
longest, in milliseconds of wall time. The result is written to `benchmarks/results/startup.json`.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paired import RESULTS, environment, parser

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = tuple(sorted(path.name for path in (ROOT / "launch").glob("*.py")))
STEPS = ("learn", "sample", "decode", "train", "evaluate", "report")
HEAVY = (
    *("jax", "flax", "optax", "orbax", "diffusers", "transformers", "sklearn", "matplotlib"),
    *("scipy", "skimage", "pandas", "jinja2", "tensorflow", "tensorflow_datasets", "torch"),
)
JAX = 'python -c "import jax"'
# Runs a program as Python does, and writes the names of the modules that it has imported.
RECORD = """
import atexit, runpy, sys
out, sys.argv = sys.argv[1], sys.argv[2:]
atexit.register(lambda: open(out, "w").write("\\n".join(sys.modules)))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# Imports modules by name; some exist only as parts of others.
IMPORT = """
import importlib, sys
for name in open(sys.argv[1]).read().split():
    try:
        importlib.import_module(name)
    except Exception:
        pass
"""
LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)")


def run(arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess:
    """Runs Python in the project's folder; what fails ends this program with its message."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, **options
    )
    _check(done.returncode, arguments, done.stderr)
    return done


def _check(status: int, arguments: Sequence[str], message: str = "") -> None:
    """Ends this program if another one failed."""
    if status:
        sys.exit(f"{shlex.join(arguments)[:200]} ended with {status}\n{message}")


def seconds(arguments: Sequence[str]) -> tuple[float, float]:
    """Returns user time and wall time of a process of Python."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    _check(process.returncode, arguments)
    return usage.ru_utime, wall


def modules_of(arguments: Sequence[str], out: Path) -> list[str]:
    """Returns the modules that a program imports, in order; leaves them in the file `out`."""
    run(["-c", RECORD, str(out), *arguments])
    return out.read_text().split()


def heavy(modules: Iterable[str]) -> list[str]:
    """Returns which of the packages of `HEAVY` are among modules."""
    packages = {name.partition(".")[0] for name in modules}
    return [name for name in HEAVY if name in packages]


def slowest(arguments: Sequence[str], count: int = 4) -> dict[str, int]:
    """Returns the packages whose modules take longest to import, with milliseconds."""
    spent: Counter[str] = Counter()
    for line in run(["-X", "importtime", *arguments]).stderr.splitlines():
        if found := LINE.match(line):
            spent[found[2].partition(".")[0]] += int(found[1])
    return {name: round(micro / 1000) for name, micro in spent.most_common(count)}


def toy_run(folder: Path) -> tuple[list[str], dict[str, Path]]:
    """Makes a whole run at toy size, each step of it in a process of its own.

    Returns:
      The arguments that make the run, and for each step the file with the modules it imported.
    """
    from tests.toy import build_generator

    generator = build_generator(folder / "generator")
    command = [
        *("launch/main.py", "--config=tests/toy.py", f"--config.generator.path={generator}"),
        f"--workdir={folder / 'toy'}",
    ]
    files = {}
    for step in STEPS:
        print(f"imports of {step} ...", flush=True)
        files[step] = folder / f"{step}.txt"
        modules_of([*command, f"--stages={step}"], files[step])
    return command, files


def programs(folder: Path, also: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, list]]:
    """Returns what is measured, by name: arguments of Python, and the modules it imports."""
    command, files = toy_run(folder)
    measured = {'python -c "pass"': ["-c", "pass"], JAX: ["-c", "import jax"]}
    measured |= {f"{name} --help": [f"launch/{name}", "--help"] for name in PROGRAMS}
    measured["main.py, the run is finished"] = command
    measured |= {text: shlex.split(text) for text in also}
    found = {
        name: modules_of(arguments, folder / "modules.txt") if arguments[0] != "-c" else []
        for name, arguments in measured.items()
    }
    found[JAX] = ["jax"]
    for step, file in files.items():
        measured[f"imports of {step}"] = ["-c", IMPORT, str(file)]
        found[f"imports of {step}"] = file.read_text().split()
    return measured, found


def measure(folder: Path, also: Sequence[str], rounds: int) -> dict[str, Any]:
    """Returns the result that is written."""
    measured, found = programs(folder, also)
    times = np.empty((rounds, len(measured), 2))
    for row in times:
        row[:] = [seconds(arguments) for arguments in measured.values()]
    names = list(measured)
    user, wall = np.median(times, axis=0).T.tolist()
    ratios = np.median(times[..., 0] / times[:, [names.index(JAX)], 0], axis=0).tolist()
    rows = {
        name: {
            "user_seconds": user[place],
            "wall_seconds": wall[place],
            "of_importing_jax": ratios[place],
            "heavy": heavy(found[name]),
            "slowest_ms": slowest(measured[name]),
        }
        for place, name in enumerate(names)
    }
    return {"name": "startup", "rounds": rounds, "programs": rows, **environment()}


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a Markdown table of the rows."""
    lines = [
        "| Program or stage | User | Wall | User / importing JAX | Heavy packages | Slowest (ms) |",
        "|---|--:|--:|--:|---|---|",
    ]
    for name, row in rows.items():
        ms = ", ".join(f"{package} {spent}" for package, spent in row["slowest_ms"].items())
        lines.append(
            f"| `{name}` | {row['user_seconds']:.2f} s | {row['wall_seconds']:.2f} s "
            f"| {row['of_importing_jax']:.2f} | {', '.join(row['heavy']) or 'none'} | {ms} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    flags = parser(__doc__)
    flags.add_argument(
        "--also",
        action="append",
        default=[],
        help='one more program to measure, such as "launch/main.py --config=..." whose run is '
        "finished; may be given several times",
    )
    arguments = flags.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), arguments.also, arguments.rounds)
    print(table(result["programs"]))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "startup.json").write_text(json.dumps(result, indent=2) + "\n")
