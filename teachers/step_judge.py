"""A judge for mathematics: checks the episode's own equations and its answer, without a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from agents.episode import Episode
from ovd_envs.errors import OVDError
from ovd_envs.grading import Grade, extract_answer, grade_message
from ovd_envs.task import Task
from teachers.equations import Equation, equations
from teachers.score_level import ScoreLevel, check_score_level
from teachers.verdict import MAX_SCORE, Verdict

#: Characters of an episode that are read. What is longer is scored below every acceptance.
MAX_CHARACTERS = 100_000

#: A turn whose working is right, with no answer yet.
_SOUND = 7

_OUTCOMES = ("right", "wrong", "no_answer", "timeout", "too_long")

#: Grades a message against gold answers; by default ``ovd_envs.grading.grade_message``.
Grader = Callable[[Sequence[str], str], Grade]


class StepJudge:
    """Scores the working and the answer of a mathematical episode.

    - 9: the answer is right and so is every equation; 8: right, without any equation.
    - 6 or 5: the answer is right, but one equation is wrong, or more are.
    - 0 to 4: the answer is wrong, by the share of equations that are right before the first
      wrong one; at most 3 without any answer. An answer that could not be compared in time is
      scored like a wrong one, and the reason tells.

    Only the acting model's own turns are read; the answer is that of the last turn. Equations
    that cannot be checked exactly (variables, percentages, mixed units) are passed over.
    ``grade`` compares the last message with the gold answers; by default the outcome of
    ``ovd/Math-v0`` is taken where the episode has it, and ``grade_message`` decides elsewhere. A
    gold answer that cannot be graded is an error verdict.

    ``score_level`` "turn" scores each turn too (``Verdict.turns``): as an episode of that turn
    alone; a turn before the last without an answer 7 where all its equations are right, and
    ``None`` where it has none to check. So below 7 is a turn with something wrong in it.

    Raises ``OVDError`` for another ``score_level``.
    """

    name = "steps"
    show_gold = True

    def __init__(self, grade: Grader | None = None, *, score_level: ScoreLevel = "episode") -> None:
        self._grade = grade
        self.score_level = check_score_level(score_level)
        #: Empty (not cached) with a grader of one's own: it has no name to cache under.
        self.fingerprint = f"steps/2/{score_level}" if grade is None else ""

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode."""
        return [self._verdict(episode) for episode in episodes]

    def _verdict(self, episode: Episode) -> Verdict:
        started = time.perf_counter()
        task = episode.task
        if not task.answers:
            return self._error(episode, f"task {task.id!r} has no gold answer")
        steps, complete = read_steps(episode)
        try:
            grade = (_recorded(episode) if self._grade is None else None) or self._graded(
                task, episode.answer
            )
            turns = self._turns(episode, grade) if self.score_level == "turn" else None
        except OVDError as error:
            return self._error(episode, str(error))
        score, reason = verdict_on(steps, grade, complete=complete)
        seconds = time.perf_counter() - started
        return Verdict(episode.id, self.name, score, reason, seconds=seconds, turns=turns)

    def _graded(self, task: Task, message: str) -> Grade:
        if self._grade is not None:
            return self._grade(task.answers, message)
        return grade_message(task.answers, message, kind=_kind(task))

    def _turns(self, episode: Episode, last: Grade) -> tuple[float | None, ...]:
        """The score of each turn; ``last`` is the grade of the last."""
        scores: list[float | None] = []
        left = MAX_CHARACTERS
        for turn in episode.turns:
            left -= len(turn.action)
            if left < 0:  # not read to its end
                scores.append(None)
                continue
            steps = [("", equation) for equation in equations(turn.action)]
            final = len(scores) == len(episode.turns) - 1
            grade = last if final else self._graded(episode.task, turn.action)
            if grade.outcome != "no_answer" or final or not all(e.correct for _, e in steps):
                scores.append(verdict_on(steps, grade)[0])
            else:
                scores.append(_SOUND if steps else None)
        return tuple(scores)

    def _error(self, episode: Episode, error: str) -> Verdict:
        return Verdict(episode.id, self.name, None, error=" ".join(error.split()))


def _recorded(episode: Episode) -> Grade | None:
    """The grade that the environment kept, if it is of the answer in the last message.

    Some task sources score answers in ways of their own, and a hard comparison takes seconds.
    """
    outcome, answer = episode.info.get("outcome"), episode.info.get("answer")
    if outcome not in _OUTCOMES or answer != extract_answer(episode.answer):
        return None
    return Grade(outcome == "right", outcome, answer)


def _kind(task: Task) -> str:
    # Where the task is to compute a number, "37 + 58" is the question and not the answer.
    return "number" if isinstance(task.metadata.get("solution"), list | tuple) else "math"


#: An equation and where it stands: "step 2", or "turn 1, step 2" where there are several turns.
Step = tuple[str, Equation]


def read_steps(episode: Episode) -> tuple[list[Step], bool]:
    """The checkable equations of the episode's own turns, and whether everything was read."""
    steps: list[Step] = []
    left = MAX_CHARACTERS
    complete = True
    several = len(episode.turns) > 1
    for number, turn in enumerate(episode.turns, start=1):
        text = turn.action
        if len(text) > left:
            text, complete = text[:left], False
        left -= len(text)
        for position, equation in enumerate(equations(text), start=1):
            place = f"turn {number}, step {position}" if several else f"step {position}"
            steps.append((place, equation))
    return steps, complete


def verdict_on(steps: Sequence[Step], grade: Grade, *, complete: bool = True) -> tuple[float, str]:
    """Score (0 to 9) and reason for checked steps and a graded answer. See ``StepJudge``."""
    wrong = [step for step in steps if not step[1].correct]
    complaint = _complaint(wrong)
    shown = _short(grade.extracted)
    if grade.correct:
        if wrong:
            score, reason = max(7 - len(wrong), 5), f"The answer {shown} is right, but {complaint}."
        elif steps:
            count = "equation is" if len(steps) == 1 else f"{len(steps)} equations are"
            first = "The" if len(steps) == 1 else "All"
            score, reason = MAX_SCORE, f"{first} {count} right, and so is the answer {shown}."
        else:
            score, reason = 8, f"The answer {shown} is right; there is no working to check."
        if not complete:
            score = min(score, 6)
            reason += f" Only the first {MAX_CHARACTERS:,} characters were read."
        return score, reason
    sound = next((i for i, step in enumerate(steps) if not step[1].correct), len(steps))
    score = 4 * sound // len(steps) if steps else 0
    if grade.outcome == "no_answer":
        score, told = min(score, 3), "There is no final answer"
    elif grade.outcome == "timeout":
        told = f"The answer {shown} could not be compared in time"
    elif grade.outcome == "too_long":
        told = f"The answer {shown} is too long to compare"
    else:
        told = f"The answer {shown} is wrong"
    if wrong:
        return score, f"{told}; {complaint}."
    if steps:
        count = "the one equation is" if len(steps) == 1 else f"all {len(steps)} equations are"
        return score, f"{told}, though {count} right."
    return score, f"{told}, and there is no working to check."


def _complaint(wrong: Sequence[Step]) -> str:
    if not wrong:
        return ""
    told = "; ".join(f"{place}: {equation.complaint}" for place, equation in wrong[:3])
    more = len(wrong) - 3
    return f"{told}; and {more} more" if more > 0 else told


def _short(answer: str | None) -> str:
    text = " ".join((answer or "").split())
    return text if len(text) <= 60 else f"{text[:57]}..."
