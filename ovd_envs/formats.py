"""How a row of somebody's data becomes a task: the formats of GSM8K and MATH, and plain pairs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ovd_envs.errors import TaskError
from ovd_envs.grading.extract import extract_answer
from ovd_envs.grading.number import parse_number

#: Names of the formats that ``read_record`` knows, and what they look like.
FORMATS = {
    "gsm8k": "question, answer (ends in '#### 18')",
    "math": "problem, answer and/or solution (with \\boxed{})",
    "qa": "question, answer or answers (a text, a number, or a list of them)",
}

_QUESTIONS = ("question", "problem", "prompt")
_ANSWERS = ("answers", "golden_answers", "answer", "solution", "target")
_CALCULATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")

#: Fields that are kept in the task's metadata where a row has them and they are plain.
_KEPT = ("level", "subject", "type", "unique_id", "source", "category", "difficulty")


@dataclass(frozen=True, slots=True)
class Record:
    """What was read from a row: the makings of a task."""

    id: str | None
    question: str
    answers: tuple[str, ...]
    metadata: dict[str, Any]


def read_record(
    row: Mapping[str, Any],
    where: str,
    *,
    format: str | None = None,
    question: str | None = None,
    answer: str | None = None,
) -> Record:
    """Read one row.

    Args:
        row: its fields.
        where: file and row number, for the message of an error.
        format: a key of ``FORMATS``; found from the fields where it is not given.
        question: the field that holds the question, where it has a name of its own.
        answer: the same for the gold answer.

    Raises:
        TaskError: naming ``where``, what was expected and the fields that were found.
    """
    question_field = _field(row, where, question, _QUESTIONS, "question")
    answer_field = _field(row, where, answer, _ANSWERS, "answer")
    text = row[question_field]
    if not isinstance(text, str) or not text.strip():
        raise TaskError(f"{where}: field {question_field!r}: expected a question, got {text!r:.60}")
    if format is None:
        format = _recognize(row, question_field, answer_field)
    metadata = {key: row[key] for key in _KEPT if isinstance(row.get(key), (str, int, float))}
    if format == "gsm8k":
        answers = _gsm8k(row[answer_field], f"{where}: field {answer_field!r}", metadata)
    elif format == "math":
        answers = _math(row, f"{where}: field {answer_field!r}", answer_field, metadata)
    else:
        answers = _plain(row[answer_field], f"{where}: field {answer_field!r}")
    identity = row.get("id", row.get("unique_id"))
    known = isinstance(identity, (str, int)) and not isinstance(identity, bool)
    return Record(str(identity) if known else None, text.strip(), answers, metadata)


def check_format(format: str | None) -> None:
    """Raise ``TaskError`` where ``format`` is not known."""
    if format is not None and format not in FORMATS:
        raise TaskError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")


def _field(
    row: Mapping[str, Any], where: str, given: str | None, usual: tuple[str, ...], what: str
) -> str:
    candidates = (given,) if given is not None else usual
    for name in candidates:
        if name in row:
            return name
    expected = " or ".join(repr(name) for name in candidates)
    found = ", ".join(map(str, row)) or "none"
    raise TaskError(f"{where}: no {what}: expected a field {expected}, found the fields {found}")


def _recognize(row: Mapping[str, Any], question: str, answer: str) -> str:
    if isinstance(row[answer], str) and "####" in row[answer]:
        return "gsm8k"
    if question == "problem" or (answer == "solution" and "boxed" in str(row[answer])):
        return "math"
    return "qa"


def _gsm8k(text: Any, where: str, metadata: dict[str, Any]) -> tuple[str, ...]:
    rationale, hashes, answer = str(text).rpartition("####")
    answer = answer.strip().replace(",", "")
    if not hashes or parse_number(answer) is None:
        raise TaskError(
            f"{where}: expected a text that ends in '#### ' and a number, got {text!r:.60}"
        )
    metadata["rationale"] = _CALCULATION.sub("", rationale).strip()
    steps = [(left.strip(), right.strip()) for left, right in _CALCULATION.findall(rationale)]
    # A solution is a list of equations that ends in the answer; a few rows' do not.
    if steps and parse_number(steps[-1][1]) == parse_number(answer):
        metadata["solution"] = [f"{left} = {right}" for left, right in steps]
    return (answer,)


def _math(
    row: Mapping[str, Any], where: str, field: str, metadata: dict[str, Any]
) -> tuple[str, ...]:
    solution = row.get("solution")
    if isinstance(solution, str):
        metadata["rationale"] = solution
    if field != "solution":
        return _plain(row[field], where)
    answer = extract_answer(str(solution))
    if answer is None:
        raise TaskError(f"{where}: expected a solution with \\boxed{{}}, got {solution!r:.60}")
    return (answer,)


def _plain(value: Any, where: str) -> tuple[str, ...]:
    values = value if isinstance(value, (list, tuple)) else [value]
    answers = []
    for item in values:
        if isinstance(item, bool) or not isinstance(item, (str, int, float)):
            raise TaskError(f"{where}: expected a text or a number, got {item!r:.60}")
        if str(item).strip():
            answers.append(str(item).strip())
    if not answers:
        raise TaskError(f"{where}: expected a gold answer, got {value!r:.60}")
    return tuple(answers)
