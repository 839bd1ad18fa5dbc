"""The reply that a judge model owes, and what is wrong with one that cannot be used."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from teachers.verdict import MAX_SCORE

#: Characters of a reason that are kept.
MAX_REASON = 2_000

#: Where the prompt opened the thought (DeepSeek-R1, Qwen3-Thinking) the reply only ends it.
_THINKING = re.compile(r"\A\s*(?:<think>|(?![{`\s])).*?</think>", re.DOTALL)
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
    turns: tuple[int | None, ...] | None = None
    """A score for each turn in order, where they were asked for; ``None``: it cannot tell."""


class PartialFault(Fault):
    """A reply that cannot be used as a whole; ``usable`` is what can."""

    def __init__(self, told: str, usable: Any) -> None:
        super().__init__(told)
        self.usable = usable


def parse_reply(text: str, mark: str, turns: int | None = None) -> Reply:
    """The score and reason in ``text``: one JSON object with "id", "reason" and "score".

    With ``turns``, "turns" as well: an object with a score for each number from 1 to that. Strict
    (see ``read_object``): a score must be a whole number from 0 to 9; nothing is guessed. Raises
    ``Fault``.
    """
    data, offset = read_object(text, mark, reply_keys(turns))
    reply = _read_entry(data, turns)
    found = _SCORE.search(text, offset)
    return replace(reply, before_score=text[: found.end()] if found else "")


def parse_group(text: str, mark: str, turns: Mapping[str, int | None]) -> dict[str, Reply]:
    """The reply on each episode in ``text``, by its id; ``turns`` as of ``parse_reply``, by id.

    "episodes" holds for each id an object with "reason" and "score" (and "turns"). Raises
    ``PartialFault`` with the usable ones where an id is missing, unknown or stands twice or its
    object cannot be used; ``Fault`` where the reply as a whole is none.
    """
    data, _ = read_object(text, mark, ("episodes",), twice_in="episodes")
    given = data["episodes"]
    if given is _TWICE:
        raise Fault("a key stands twice")
    if not isinstance(given, dict):
        _check_twice(given)
        raise Fault(f'"episodes" is {shown(given)}, expected an object with the ids as its keys')
    replies: dict[str, Reply] = {}
    faults = [f"there is no episode {name[:40]!r}" for name in given if name not in turns]
    for name, number in turns.items():
        try:
            if name not in given:
                raise Fault("it is missing")
            entry = given[name]
            if entry is _TWICE:
                raise Fault("it stands twice")
            _check_twice(entry)
            if not isinstance(entry, dict):
                raise Fault(f"it is {shown(entry)}, expected an object")
            _check_keys(entry, reply_keys(number))
            replies[name] = _read_entry(entry, number)
        except Fault as fault:
            faults.append(f"episode {name}: {fault}")
    if faults:
        more = f"; and {len(faults) - 4} faults more" if len(faults) > 4 else ""
        raise PartialFault("; ".join(faults[:4]) + more, replies)
    return replies


def reply_keys(turns: int | None) -> tuple[str, ...]:
    """The keys that a reply has beside its id, in the order in which they are asked for."""
    return ("reason", "score") if turns is None else ("reason", "turns", "score")


def _read_entry(data: Mapping[str, Any], turns: int | None) -> Reply:
    score, reason = data["score"], data["reason"]
    _check_score('"score"', score)
    if not isinstance(reason, str) or not reason.strip():
        raise Fault('"reason" is not a text')
    scores = None if turns is None else _read_turns(data["turns"], turns)
    return Reply(score, " ".join(reason.split())[:MAX_REASON], "", scores)


def _read_turns(given: object, turns: int) -> tuple[int | None, ...]:
    """The scores of the turns, by their numbers and never by their places."""
    if not isinstance(given, dict):
        expected = "an object with a score for each number"
        raise Fault(f'"turns" is {shown(given)}, expected {expected}')
    numbers = [str(number) for number in range(1, turns + 1)]
    if missing := [number for number in numbers if number not in given]:
        raise Fault(f'"turns": number "{missing[0]}" is missing')
    if extra := sorted(set(given) - set(numbers)):
        raise Fault(f'"turns": there is no number {extra[0][:40]!r}, expected 1 to {turns}')
    for number in numbers:
        if given[number] is not None:
            _check_score(f'"turns", number "{number}",', given[number])
    return tuple(given[number] for number in numbers)


def _check_score(what: str, score: object) -> None:
    if isinstance(score, bool) or not isinstance(score, int):
        raise Fault(f"{what} is {shown(score)}, expected a whole number from 0 to {MAX_SCORE}")
    if not 0 <= score <= MAX_SCORE:
        raise Fault(f"{what} is {shown(score)}, outside 0 to {MAX_SCORE}")


def read_object(
    text: str, mark: str, keys: Sequence[str], *, twice_in: str = ""
) -> tuple[dict[str, Any], int]:
    """The one JSON object in ``text``, with "id" and ``keys``, and where its text may begin.

    Nothing may stand around the object but a code fence or a leading block of thoughts (up to
    ``</think>``), and "id" must be ``mark``. No key may stand twice in an object, but for that
    under the key ``twice_in``: who reads it sees ``_TWICE`` there. Raises ``Fault``.
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
        data: dict[str, Any] = json.loads(body, object_pairs_hook=_marking_twice)
    except (ValueError, RecursionError) as error:
        told = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be read"
        if told == "Extra data":
            told = "something follows the object"
        raise Fault(f"the reply is not one JSON object ({told})") from None
    _check_twice({key: value for key, value in data.items() if key != twice_in})
    _check_keys(data, ("id", *keys))
    if data["id"] != mark:
        raise Fault(f'"id" is {shown(data["id"])}, expected "{mark}"')
    return data, offset


#: What a key has for a value that stands twice in its object.
_TWICE = object()


def _marking_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        data.update((key, _TWICE) for key, count in counts.items() if count > 1)
    return data


def _check_twice(value: object) -> None:
    """Raise ``Fault`` where a key stands twice, however deep."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if one is _TWICE:
            raise Fault("a key stands twice")
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else []


def _check_keys(data: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        if key not in data:
            raise Fault(f'"{key}" is missing')
    if extra := sorted(set(data) - set(keys)):
        raise Fault(f"unknown key {extra[0][:40]!r}")


def shown(value: Any) -> str:
    """``value`` as JSON of at most 40 characters, for a message."""
    try:
        text = json.dumps(value)
    except ValueError:  # an integer of thousands of digits
        text = "too large"
    return text if len(text) <= 40 else f"{text[:37]}..."
