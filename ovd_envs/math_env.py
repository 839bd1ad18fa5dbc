"""``ovd/Math-v0``: a mathematical question, one or several attempts at its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ovd_envs.env import Budget, Reply, TextEnv
from ovd_envs.errors import OVDError
from ovd_envs.grading import grade_message
from ovd_envs.math_tasks import ArithmeticTasks
from ovd_envs.task import Task, TaskSource

INSTRUCTION = "Give the final answer in \\boxed{}."

#: What the student reads after a wrong attempt, by the outcome of grading.
FEEDBACK = {
    "wrong": "That is not right. Try again.",
    "timeout": "That answer could not be checked in time. Write it more simply.",
    "no_answer": f"No final answer found. {INSTRUCTION}",
}


class MathEnv(TextEnv):
    """Mathematics with exactly graded answers: arithmetic levels, GSM8K, MATH, your own JSONL."""

    def __init__(
        self,
        level: str = "addition",
        *,
        source: TaskSource | str | None = None,
        attempts: int = 1,
        split: str = "train",
        budget: Budget | Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        if not isinstance(attempts, int) or attempts < 1:
            raise OVDError(f"attempts: expected a whole number of at least 1, got {attempts!r}")
        tasks = source if isinstance(source, TaskSource) else ArithmeticTasks(level)
        self.attempts = attempts
        super().__init__(
            tasks,
            split=split,
            budget=Budget.of(budget, turns=attempts),
            render_mode=render_mode,
        )

    def observe(self, task: Task) -> str:
        """The question, and where to put the answer."""
        return f"{task.question} {INSTRUCTION}"

    def respond(self, action: str) -> Reply:
        """Grade the answer in ``action``; feedback (never the gold answer) while attempts remain."""
        grade = grade_message(self.task.answers, action, kind=self.tasks.grading or "math")
        info = {"outcome": grade.outcome, "answer": grade.extracted}
        if grade.correct:
            return Reply(reward=1.0, end="answered", info=info)
        if self.turn >= self.attempts:
            return Reply(end="no_answer" if grade.extracted is None else "answered", info=info)
        return Reply(FEEDBACK[grade.outcome], info=info)

    def gold_actions(self, task: Task, answer: str) -> tuple[str, ...]:
        """The gold answer in a box."""
        return (f"\\boxed{{{answer}}}",)
