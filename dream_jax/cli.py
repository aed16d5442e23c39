"""What the launch programs share: flags, the compilation cache, and errors of one line."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from dream_jax.errors import UserError

# diffusers and transformers announce at every layer that their Flax classes will be removed; the
# requirements pin the last versions that have them.
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file with get_config().")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; runs/<config.name> if not set.")


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run starts at once."""
    import jax

    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", str(home / "dream_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def main(run: Callable[[ConfigDict, Path, flags.FlagValues], None]) -> None:
    """Parses the flags and calls `run(config, workdir, flags)`; a UserError ends with status 2."""

    def guarded(argv: list[str]) -> None:
        if len(argv) > 1:
            print(f"error: unexpected argument {argv[1]!r}; settings are given as "
                  f"--config.<field>=<value>", file=sys.stderr)
            sys.exit(2)
        config = _CONFIG.value
        workdir = Path(_WORKDIR.value or Path("runs") / config.name)
        use_compilation_cache()
        try:
            run(config, workdir, flags.FLAGS)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    flags.mark_flag_as_required("config")
    app.run(guarded)
