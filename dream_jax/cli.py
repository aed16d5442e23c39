"""What the launch programs share: flags, the compilation cache, and errors of one line."""

import os
import sys
import time
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from dream_jax.console import accept_any_text
from dream_jax.errors import UserError

# diffusers and transformers announce at every layer that their Flax classes will be removed; the
# requirements pin the last versions that have them.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file with get_config().")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/<config.name> if not set.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, 'Where process 0 of several listens, host:port; "auto" lets JAX find it.'
)
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; errors of absl and ml_collections become one line."""
    try:
        _find_neighbours(argv)
        return flags.FLAGS(argv)
    except Exception as error:
        text = str(error).strip()
        if "Traceback" in text:  # of a configuration file, as ml_collections passes it on
            text = text.splitlines()[-1]
        reason = " ".join(text.split())
        if isinstance(error, KeyError | AttributeError):
            reason = f"the configuration has no field {reason}"
        print(f"error: {reason} (see --help)", file=sys.stderr)
        sys.exit(2)


def _find_neighbours(argv: list[str]) -> None:
    """Lets the file of --config import others of its folder: `from configs import base`."""
    for argument, following in pairwise([*argv, ""]):
        flag, has_value, path = argument.lstrip("-").partition("=")
        if flag == "config":
            file = Path(path if has_value else following).resolve()
            sys.path.append(str(file.parents[1]))


def _read_config() -> ConfigDict:
    """Reads the configuration of --config; ml_collections reports a missing file only here."""
    config = _CONFIG.value
    try:
        _ = config.name
    except OSError as error:
        raise UserError(f"--config: {' '.join(str(error).split())}") from error
    except AttributeError as error:
        raise UserError("config.name is missing; it must be a text") from error
    return config


def _leave(status: int) -> None:
    """Ends this process, and thereby the others, which may be waiting for it.

    An ordinary exit would first wait for them. They get a moment to print what they found.
    """
    from dream_jax.training import hosts

    sys.stdout.flush()
    sys.stderr.flush()
    if hosts.is_main():
        time.sleep(1)
    os._exit(status)


def main(run: Callable[[ConfigDict, Path], None]) -> None:
    """Parses the flags and calls `run(config, workdir)`; a UserError ends with status 2."""

    def guarded(argv: list[str]) -> None:
        logging.set_verbosity(logging.ERROR)  # Orbax logs every file that it writes
        connected = False
        try:
            if len(argv) > 1:
                raise UserError(
                    f"unexpected argument {argv[1]!r}; settings are --config.<field>=<value>"
                )
            config = _read_config()
            workdir = Path(_WORKDIR.value or Path("runs") / config.name)
            import jax  # not needed for --help

            from dream_jax.training import hosts
            from dream_jax.training.devices import use_compilation_cache, use_cores

            use_compilation_cache()
            use_cores()
            hosts.initialize(_COORDINATOR.value, _PROCESSES.value, _PROCESS_ID.value)
            connected = jax.distributed.is_initialized()
            if connected and not hosts.is_main():
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115 until the end; process 0 speaks
            run(config, workdir)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            _leave(2) if connected else sys.exit(2)
        except BaseException:
            if not connected:
                raise
            traceback.print_exc()
            _leave(1)

    accept_any_text()
    flags.mark_flag_as_required("config")
    app.run(guarded, flags_parser=_parse)
