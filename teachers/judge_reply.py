"""The reply that a judge model owes, and what is wrong with one that cannot be used."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from teachers.verdict import MAX_SCORE

#: Characters of a reason that are kept.
MAX_REASON = 2_000

_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_CODE = re.compile(r"\A```(?:json)?[ \t]*\n(.*)\n[ \t]*```\Z", re.DOTALL)
_SCORE = re.compile(r'"score"\s*:\s*(?=[0-9])')


class Fault(ValueError):
    """Why a reply cannot be used, in words that the model can act on."""


def told(fault: Fault, stop: str) -> str:
    """What the model is told of a reply that ended for the reason ``stop``."""
    cut = "the reply was cut off, write a shorter one: " if stop == "length" else ""
    return f"{cut}{fault}"


@dataclass(frozen=True, slots=True)
class Reply:
    """A usable reply. ``before_score`` is its raw text up to the digit of the score."""

    score: int
    reason: str
    before_score: str


def parse_reply(text: str, mark: str) -> Reply:
    """The score and reason in ``text``: one JSON object with "id", "reason" and "score".

    Strict (see ``read_object``): "score" must be a whole number from 0 to 9; nothing is guessed.
    Raises ``Fault``.
    """
    data, offset = read_object(text, mark, ("reason", "score"))
    score, reason = data["score"], data["reason"]
    if isinstance(score, bool) or not isinstance(score, int):
        raise Fault(f'"score" is {shown(score)}, expected a whole number from 0 to {MAX_SCORE}')
    if not 0 <= score <= MAX_SCORE:
        raise Fault(f'"score" is {shown(score)}, outside 0 to {MAX_SCORE}')
    if not isinstance(reason, str) or not reason.strip():
        raise Fault('"reason" is not a text')
    found = _SCORE.search(text, offset)
    before = text[: found.end()] if found else ""
    return Reply(score, " ".join(reason.split())[:MAX_REASON], before)


def read_object(text: str, mark: str, keys: Sequence[str]) -> tuple[dict[str, Any], int]:
    """The one JSON object in ``text``, with "id" and ``keys``, and where its text may begin.

    Nothing may stand around the object but a code fence or a leading block of thoughts
    (``<think>``), and "id" must be ``mark``. Raises ``Fault``.
    """
    thinking = _THINKING.match(text)
    offset = thinking.end() if thinking else 0
    body = text[offset:].strip()
    fenced = _CODE.match(body)
    if fenced:
        body = fenced.group(1).strip()
    if not body:
        raise Fault("the reply is empty")
    if not body.startswith("{"):
        raise Fault("the reply does not begin with the JSON object")
    try:
        data: dict[str, Any] = json.loads(body, object_pairs_hook=_no_key_twice)
    except Fault:
        raise
    except (ValueError, RecursionError) as error:
        told = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be read"
        if told == "Extra data":
            told = "something follows the object"
        raise Fault(f"the reply is not one JSON object ({told})") from None
    for key in ("id", *keys):
        if key not in data:
            raise Fault(f'"{key}" is missing')
    if extra := sorted(set(data) - {"id", *keys}):
        raise Fault(f"unknown key {extra[0][:40]!r}")
    if data["id"] != mark:
        raise Fault(f'"id" is {shown(data["id"])}, expected "{mark}"')
    return data, offset


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        raise Fault("a key stands twice")
    return data


def shown(value: Any) -> str:
    """``value`` as JSON of at most 40 characters, for a message."""
    try:
        text = json.dumps(value)
    except ValueError:  # an integer of thousands of digits
        text = "too large"
    return text if len(text) <= 40 else f"{text[:37]}..."
