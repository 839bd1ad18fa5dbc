"""Grading of short answers in words: exact match, F1 and substring match, as SQuAD compares them.

The normalization and the measures are those of the evaluation scripts of SQuAD (v1.1, and v2.0
where nothing is left of an answer) and HotpotQA, and of Search-R1's ``qa_em.py``.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ovd_envs.errors import TaskError

#: Names of the two normalizations, as options of environments and commands spell them.
NORMALIZATIONS = ("squad", "mended")

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")

#: HotpotQA: where one side is one of these, only the same word gets anything.
_CLOSED = frozenset({"yes", "no", "noanswer"})

#: Letters that Unicode doesn't take apart into a letter and an accent.
_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i"}
    | {"æ": "ae", "œ": "oe", "þ": "th"}
)
#: Signs that Unicode would spell out: "Lego™" is no "Legotm".
_MARKS = str.maketrans("", "", "\u2122\u2120")

#: Accents of the Latin, Greek and Cyrillic scripts. Other scripts' marks are letters.
_ACCENTS = range(0x300, 0x370)
#: Letters that stand for apostrophes and the like: the okina of Hawaiʻi.
_APOSTROPHES = range(0x2B9, 0x2D0)

#: Marks in a row that any text needs (Unicode's stream-safe format). Sorting a longer row takes
#: quadratic time: half a minute for 200,000 of them.
_MAX_MARKS = 30


@dataclass(frozen=True, slots=True)
class QAGrade:
    """How well an answer agrees with the best of the gold answers, each from 0 to 1."""

    em: float
    """1 where the two are the same after normalization, else 0."""
    f1: float
    """Harmonic mean of precision and recall of the words."""
    substring: float
    """1 where the gold answer stands anywhere within the answer, else 0."""


def grade_qa(golds: str | Sequence[str], answer: str, *, mended: bool = False) -> QAGrade:
    """All three measures of ``answer``; see ``exact_match``, ``f1`` and ``substring_match``.

    Raises ``TaskError`` where there is no gold answer.
    """
    said = normalize_answer(answer, mended=mended)
    grades = [_compare(gold, said) for gold in _normalized(golds, mended)]
    return QAGrade(
        em=max(grade.em for grade in grades),
        f1=max(grade.f1 for grade in grades),
        substring=max(grade.substring for grade in grades),
    )


def exact_match(golds: str | Sequence[str], answer: str, *, mended: bool = False) -> bool:
    """Whether ``answer`` is one of the gold answers, after normalization.

    Raises ``TaskError`` where there is no gold answer.
    """
    return grade_qa(golds, answer, mended=mended).em == 1


def f1(golds: str | Sequence[str], answer: str, *, mended: bool = False) -> float:
    """F1 of the words of ``answer``, against the gold answer that it fits best.

    As HotpotQA counts: against "yes", "no" and "noanswer", or with one of them, only the same
    word gets anything. As SQuAD 2.0 counts: two answers of which normalization leaves nothing
    agree (1.1 gives them exact match 1 and F1 0). Raises ``TaskError`` where there is no gold
    answer.
    """
    return grade_qa(golds, answer, mended=mended).f1


def substring_match(golds: str | Sequence[str], answer: str, *, mended: bool = False) -> bool:
    """Whether a gold answer stands within ``answer``, after normalization.

    This is Search-R1's ``subem_check`` (ZeroSearch reports it as "EM"), by characters and not by
    words: "no" is found within "nobody knows", and an answer that names every candidate is always
    right. A gold answer of which SQuAD's normalization leaves nothing ("The") is found in any
    answer. As a reward it teaches to write much. Raises ``TaskError`` where there is no gold
    answer.
    """
    return grade_qa(golds, answer, mended=mended).substring == 1


def normalize_answer(text: str, *, mended: bool = False) -> str:
    """``text`` as it is compared: SQuAD's normalization, or that one with its failures mended.

    SQuAD's: lower case, without ASCII punctuation, without the articles a, an and the, words
    parted by single blanks.

    ``mended`` goes on from there: without accents (é is e, ø is o), without any other punctuation,
    dash, symbol or invisible character, full-width and other forms of a character as the usual
    one (１ is 1, ﬁ is fi). Where nothing would be left ("The", "?"), the articles are kept, or else
    the punctuation, so that "The" is neither "?" nor nothing. Answers of which SQuAD's leaves the
    same, and something, are the same here too.
    """
    squad = _without_articles(text.lower().translate(_PUNCTUATION))
    if not mended:
        return squad
    # Made of SQuAD's form wherever there is one, so that what is the same there is the same here.
    folded = _fold(squad or text)
    plain = _letters_and_digits(folded)
    return _without_articles(plain) or _spaced(plain) or _spaced(folded)


def _normalized(golds: str | Sequence[str], mended: bool) -> list[str]:
    """The gold answers that say something, normalized."""
    texts = [golds] if isinstance(golds, str) else golds
    found = [normalize_answer(text, mended=mended) for text in texts if text.strip()]
    if not found:
        raise TaskError(f"gold answers: expected at least one text, got {golds!r:.80}")
    return found


def _compare(gold: str, said: str) -> QAGrade:
    return QAGrade(em=float(gold == said), f1=_f1(gold, said), substring=float(gold in said))


def _f1(gold: str, said: str) -> float:
    if gold == said:
        return 1.0
    if gold in _CLOSED or said in _CLOSED:
        return 0.0
    expected, found = gold.split(), said.split()
    common = (Counter(expected) & Counter(found)).total()
    if not common:
        return 0.0
    precision, recall = common / len(found), common / len(expected)
    return 2 * precision * recall / (precision + recall)


def _without_articles(text: str) -> str:
    return _spaced(_ARTICLES.sub(" ", text))


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _fold(text: str) -> str:
    """``text`` in lower case, without accents, each character in its usual form."""
    kept: list[str] = []
    marks = 0
    # One character at a time: in a whole text, marks are sorted.
    for part in "".join(unicodedata.normalize("NFKD", c) for c in text.translate(_MARKS)):
        if ord(part) in _ACCENTS:
            continue
        marks = marks + 1 if unicodedata.combining(part) else 0
        if marks <= _MAX_MARKS:
            kept.append(part)
    return unicodedata.normalize("NFC", "".join(kept)).casefold().translate(_LETTERS)


def _letters_and_digits(text: str) -> str:
    """``text`` without punctuation, symbols and invisible characters; digits as 0 to 9."""
    kept: list[str] = []
    for character in text:
        category = unicodedata.category(character)
        if category == "Nd":
            kept.append(str(unicodedata.decimal(character)))
        elif character.isspace() or not (
            category[0] in "PS" or category in ("Cf", "Cc") or ord(character) in _APOSTROPHES
        ):
            kept.append(character)
    return "".join(kept)
