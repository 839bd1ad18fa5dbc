"""Checks of a judge's options, which come from a command line or a configuration untyped."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ovd_envs.errors import OVDError


def check_choice(option: str, value: object, choices: Sequence[str]) -> None:
    """Raise ``OVDError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise OVDError(f"{option}: expected one of {', '.join(choices)}, got {value!r}")


def check_size(option: str, value: object) -> None:
    """Raise ``OVDError`` unless ``value`` is a whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise OVDError(f"{option}: expected a whole number of at least 1, got {value!r}")


def check_flag(option: str, value: object) -> None:
    """Raise ``OVDError`` unless ``value`` is true or false."""
    if not isinstance(value, bool):
        raise OVDError(f"{option}: expected true or false, got {value!r}")


def check_number(option: str, value: object, *, above: bool = False) -> None:
    """Raise ``OVDError`` unless ``value`` is a finite number of at least 0 (``above``: more)."""
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 <= value < math.inf
        and not (above and value == 0)
    ):
        return
    expected = "more than 0" if above else "at least 0"
    raise OVDError(f"{option}: expected a number of {expected}, got {value!r}")
