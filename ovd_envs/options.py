"""``KEY=VALUE`` on the command line: the options of an environment, a judge, ..."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ovd_envs.errors import OVDError


def parse_options(pairs: Iterable[str], flag: str) -> dict[str, Any]:
    """Keyword arguments from ``KEY=VALUE``; a value is JSON where it reads as JSON, else text.

    ``flag`` is what the message names. Raises ``OVDError`` for a pair without key or equals sign.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key.strip() or not equals:
            raise OVDError(f"{flag}: expected KEY=VALUE, got {pair!r}")
        try:
            options[key.strip()] = json.loads(value)
        except ValueError:
            options[key.strip()] = value
    return options
