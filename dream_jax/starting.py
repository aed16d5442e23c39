"""How a program starts: its output, its flags, and JAX."""

from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from dream_jax import ending, huge_pages
from dream_jax.console import accept_any_text
from dream_jax.errors import UserError
from dream_jax.flag_values import last_of_each


def parse(argv: list[str]) -> list[str]:
    """Parses the flags; errors of absl and ml_collections become one line."""
    try:
        # Orbax logs every file that it writes, and the errors that it raises as well.
        logging.set_verbosity(logging.FATAL)
        return flags.FLAGS(last_of_each(argv))
    except SystemExit as shown:  # of --help, which absl ends with 1
        raise SystemExit(0) from shown
    except (UserError, BrokenPipeError):  # of --help
        raise
    except Exception as error:
        raise UserError(f"{reason_of(error)} (see --help)") from error


def reason_of(error: Exception) -> str:
    """Returns in one line what is wrong with a flag, by the error of absl or ml_collections."""
    reason = " ".join(str(error.args[0] if error.args else error).split())
    is_missing = isinstance(error, KeyError | AttributeError)
    return f"the configuration has no field {reason}" if is_missing else reason


def start(main: Callable[[list[str]], Any]) -> None:
    """Parses the flags and calls `main(argv)`; see `ending.run` for how it ends."""
    accept_any_text()

    def parsed(argv: list[str]) -> Any:
        huge_pages.use()
        return main(argv)

    ending.run(lambda: app.run(parsed, flags_parser=parse))


def main(run: Callable[[Sequence[str]], Any]) -> None:
    """Starts a program that has no configuration: makes JAX ready and calls `run(arguments)`.

    Args:
      run: is given the arguments that are no flags.
    """

    def prepared(argv: list[str]) -> None:
        from dream_jax import environment  # JAX is not needed for --help

        environment.prepare()
        environment.check_devices()
        run(argv[1:])

    start(prepared)


def no_arguments(arguments: Sequence[str]) -> None:
    """Raises UserError if a program that takes flags alone is given more."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; see --help for the flags")
