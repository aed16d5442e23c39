"""What the environment says to JAX, checked before it is used; and the compilation cache."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from dream_jax.errors import UserError

_DEVICES = ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")


def prepare() -> None:
    """Sets JAX up; to be called before it makes its first array.

    Raises:
      UserError: a variable of the environment cannot be used.
    """
    _check_xla_flags()
    try:
        import jax  # noqa: F401 reads its variables

        from dream_jax.training.devices import use_cores
    except ValueError as error:
        raise UserError(f"{_culprit(error)} cannot be used: {error}") from error
    use_compilation_cache()
    use_cores()


def _culprit(error: Exception) -> str:
    """Returns the JAX variables that an error is about, or all where it does not say."""
    own = [name for name in os.environ if name.startswith("JAX_")]
    named = [n for n in own if (os.environ[n] and os.environ[n] in str(error)) or n in str(error)]
    about = [name for name in own if name.lower() in str(error)]
    return f"{', '.join(about or named or own)} of the environment"


def _check_xla_flags() -> None:
    """Raises UserError for flags that XLA would end this process for; tried in another one."""
    value = os.environ.get("XLA_FLAGS")
    if not value:
        return
    # The client for the CPU alone: it reads the same flags, and is there in a moment.
    code = "from jaxlib import xla_client; xla_client.make_cpu_client()"
    tried = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        found = [line for line in tried.stderr.splitlines() if "flag" in line.lower()]
        reason = found[0].rpartition("] ")[2] if found else f"XLA ends with {tried.returncode}"
        raise UserError(f"XLA_FLAGS is {value!r}; {reason}")


def check_devices(reserve: bool = True) -> None:
    """Finds the devices.

    Args:
      reserve: whether this process may reserve most memory of GPUs, as JAX does at first use; False
        where others will compute on them.

    Raises:
      UserError: there are none of the kind that the environment asks for.
    """
    import jax

    try:
        with nullcontext() if reserve else _variable("XLA_PYTHON_CLIENT_PREALLOCATE", "false"):
            jax.local_devices()
    except Exception as error:  # RuntimeError or, where JAX has no such device, AssertionError
        asked = {name: os.environ.get(name, "not set") for name in _DEVICES}
        reason = " ".join(str(error).split())[:200] or "JAX finds no such device"
        given = ", ".join(f"{name} is {value}" for name, value in asked.items())
        raise UserError(f"{given}; {reason}") from error


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Sets a variable of the environment while a block runs, which other processes do not get."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run starts at once.

    JAX's own variable JAX_COMPILATION_CACHE_DIR goes first. Where the folder cannot be written
    into, says so and keeps nothing.
    """
    import jax

    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    folder = "the user's cache folder"
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = given or str(Path(home, "dream_jax", "xla"))
        if "://" not in folder:  # a bucket, which JAX writes into by itself
            Path(folder).mkdir(parents=True, exist_ok=True)
            probe = Path(folder, f".probe-{os.getpid()}")
            probe.touch()
            probe.unlink()
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        reason = getattr(error, "strerror", None) or error
        print(f"compiled programs are not kept: {folder}: {reason}", file=sys.stderr)
        jax.config.update("jax_enable_compilation_cache", False)
        return
    if given is None:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
