"""How a row of somebody's data becomes a task: GSM8K, MATH, FlashRAG, Search-R1, plain pairs."""

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
    "qa": "question, and answer, answers or golden_answers (a text, a number, or a list of them); "
    "or prompt (messages) and reward_model (ground_truth), as Search-R1 and verl have them",
}

_QUESTIONS = ("question", "problem", "prompt")
_ANSWERS = ("answers", "golden_answers", "answer", "solution", "target")
_CALCULATION = re.compile(r"<<([^<>=]+)=([^<>=]+)>>")

#: Fields that are kept in the task's metadata where a row, or its "metadata", has them and they
#: are plain.
_KEPT = ("level", "subject", "type", "unique_id", "source", "data_source", "category", "difficulty")
#: The same, lists and objects: what a right answer rests on. ("supporting_titles" is, too.)
_KEPT_WHOLE = ("supporting_facts", "support", "path")

_PLAIN, _NESTED = (str, int, float), (list, tuple, Mapping)

#: Where Search-R1's prompt ends: the question follows.
_ASKED = "Question:"


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
    row = _unwrapped(row)
    question_field = _field(row, where, question, _QUESTIONS, "question")
    answer_field = _field(row, where, answer, _ANSWERS, "answer")
    text = row[question_field]
    if not isinstance(text, str) or not text.strip():
        raise TaskError(f"{where}: field {question_field!r}: expected a question, got {text!r:.60}")
    if format is None:
        format = _recognize(row, question_field, answer_field)
    metadata = _metadata(row, where)
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


def _unwrapped(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """``row`` with the question and the answers of Search-R1's form as fields of their own."""
    found = dict(row)
    messages, reward = row.get("prompt"), row.get("reward_model")
    if isinstance(messages, (list, tuple)) and not isinstance(row.get("question"), str):
        asked = [m.get("content") for m in messages if isinstance(m, Mapping)]
        if asked and isinstance(asked[-1], str):
            found["question"] = asked[-1].rpartition(_ASKED)[2]
    if isinstance(reward, Mapping) and not any(name in row for name in _ANSWERS):
        truth = reward.get("ground_truth")
        found["golden_answers"] = truth.get("target") if isinstance(truth, Mapping) else truth
    return found


def _metadata(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What is kept of a row beside question and answers; of FlashRAG's "metadata" not the texts."""
    inner = row.get("metadata")
    kept: dict[str, Any] = {}
    titles: Any = None
    for fields in (inner if isinstance(inner, Mapping) else {}, row):
        kept |= {name: fields[name] for name in _KEPT if isinstance(fields.get(name), _PLAIN)}
        kept |= {n: fields[n] for n in _KEPT_WHOLE if isinstance(fields.get(n), _NESTED)}
        titles = fields.get("supporting_titles") or titles
    if titles is None:
        titles = _titles(kept.get("supporting_facts"))
    if not isinstance(titles, (list, tuple)) or not all(isinstance(t, str) for t in titles):
        raise TaskError(
            f"{where}: field 'supporting_titles': expected a list of texts, got {titles!r:.60}"
        )
    return kept | ({"supporting_titles": list(titles)} if titles else {})


def _titles(facts: Any) -> list[str]:
    """The titles in HotpotQA's supporting facts, each once: pairs or columns of title, sentence."""
    if isinstance(facts, Mapping):
        titles = facts.get("title")
        titles = titles if isinstance(titles, (list, tuple)) else ()
    else:
        titles = [fact[0] for fact in facts or () if isinstance(fact, (list, tuple)) and fact]
    return list(dict.fromkeys(t for t in titles or () if isinstance(t, str)))


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
