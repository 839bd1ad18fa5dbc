"""The options of an environment, a judge, an engine, ...: how they are written and checked."""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def check_options(
    what: str,
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    values: Sequence[Any] = (),
) -> None:
    """Raise ``OVDError`` naming the option that ``factory(*values, **options)`` does not take.

    ``what`` is who is asked, for the message.
    """
    try:
        signature = inspect.signature(factory)
    except ValueError:  # a class in C may have none: it says itself what it does not take
        return
    try:
        signature.bind(*values, **options)
    except TypeError as error:
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        known = [p.name for p in signature.parameters.values() if p.kind in named]
        unknown = sorted(set(options) - set(known))
        if not unknown:
            raise OVDError(f"{what}: {error}") from error
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}"
        raise OVDError(f"{what}: no option {unknown[0]!r}; {hint}") from error
