"""Pipelines by their name on the Hugging Face hub, at a pinned revision."""

import re
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from dream_jax.errors import UserError
from dream_jax.generator.weights import STEMS, shards, weights_file

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
PATIENCE = 12  # seconds until the hub has to have answered what it holds


def is_name(path: str) -> bool:
    """Whether `path` has the form owner/name."""
    return bool(NAME.fullmatch(path))


def check_revision(name: str, revision: str) -> None:
    """Raises UserError where no revision pins the weights of `name`."""
    if revision in ("", "main"):
        found = "is empty" if not revision else "is the branch 'main', which moves"
        raise UserError(
            f"generator.revision {found}; {name!r} is no folder here, and as a name on the Hugging "
            f"Face hub it needs a commit or a tag, so that a run can be repeated with the same "
            f"weights"
        )


def cached(name: str, revision: str) -> Path | None:
    """The folder in the hub's local cache, as far as it was downloaded; None if nothing was."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(HfApi().snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def download(name: str, revision: str) -> Path:
    """Downloads what a pipeline needs, with one file of weights per part, and no pickle.

    What is in the cache already is kept; an interrupted download goes on.

    Raises:
      UserError: the hub does not answer within `PATIENCE` seconds or refuses, the revision is a
        branch, or a part has no weights that can be read.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi()
    where = f"generator.path: {name!r} at generator.revision {revision!r}"
    try:
        info, refs = _within(
            PATIENCE, lambda: (api.model_info(name, revision=revision), api.list_repo_refs(name))
        )
    except RevisionNotFoundError as error:
        raise UserError(f"{where}: the hub has no such revision") from error
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise UserError(
            f"{where}: the hub has no such model, or shows it only to those who have accepted its "
            f"licence and logged in (hf auth login)"
        ) from error
    except Exception as error:  # of the network, of many kinds
        folders = " ".join(f"'{part}/*'" for part in PARTS)
        raise UserError(
            f"{where} is not whole in the local cache, and {api.endpoint} cannot be reached "
            f"({_reason(error)}); where it can, run: hf download {name} --revision {revision} "
            f"--local-dir FOLDER --include model_index.json {folders} --exclude '*.bin', and give "
            f"FOLDER as generator.path"
        ) from error
    if any(branch.name == revision for branch in refs.branches):
        raise UserError(
            f"{where}: this is a branch, which moves; its commit today is {info.sha}, give that"
        )
    files = [PurePosixPath(sibling.rfilename) for sibling in info.siblings]
    small = [
        str(f)
        for f in files
        if str(f) == "model_index.json"
        or (f.parent.name in PARTS and len(f.parts) == 2 and f.suffix in (".json", ".txt"))
    ]
    indices: list[str] = []
    for part in STEMS:
        held = [f.name for f in files if str(f.parent) == part]
        weights = weights_file(part, held)
        if weights is None:
            raise UserError(
                f"{where}: its part {part} has no weights as safetensors or msgpack, only: "
                f"{', '.join(held) or 'nothing'}; pickles are never loaded; another revision, such "
                f"as a commit of a branch 'flax' or 'bf16', may have them"
            )
        (indices if weights.endswith(".json") else small).append(f"{part}/{weights}")

    def get(wanted: list[str]) -> Path:
        print(f"generator: {name} at {info.sha} from {api.endpoint}", flush=True)
        try:
            return Path(api.snapshot_download(name, revision=revision, allow_patterns=wanted))
        except Exception as error:  # of the network and of the disk, of many kinds
            raise UserError(f"{where}: the download broke off: {_reason(error)}") from error

    folder = get(small)
    if indices:
        pieces = [path for index in indices for path in shards(folder / index)]
        get([path.relative_to(folder).as_posix() for path in pieces])
    return folder


def _reason(error: Exception) -> str:
    """An error's kind, with its text where that is short: those of connections are stacks."""
    text, kind = str(error).strip(), type(error).__name__
    return f"{kind}: {text}" if text and len(text) < 100 and "\n" not in text else kind


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """What `call` returns or raises; TimeoutError if that takes longer.

    A time limit of the connection does not do: it counts anew for each address of a host, and
    not at all while the name is looked up.
    """
    outcome: list = []

    def run():
        try:
            outcome.append((call(), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds} seconds")
    result, error = outcome[0]
    if error:
        raise error
    return result
