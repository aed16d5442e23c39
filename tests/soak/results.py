"""What a run has left in its folder, so that two runs can be compared byte for byte.

Left out is what differs between any two runs: seconds and memory in records and on the page, the
speed of trainings with TensorBoard's files, which hold it, and the files of checkpoints, which
Orbax names at random. Checkpoints are compared by what is computed from them: features, judgements
and scores. Which process has decoded an image, and so the part that holds it, depends on how far
each was when they were killed: images are compared, whatever their part.
"""

import hashlib
import json
import re
from collections import defaultdict
from pathlib import Path

CHECKPOINTS = "checkpoints"
MEASURED_FILES = ("speed.csv", "tensorboard", "wandb")  # of a training
PART = re.compile(r"\bpart-\d+/")  # of a kind's images, one for each process
MEASURED = re.compile(rb"<td>(\d+ h )?(\d+ min )?[\d.,]+ (s|min|h|MB|GB)")


def read(workdir: Path) -> dict[str, str]:
    """Returns a digest of every file's lasting content, by its path relative to the folder."""
    found, lists = {}, defaultdict(list)
    for path in sorted(workdir.rglob("*")):
        name = path.relative_to(workdir).as_posix()
        left_out = {CHECKPOINTS, *MEASURED_FILES} & set(Path(name).parts)
        if left_out or path.name.startswith(".lock"):
            continue
        name = PART.sub("", name)
        if path.name == "metadata.jsonl":
            lists[name] += path.read_bytes().splitlines()
        elif path.is_file():
            found[name] = hashlib.sha256(_lasting(path)).hexdigest()
        elif not any(path.iterdir()):
            found[name] = "an empty folder"
    for name, lines in lists.items():
        found[name] = hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()
    return found


def _lasting(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name == "index.html":
        return MEASURED.sub(b"<td>", content)
    if path.name != "stage.json":
        return content
    try:
        record = json.loads(content)
        files = sorted({PART.sub("", name) for name in record["files"] if CHECKPOINTS not in name})
        kept = record["stage"], record["done"], record["settings"], files
    except (ValueError, KeyError, TypeError):
        return content  # damaged
    return json.dumps(kept).encode()


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Returns what is missing, different and left over, one short text for each file."""
    missing = [f"{name} is missing" for name in expected if name not in found]
    more = [f"{name} is left over" for name in found if name not in expected]
    others = [f"{name} differs" for name in found if found[name] != expected.get(name, found[name])]
    return others + missing + more


def stages(workdir: Path) -> dict[str, float]:
    """Returns the stages of a finished run, and the seconds of each."""
    records = [json.loads(path.read_bytes()) for path in workdir.rglob("stage.json")]
    return {record["stage"]: record["seconds"] for record in records}
