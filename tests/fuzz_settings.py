"""Random bad command lines for the launch programs; `soak.py` runs them, pytest does not.

Each must end with status 2 and one line "error: ..." within ten seconds.

python tests/fuzz_settings.py SEED COUNT
"""

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from dream_jax.checks import rule_of  # noqa: E402
from dream_jax.settings import field_types  # noqa: E402

MAIN, TUNE, ABLATE, GENERATOR = (
    f"launch/{name}.py" for name in ("main", "tune", "ablate", "train_generator")
)
QUICKSTART = "--config=configs/quickstart.py"
GLYPHS = "--config=configs/generator_glyphs.py"
SECONDS = 10
# Values that no field of their kind takes, as flags give them.
NUMBERS = ("-1", "-0.5", "nan", "inf", "-inf", "1e400", "9" * 30, "abc", "", "[1]", "None")
PATHS = ("no/such/folder", "x" * 300, "~nobody-of-that-name/x", "a\nb", "/proc/self/mem")
LISTS = ("(1,)", "('',)", "(None,)", "nope_at_all", "('a\\nb',)", "x=", "=x", "[", "((),)", "{}")
PROMPTS = ("a {", "a }", "{}", "{colour} {name}", "{name!r:>10}", "{name:>5}", "{{name}}", "", "a")
GENERATOR_FLAGS = (
    *("autoencoder.batch_size=0", "autoencoder.layers=-1", "autoencoder.norm_groups=7"),
    *("save_every=0", "world.image_size=33", "unet.heads=5", "text_encoder.heads=7"),
    *("unet.attention=(True,)", "world.id_prompts=a digit", "diffusion.steps=0"),
    *("autoencoder.steps=-3", "diffusion.batch_size=abc", "seed=-1", "world.image_size=0"),
    *("diffusion.average_decay=2.0", "diffusion.optimizer.warmup=-1", "nonsense=3"),
    *("start_from=no/such/folder", "world.others=earlier"),
    "start_from=dream_jax/miniature/weights/photos",
)
CHANGED = """
from configs import quickstart

def get_config():
    config = quickstart.get_config()
    with config.ignore_type():
        config.{} = 3
    return config
"""
FILES = {
    "returns_dict.py": "def get_config():\n    return {'name': 'x'}\n",
    "returns_none.py": "def get_config():\n    return None\n",
    "raises.py": "def get_config():\n    raise ValueError('one\\ntwo')\n",
    "syntax.py": "def get_config(:\n",
    "empty.py": "",
    "no_sections.py": "from ml_collections import ConfigDict\n"
    "def get_config():\n    return ConfigDict({'name': 'x'})\n",
    "number.py": CHANGED.format("sampling"),
    "named_3.py": CHANGED.format("name"),
}


def bad_settings(seed: int, count: int) -> list[tuple[str, list[str]]]:
    """Returns random bad invocations: a launch program, and its arguments.

    The programs run in the project's folder. Files that arguments name are written below the
    system's folder for temporary files.
    """
    rng = random.Random(seed)
    folder = Path(tempfile.gettempdir(), "dream-jax-bad-configurations", "files")
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "configs").exists() or (folder.parent / "configs").symlink_to(ROOT / "configs")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    kinds: list[Callable] = [_bad_value] * 6 + [_unfit] * 4 + [_malformed, _bad_file, _generator]
    return [rng.choice(kinds)(rng, folder) for _ in range(count)]


def _program(rng: random.Random) -> str:
    return rng.choice((MAIN, MAIN, TUNE, ABLATE))


def _bad_value(rng: random.Random, folder: Path) -> tuple[str, list[str]]:
    """A value that the rule of one field forbids."""
    fields = {name: hint for name, hint in field_types().items() if not _is_mapping(hint)}
    while True:
        name = rng.choice(list(fields))
        allowed = rule_of(fields[name]).allowed
        if "number" in allowed:
            value = rng.choice(NUMBERS)
            if value in ("", "None"):  # for lists of seeds these are a list and no list
                continue
        elif name in ("decoding.prompts", "decoding.id_prompt"):
            value = rng.choice(PROMPTS)
        elif name in ("data.ood", "data.shifted", "data.tuning", "data.auxiliary"):
            value = rng.choice(LISTS)
            if value == "{}" and "or empty" in allowed:  # a flag gives an empty list by it
                continue
        elif name in ("generator.path", "init_from", "tuning.record", "data.folder"):
            value = rng.choice(PATHS)
        elif "one of" in allowed or "True" in allowed:
            value = rng.choice(("nonsense", "3.5", "TRUE!", "-"))
        else:
            continue
        return _program(rng), [QUICKSTART, f"--config.{name}={value}"]


def _is_mapping(hint: object) -> bool:
    return "dict" in str(hint)


def _unfit(rng: random.Random, folder: Path) -> tuple[str, list[str]]:
    """Values that are allowed by themselves and do not fit others, the data or the generator."""
    flags = (
        *("decoding.steps=1000", "sampling.k=401", "sampling.keep=501", "sampling.boundary=401"),
        *("data.ood=noise,noise", "data.ood=symbols", "data.ood=digits", "data.ood=mnist"),
        *("data.shifted=nope", "data.shifted=blur,blur", "data.tuning=letters"),
        *("data.auxiliary=faces", "data.ood=a=/tmp,b=/tmp/", "data.folder=/tmp"),
        *("methods=vos,vos", "methods=magic", "methods=knn/vos", "decoding.by_name=0"),
        *("eval_batch_size=2147483647", "data.image_size=1000000", "seed=4294967296"),
        *("decoding.batch_size=2147483647", "data.ood=id=/tmp", "init_from=vos"),
        *("init_from=no/such/folder", "generator.path=/tmp", "generator.path=someone/something"),
        *("tuning.record=setup.cfg", "tuning.record=pyproject.toml"),
        "sampling.candidates=99999999",
        *("data.id=imagefolder", "data.id=letters", "decoding.id_prompt=" + "a " * 30 + "{name}"),
        *("data.ood=x=/no/such/folder", "nonsense=3", "sampling.kk=3", "data.ood.x=3"),
    )
    return MAIN, [QUICKSTART, f"--config.{rng.choice(flags)}"]


def _malformed(rng: random.Random, folder: Path) -> tuple[str, list[str]]:
    """Flags that are no flags of the program, or contradict each other."""
    flags = (
        *([], ["--config"], ["--config=no/such/file.py"], [QUICKSTART, "stray"]),
        *([QUICKSTART, "--nonsense=3"], [QUICKSTART, "--config.sampling"], ["--config=configs"]),
        *([QUICKSTART, "--process_id=1.5"], [QUICKSTART, "--config.sampling=3"]),
        *(["--config=configs/cifar10.py:middle"], ["--config=/dev/null"]),
        *([GLYPHS], ["--config=README.md"]),
    )
    return _program(rng), list(rng.choice(flags))


def _bad_file(rng: random.Random, folder: Path) -> tuple[str, list[str]]:
    """A configuration file that gives no configuration of the program."""
    return _program(rng), [f"--config={folder / rng.choice(list(FILES))}"]


def _generator(rng: random.Random, folder: Path) -> tuple[str, list[str]]:
    """A bad setting of the generator's training."""
    if rng.random() < 0.1:
        return GENERATOR, [QUICKSTART]
    return GENERATOR, [GLYPHS, f"--config.{rng.choice(GENERATOR_FLAGS)}"]


def fault(program: str, arguments: list[str], workdir: Path) -> str:
    """Runs a bad invocation; returns what is wrong with how it ends, "" if nothing."""
    begin = time.perf_counter()
    command = [sys.executable, program, *arguments, f"--workdir={workdir}"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=120
        )
    except subprocess.TimeoutExpired:
        return "still runs after 120 s"
    seconds = time.perf_counter() - begin
    lines = done.stderr.splitlines()
    if done.returncode != 2 or len(lines) != 1 or not lines[0].startswith("error: "):
        return f"status {done.returncode}, {len(lines)} lines: {done.stderr[-600:]}"
    if workdir.exists():
        return f"made {workdir}: {lines[0]}"
    return f"took {seconds:.0f} s: {lines[0]}" if seconds > SECONDS else ""


def main() -> None:
    seed, count = map(int, sys.argv[1:])
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, (program, arguments) in enumerate(bad_settings(seed, count)):
            found = fault(program, arguments, Path(folder, str(number)))
            faults += bool(found)
            print(f"{'FAULT' if found else 'ok   '} {program} {arguments} {found}", flush=True)
    print(f"seed {seed}: {count} bad settings, {faults} ended otherwise than in one line")


if __name__ == "__main__":
    main()
