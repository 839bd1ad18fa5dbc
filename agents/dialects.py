"""The dialects by name."""

from __future__ import annotations

from typing import Any

from agents.chat_dialect import ChatDialect, NoThinkingDialect
from agents.dialect import Dialect
from agents.inline_dialect import InlineDialect
from ovd_envs.errors import OVDError

DIALECTS: dict[str, type[ChatDialect | InlineDialect]] = {
    dialect.name: dialect for dialect in (ChatDialect, NoThinkingDialect, InlineDialect)
}


def make_dialect(name: str, tokenizer: Any) -> Dialect:
    """The dialect ``name`` for ``tokenizer``.

    Raises ``OVDError`` for an unknown name and ``DialectError`` where the tokenizer cannot be used.
    """
    if name not in DIALECTS:
        raise OVDError(f"dialect: expected one of {', '.join(DIALECTS)}, got {name!r}")
    return DIALECTS[name](tokenizer)
