"""What the launch programs share: flags, the compilation cache, and errors of one line."""

import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from dream_jax.errors import UserError

# diffusers and transformers announce at every layer that their Flax classes will be removed; the
# requirements pin the last versions that have them.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file with get_config().")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/<config.name> if not set.")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, 'Of several processes: host:port of process 0; "auto" lets JAX find all.'
)
_PROCESSES = flags.DEFINE_integer("processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "The number of this process, from 0.")


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run starts at once.

    JAX's own variable JAX_COMPILATION_CACHE_DIR goes first.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", str(home / "dream_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _parse(argv: list[str]) -> list[str]:
    """Flags of absl and ml_collections, whose errors of many kinds become one line."""
    try:
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


def _read_config() -> ConfigDict:
    """The configuration of --config; ml_collections reports a missing file when it is used."""
    config = _CONFIG.value
    try:
        _ = config.name
    except OSError as error:
        raise UserError(f"--config: {' '.join(str(error).split())}") from error
    except AttributeError as error:
        raise UserError("config.name is missing; it must be a text") from error
    return config


def _leave(status: int) -> None:
    """Ends the process, and with it the others, which may be waiting for it.

    An ordinary end would first wait for the others. They get a moment to say what they found.
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
        logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it writes
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
            from dream_jax.training.devices import use_cores

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

    flags.mark_flag_as_required("config")
    app.run(guarded, flags_parser=_parse)
