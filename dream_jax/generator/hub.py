"""Downloading pipelines by their name on the Hugging Face hub, at a pinned revision."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from dream_jax.errors import UserError
from dream_jax.generator.weights import STEMS, shards, weights_file

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
PATIENCE = 12  # seconds to wait until the hub has answered which files it holds
T = TypeVar("T")


def is_name(path: str) -> bool:
    """Returns whether `path` has the form owner/name."""
    return bool(NAME.fullmatch(path))


def check_revision(name: str, revision: str) -> None:
    """Checks that a revision pins the weights of `name`.

    Raises:
      UserError: it is empty, or the branch "main".
    """
    if revision in ("", "main"):
        found = "is empty" if not revision else "is the branch 'main', which moves"
        raise UserError(
            f"generator.revision {found}; {name!r} is no folder here, and as a name on the Hugging "
            f"Face hub it needs a commit or a tag, so that a run can be repeated with the same "
            f"weights"
        )


def cached(name: str, revision: str) -> Path | None:
    """Returns the folder in the hub's local cache, perhaps incomplete; None if there is none."""
    from huggingface_hub import HfApi  # not needed for a pipeline in a folder
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(HfApi().snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def download(name: str, revision: str) -> Path:
    """Downloads what a pipeline needs, with one file of weights per part, and no pickle.

    Files that are in the cache already are kept; an interrupted download is continued.

    Raises:
      UserError: the hub does not answer within `PATIENCE` seconds or refuses, the revision is a
        branch, or a part has no weights that can be read.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    where = f"generator.path: {name!r} at generator.revision {revision!r}"
    commit, files = _ask(api, name, revision, where)
    first, indices = _needed(files, where)

    def get(wanted: list[str]) -> Path:
        print(f"generator: {name} at {commit} from {api.endpoint}", flush=True)
        try:
            return Path(api.snapshot_download(name, revision=revision, allow_patterns=wanted))
        except Exception as error:  # the client raises any, of the network and of the disk
            raise UserError(f"{where}: the download broke off: {_reason(error)}") from error

    folder = get(first)
    if indices:
        pieces = [path for index in indices for path in shards(folder / index)]
        get([path.relative_to(folder).as_posix() for path in pieces])
    return folder


def _ask(api: Any, name: str, revision: str, where: str) -> tuple[str, list[PurePosixPath]]:
    """Asks the hub for the commit of a revision and its files.

    Raises:
      UserError: see `download`.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

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
    except Exception as error:  # the client raises any that the network does
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
    return info.sha, [PurePosixPath(sibling.rfilename) for sibling in info.siblings]


def _needed(files: list[PurePosixPath], where: str) -> tuple[list[str], list[str]]:
    """Returns the files to download first, and which of them are indices of further ones.

    Raises:
      UserError: a part has no weights that can be read.
    """
    first = [
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
        (indices if weights.endswith(".json") else first).append(f"{part}/{weights}")
    return first, indices


def _reason(error: Exception) -> str:
    """Returns an error's type, and its text if that is short: some hold a whole stack."""
    text, kind = str(error).strip(), type(error).__name__
    return f"{kind}: {text}" if text and len(text) < 100 and "\n" not in text else kind


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Returns or raises what `call` does.

    A time limit of the connection is not enough: it starts anew for each address of a host, and
    leaves out the time in which the name is looked up.

    Raises:
      TimeoutError: the call takes longer than `seconds`.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:
            outcome.set_exception(error)

    # A daemon, unlike the threads of an executor: it must not keep the program from ending.
    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except TimeoutError as error:
        if outcome.done():  # the call's own
            raise
        raise TimeoutError(f"no answer within {seconds} seconds") from error
