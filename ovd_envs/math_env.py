"""``ovd/Math-v0``: a mathematical question, one or several attempts at its answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovd_envs.env import Budget, Reply, TextEnv
from ovd_envs.errors import OVDError
from ovd_envs.grading import DEADLINE, extract_answer, grade_message
from ovd_envs.grading.number import parse_number
from ovd_envs.math_tasks import ArithmeticTasks
from ovd_envs.sources import shared_source
from ovd_envs.task import Task, TaskSource

INSTRUCTION = "Give the final answer in \\boxed{}."

#: What the student reads after a wrong attempt, by the outcome of grading.
FEEDBACK = {
    "wrong": "That is not right. Try again.",
    "timeout": "That answer could not be checked in time. Write it more simply.",
    "too_long": "That answer is too long. Write it more simply.",
    "no_answer": f"No final answer found. {INSTRUCTION}",
}


class MathEnv(TextEnv):
    """Mathematics with exactly graded answers: arithmetic levels, GSM8K, MATH, your own JSONL.

    The answer is read from the student's message alone (see ``extract_answer``); the reward is 1
    for a right one, whatever the attempt, and 0 otherwise. ``info`` tells the "outcome" ("right",
    "wrong", "no_answer", "too_long", "timeout") and the "answer" that was read.

    Args:
        level: arithmetic level (see ``ArithmeticTasks``); "addition" where nothing is given.
        source: instead of a level, a source, a JSONL file, or what ``task_source`` takes.
        attempts: how often the student may answer one question, with feedback in between.
        split: the split of the tasks to draw from.
        deadline: seconds that grading one answer may take; longer is a wrong answer ("timeout").
        budget: limits beside the attempts, a ``Budget`` or a mapping of its fields.
        render_mode: "ansi" or "human".

    Raises:
        OVDError: for a bad option, naming it.
    """

    def __init__(
        self,
        level: str | None = None,
        *,
        source: TaskSource | str | Path | Mapping[str, str | Path] | None = None,
        attempts: int = 1,
        split: str = "train",
        deadline: float = DEADLINE,
        budget: Budget | Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if type(attempts) is not int or attempts < 1:
            raise OVDError(f"attempts: expected a whole number of at least 1, got {attempts!r}")
        if level is not None and source is not None:
            raise OVDError(f"level and source: expected one of the two, got {level!r}, {source!r}")
        self.attempts = attempts
        self.deadline = deadline
        super().__init__(
            ArithmeticTasks(level or "addition") if source is None else shared_source(source),
            split=split,
            budget=Budget.beside(budget, turns=attempts, option="attempts"),
            render_mode=render_mode,
        )

    def observe(self, task: Task) -> str:
        """The question, and where to put the answer."""
        return f"{task.question} {INSTRUCTION}"

    def respond(self, action: str) -> Reply:
        """Grade the answer in ``action``; feedback (never the gold answer) between attempts."""
        outcome, answer, reward = self._grade(action)
        info = {"outcome": outcome, "answer": answer}
        if outcome == "right":
            return Reply(reward=reward, end="answered", info=info)
        if self.turn >= self.attempts:
            end = "no_answer" if outcome == "no_answer" else "answered"
            return Reply(reward=reward, end=end, info=info)
        return Reply(FEEDBACK[outcome], info=info)

    def save_state(self) -> None:
        """Nothing: an attempt leaves no trace here."""

    def load_state(self, state: None) -> None:
        """Nothing."""

    def gold_actions(self, task: Task, answer: str) -> tuple[str, ...]:
        """The gold answer in a box."""
        return (f"\\boxed{{{answer}}}",)

    def _grade(self, action: str) -> tuple[str, str | None, float]:
        """Outcome, the answer that was read, and the reward."""
        answer = extract_answer(action)
        score = self.tasks.score(self.task, answer) if answer is not None else None
        if score is not None:
            return "right" if score >= 1 else "wrong", answer, score
        grade = grade_message(self.task.answers, action, kind=self._kind(), deadline=self.deadline)
        return grade.outcome, grade.extracted, float(grade.correct)

    def _kind(self) -> str:
        """How the answer is compared; a task may come from another source than ``self.tasks``."""
        kind = self.tasks.grading or "math"
        numeric = all(parse_number(gold) is not None for gold in self.task.answers)
        return kind if kind != "number" or numeric else "math"
