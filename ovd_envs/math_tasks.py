"""Arithmetic in levels, made from nothing but the index of the task."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import NamedTuple

from ovd_envs.errors import TaskError
from ovd_envs.stable import Draw, stable_hash
from ovd_envs.task import Task, TaskSource
from ovd_envs.word_problems import word_problem

#: Levels of which every task is listed, in a fixed order.
LISTED = ("addition", "subtraction", "multiplication")
#: Levels without end, each task drawn by its index.
DRAWN = ("mixed", "word-1", "word-2", "word-3")
LEVELS = LISTED + DRAWN

#: One in this many questions of a level belongs to the test.
_LISTED_SHARE, _DRAWN_SHARE = 16, 8

#: (rendered with its brackets, equations that solve it)
_Expression = tuple[str, list[str]]


class _Sum(NamedTuple):
    a: int
    b: int
    result: int


def _listed(level: str) -> list[tuple[_Sum, _Sum | None]]:
    """Every question of a listed level, with its mirror image where the order may change."""
    if level == "addition":
        pairs = [(a, b) for a in range(10, 100) for b in range(a, 100)]
        return [(_Sum(a, b, a + b), _Sum(b, a, a + b)) for a, b in pairs]
    if level == "subtraction":
        pairs = [(a, b) for a in range(11, 100) for b in range(10, a)]
        return [(_Sum(a, b, a - b), None) for a, b in pairs]
    pairs = [(a, b) for a in range(2, 100) for b in range(a, 100)]
    return [(_Sum(a, b, a * b), _Sum(b, a, a * b)) for a, b in pairs]


@cache
def _questions(level: str, split: str) -> tuple[_Sum, ...]:
    """The questions of one split in their final order.

    The unordered pair decides the split, so that 58 + 37 is never trained where 37 + 58 is asked
    in the test. Training has both orders, the test one of them.
    """
    chosen: list[_Sum] = []
    for question, mirrored in _listed(level):
        code = stable_hash(f"{level} {question.a} {question.b}")
        if (code % _LISTED_SHARE == 0) != (split == "test"):
            continue
        if mirrored is None or mirrored == question:
            chosen.append(question)
        elif split == "test":
            chosen.append(question if code // _LISTED_SHARE % 2 else mirrored)
        else:
            chosen += [question, mirrored]
    return tuple(sorted(chosen, key=lambda sum: stable_hash(f"order {sum.a} {sum.b}")))


#: Forms of "mixed": operators in the order of reading, and the brackets.
_FORMS = (
    "a + b - c",
    "a - b + c",
    "a * m + b",
    "a * m - b",
    "a + b * m",
    "a - m * n",
    "(a + b) * m",
    "(a - b) * m",
    "a + b + c - d",
    "a * m + b * n",
    "a * m + b - c",
    "(a + b) * m - c",
    "a - (b + c) + d",
    "(a - b) * (m + n)",
)


def _mixed(draw: Draw) -> _Expression:
    """An expression of two or three operations whose every intermediate value is positive."""
    while True:
        form = draw.choice(_FORMS)
        names = {name: draw.integer(10, 99) for name in "abcd"}
        names |= {name: draw.integer(2, 9) for name in "mn"}
        text = "".join(str(names.get(character, character)) for character in form)
        equations: list[str] = []
        tokens = text.replace("(", "( ").replace(")", " )").split()
        if _evaluate(tokens, equations) is not None:
            return text, equations


def _evaluate(tokens: list[str], equations: list[str]) -> int | None:
    """The value of ``tokens``, with an equation per operation; ``None`` where one is below 1."""

    def sum_() -> int:
        value = product()
        while tokens and tokens[0] in "+-":
            value = apply(value, tokens.pop(0), product())
        return value

    def product() -> int:
        value = atom()
        while tokens and tokens[0] == "*":
            value = apply(value, tokens.pop(0), atom())
        return value

    def atom() -> int:
        token = tokens.pop(0)
        if token != "(":
            return int(token)
        value = sum_()
        tokens.pop(0)  # the closing bracket
        return value

    def apply(left: int, operator: str, right: int) -> int:
        operations: dict[str, Callable[[], int]] = {
            "+": lambda: left + right,
            "-": lambda: left - right,
            "*": lambda: left * right,
        }
        result = operations[operator]()
        if result < 1:
            raise ArithmeticError
        equations.append(f"{left} {operator} {right} = {result}")
        return result

    try:
        return sum_()
    except ArithmeticError:
        return None


@lru_cache(maxsize=4096)
def _drawn(level: str, split: str, index: int) -> _Expression:
    """Question and equations of a task of an unlimited level.

    The equations decide the split, whatever names and things the story is told with.
    """
    attempt = 0
    while True:
        draw = Draw(f"{level}/{split}/{index}/{attempt}")
        if level == "mixed":
            text, equations = _mixed(draw)
            question = f"What is {text}?"
        else:
            question, equations = word_problem(draw, steps=int(level[-1]))
        code = stable_hash(f"{level} {'; '.join(equations)}")
        if (code % _DRAWN_SHARE == 0) == (split == "test"):
            return question, equations
        attempt += 1


class ArithmeticTasks(TaskSource):
    """Arithmetic of one level, with exact whole-number answers.

    "addition" (two numbers of two digits), "subtraction" and "multiplication" hold every question
    there is; "mixed" (two or three operations) and "word-1" to "word-3" (stories of as many steps,
    some with a number that does not matter) have no end. ``metadata["solution"]`` holds the
    equations that lead to the answer ("37 + 58 = 95"), in order.

    Raises ``TaskError`` for an unknown level.
    """

    grading = "number"

    def __init__(self, level: str = "addition") -> None:
        if level not in LEVELS:
            raise TaskError(f"level: expected one of {', '.join(LEVELS)}, got {level!r}")
        self.level = level
        self.name = f"math-{level}"

    def size(self, split: str) -> int | None:
        """Number of tasks in ``split``; ``None`` for the levels without end."""
        self._check(split)
        return len(_questions(self.level, split)) if self.level in LISTED else None

    def task(self, split: str, index: int) -> Task:
        """Task number ``index`` of ``split``."""
        self._check(split, index)
        metadata: dict[str, object] = {"level": self.level}
        if self.level in LISTED:
            a, b, result = _questions(self.level, split)[index]
            operator = {"addition": "+", "subtraction": "-", "multiplication": "*"}[self.level]
            question = f"What is {a} {operator} {b}?"
            metadata["operands"] = [a, b]
            equations = [f"{a} {operator} {b} = {result}"]
        else:
            question, equations = _drawn(self.level, split, index)
        metadata["solution"] = list(equations)
        answer = equations[-1].rpartition("= ")[2]
        return Task(f"{self.name}/{split}/{index}", question, (answer,), metadata)
