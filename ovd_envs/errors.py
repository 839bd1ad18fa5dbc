"""Errors that a person can mend.

The command line prints the message of an ``OVDError`` as one line on stderr and exits with
code 2; every other exception is a bug and keeps its traceback.
"""


class OVDError(Exception):
    """Bad input: the message names the file, row or option, what was expected and what came."""


class TaskError(OVDError):
    """A task that cannot be made, found or graded."""


class RegistrationError(OVDError):
    """A name that is not registered, or whose registration failed."""
