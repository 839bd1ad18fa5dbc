"""Grading of mathematical answers: exact and numeric first, then computer algebra."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from ovd_envs.errors import TaskError
from ovd_envs.grading.extract import extract_answer
from ovd_envs.grading.number import (
    parse_decimal_comma,
    parse_number,
    parse_quantity,
    parse_scaled,
)
from ovd_envs.grading.pool import Expired, shared_pool

#: Seconds that one pair may take, from the moment at which a worker process takes it up.
DEADLINE = 5.0

#: Answers with more characters than this (after extraction) are wrong without a look.
MAX_CHARACTERS = 20_000


@dataclass(frozen=True, slots=True)
class Grade:
    """The outcome of grading one answer."""

    correct: bool
    outcome: str
    """"right", "wrong", "no_answer" (none was stated), "too_long" (longer than any answer) or
    "timeout" (its time or memory was used up before it could be compared)."""
    extracted: str | None = None
    """The answer that was read, as it stood in the text."""


@dataclass(frozen=True, slots=True)
class Equality:
    """What counts as equal. The default is what mathematics says."""

    decimals: int = 6
    """Digits after the point to which decimals that stand for other numbers are compared."""
    strict: bool = True
    """Names of variables matter; an ordered tuple is not a set."""
    relations_as_sets: bool = True
    """An inequality equals the interval of its solutions, whichever of the two is the gold."""


_MATHEMATICS = Equality()


def grade_number(gold: str, answer: str) -> Grade:
    """Whether ``answer`` is the number ``gold``, written out as a number: ``37 + 58`` is not 95.

    Exact; units and currency signs after or before the number don't matter. Raises ``TaskError``
    where ``gold`` is not a number.
    """
    target = _gold_number(gold)
    if target is None:
        raise TaskError(f"gold answer {gold[:80]!r}: expected a number")
    return _grade(parse_quantity(answer) == target, answer)


def grade_math(
    gold: str, answer: str, *, deadline: float = DEADLINE, equality: Equality = _MATHEMATICS
) -> Grade:
    """Whether ``answer`` is mathematically the same as ``gold``.

    Either can be a bare answer or a text that states one (in ``\\boxed{}``, after ``####`` or
    "answer is", between dollar signs). Plain numbers are compared here and exactly; everything
    else by math-verify in a worker process that gets ``deadline`` seconds. Raises ``TaskError``
    where ``gold`` cannot be read in that time.
    """
    if answer.strip() == gold.strip():
        return Grade(True, "right", answer)
    target, value = _gold_number(gold), parse_number(answer)
    if target is None or value is None:
        gold, answer = _stated(gold), _stated(answer)
        target, value = _gold_number(gold), parse_number(answer)
    if equality == _MATHEMATICS:
        verdict = _compare_plainly(gold, target, answer, value)
        if verdict is not None:
            return _grade(verdict, answer)
        # A unit after the number, or the last of several boxes.
        last = extract_answer(answer) or answer
        if target is not None and parse_quantity(last) == target:
            return Grade(True, "right", last)
    if not answer.strip():
        return Grade(False, "no_answer")
    if len(answer) > MAX_CHARACTERS:
        return Grade(False, "too_long", answer[:MAX_CHARACTERS])
    return _compare_by_algebra(gold, answer, equality, deadline)


def grade_message(
    golds: Sequence[str], message: str, *, kind: str = "math", deadline: float = DEADLINE
) -> Grade:
    """Grade the answer that ``message`` states (see ``extract_answer``) against any of ``golds``.

    ``kind`` is "math" (``grade_math``, which may take ``deadline`` seconds) or "number"
    (``grade_number``). Raises ``TaskError`` where a gold answer cannot be read and no other one is
    right.
    """
    answer = extract_answer(message)
    if answer is None:
        return Grade(False, "no_answer")
    grade = Grade(False, "wrong", answer)
    unreadable: TaskError | None = None
    for gold in golds:
        try:
            if kind == "number":
                grade = grade_number(gold, answer)
            else:
                grade = grade_math(gold, answer, deadline=deadline)
        except TaskError as error:
            unreadable = error
            continue
        if grade.correct:
            return grade
    if unreadable is not None:
        raise unreadable
    return grade


def _grade(correct: bool, answer: str) -> Grade:
    return Grade(correct, "right" if correct else "wrong", answer)


@lru_cache(maxsize=4096)
def _gold_number(gold: str) -> Fraction | None:
    return parse_number(gold)


def _compare_by_algebra(gold: str, answer: str, equality: Equality, deadline: float) -> Grade:
    request = {"kind": "math", "gold": gold, "answer": answer, "rules": asdict(equality)}
    try:
        reply = _ask_twice(request, deadline)
    except Expired as error:
        if error.phase == "gold" or not _is_tractable(gold, deadline):
            raise TaskError(
                f"gold answer {gold[:80]!r}: cannot be read, or compared even with 0, "
                f"within {deadline:g} s"
            ) from error
        return Grade(False, "timeout", answer)
    return _grade(bool(reply.get("correct")), answer)


def _ask_twice(request: Mapping[str, Any], deadline: float) -> dict[str, Any]:
    """Ask again where the gold answer was not read: a machine may stand still for a while.

    Raises ``Expired``.
    """
    try:
        return shared_pool().ask(request, deadline=deadline)
    except Expired as error:
        if error.phase != "gold":
            raise
    return shared_pool().ask(request, deadline=deadline)


@lru_cache(maxsize=1024)
def _is_tractable(gold: str, deadline: float) -> bool:
    """Whether ``gold`` can be compared at all: otherwise it is to blame, not the answer."""
    if _gold_number(gold) is not None:
        return True
    request = {"kind": "math", "gold": gold, "answer": "0", "rules": asdict(_MATHEMATICS)}
    try:
        _ask_twice(request, deadline)
    except Expired:
        return False
    return True


#: More digits after the point than this: the number may stand for one that it only approximates.
_LONG_DECIMAL = re.compile(r"\.\d{6}")


def _compare_plainly(
    gold: str, target: Fraction | None, answer: str, value: Fraction | None
) -> bool | None:
    """The verdict where both are plain numbers; ``None`` where it takes algebra to tell."""
    if target is not None and value is not None:
        if target == value:
            return True
        return None if _LONG_DECIMAL.search(gold + " " + answer) else False
    # "5 million" is no 5 with a unit, as which algebra would take it.
    if target is not None and (scaled := parse_scaled(answer)) is not None:
        return scaled == target
    if (scaled := parse_scaled(gold)) is not None and parse_quantity(answer) == scaled:
        return True
    # A comma between digits is a decimal one where the other side is a single number.
    if target is not None and parse_decimal_comma(answer) == target:
        return True
    if value is not None and parse_decimal_comma(gold) == value:
        return True
    return None


def _stated(text: str) -> str:
    """The single answer that a longer ``text`` states; ``text`` itself where it is not that clear.

    Several boxes, or a "final answer" beside a box, are left to math-verify's reading.
    """
    boxes = text.count("boxed")
    if boxes > 1 or (boxes and re.search(r"final answer", text, re.IGNORECASE)):
        return text
    return extract_answer(text) or text
