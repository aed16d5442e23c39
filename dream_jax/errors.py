"""The errors that end a run with one line instead of a traceback."""


class UserError(Exception):
    """Bad input from outside: a setting, a file, a folder, data on which a training diverges.

    The message is one line that names the setting or file, what was found and what is allowed.
    `launch` prints it and exits with status 2; a caller of the library can catch it.
    """


class DataUnavailable(UserError):
    """A data set is not on this machine. An optional OOD set is then skipped with the message."""
