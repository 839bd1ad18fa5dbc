"""How much a search engine finds of what questions need: their pages, and their answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovd_envs.errors import OVDError
from ovd_envs.grading.qa import normalize_answer
from ovd_envs.jsonl import read_jsonl_numbered
from ovd_envs.search.protocol import SearchEngine, SearchResult

#: Questions that are asked at a time.
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and by what its search is measured."""

    id: str
    text: str
    answers: tuple[str, ...]
    titles: tuple[str, ...]
    """Of the pages that hold the answer's support; none where that is not known."""


@dataclass(frozen=True, slots=True)
class Recall:
    """What was found for one question."""

    id: str
    titles: float | None
    """Share of the supporting titles among the results; None where they are not known."""
    answer: bool | None
    """Whether a gold answer stands in a result; None where no gold answer holds a word."""


def read_questions(path: str | Path) -> list[Question]:
    """Questions in FlashRAG's form.

    A row has "question", "golden_answers" and, where it is known, "supporting_titles" or
    HotpotQA's "metadata" ("supporting_facts", "title"). Raises ``OVDError`` naming file and row.
    """
    questions = [_question(row, f"{path}, row {n}", n) for n, row in read_jsonl_numbered(path)]
    if not questions:
        raise OVDError(f"{path}: expected a question a line, the file holds none")
    return questions


def measure_recall(
    engine: SearchEngine,
    questions: Sequence[Question],
    k: int,
    *,
    progress: Callable[[int], None] | None = None,
) -> list[Recall]:
    """Ask ``engine`` for the best ``k`` of each question, in order.

    A title is found if a result has it, upper and lower case aside; an answer, if it stands as
    whole words in the title and text of a result, both normalized as SQuAD does. ``progress`` is
    called with the number of questions so far. Raises what the engine raises.
    """
    # A passage comes up for many questions.
    normalize = functools.lru_cache(maxsize=100_000)(_words)
    found = []
    for start in range(0, len(questions), _BATCH):
        batch = questions[start : start + _BATCH]
        lists = engine.search([question.text for question in batch], k)
        for question, results in zip(batch, lists, strict=True):
            found.append(_recall(question, results[:k], normalize))
        if progress is not None:
            progress(len(found))
    return found


def _recall(
    question: Question, results: Sequence[SearchResult], normalize: Callable[[str], str]
) -> Recall:
    titles = answer = None
    if question.titles:
        wanted = {title.casefold() for title in question.titles}
        titles = len(wanted & {result.title.casefold() for result in results}) / len(wanted)
    golds = [gold for gold in map(_words, question.answers) if gold.strip()]
    if golds:
        texts = [normalize(f"{result.title}\n{result.text}") for result in results]
        answer = any(gold in text for gold in golds for text in texts)
    return Recall(question.id, titles, answer)


def _words(text: str) -> str:
    """``text`` normalized, with a space at both ends, so that whole words can be looked for."""
    return f" {normalize_answer(text)} "


def _question(row: dict[str, Any], where: str, number: int) -> Question:
    text = row.get("question")
    if not isinstance(text, str):
        found = ", ".join(row)
        raise OVDError(f"{where}: expected a text in field 'question', found the fields {found}")
    titles = row.get("supporting_titles")
    if titles is None:
        try:
            titles = row["metadata"]["supporting_facts"]["title"]
        except (KeyError, TypeError):
            titles = []
    answers = row.get("golden_answers", [])
    return Question(
        str(row.get("id", number)),
        text,
        _texts(answers, f"{where}: 'golden_answers'"),
        _texts(titles, f"{where}: 'supporting_titles'"),
    )


def _texts(value: Any, where: str) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise OVDError(f"{where}: expected a list of texts, got {value!r}")
    return tuple(dict.fromkeys(found))
