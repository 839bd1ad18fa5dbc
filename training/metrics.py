"""What is logged of the groups of a step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from training.algorithms import useful_demonstrations
from training.groups import Group
from training.protocol import Algorithm
from training.rows import Row


def group_metrics(
    algorithm: Algorithm, groups: Sequence[Group], rows: Sequence[Row]
) -> dict[str, Any]:
    """What is logged of a step before the update."""
    students = [judged for group in groups for judged in group.student]
    verdicts = [judged.verdict for judged in students if judged.verdict is not None]
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    theta = getattr(algorithm, "theta", None)
    teachers = [episode for group in groups for episode in group.teacher.values()]
    broken = sum(episode.error is not None for episode in teachers)
    useful = sum(len(useful_demonstrations(group)) for group in groups)
    moved = {row.group for row in rows if any(row.advantages)}
    return {
        "reward": _mean([j.episode.reward for j in students if j.episode.error is None]),
        "alpha": _mean([float(s >= theta) for s in scores]) if theta is not None else None,
        "score": _mean(scores),
        "student_episodes": len(students),
        "teacher_episodes": len(teachers),
        "kept_turns": sum(episode.kept for episode in teachers),
        "rows": len(rows),
        "row_weight": sum(row.weight for row in rows),
        "groups_without_advantage": len(groups) - len(moved),
        "episode_errors": sum(judged.episode.error is not None for judged in students),
        # An episode that ended in an error has no score either, and no judge is to blame.
        "judge_errors": sum(
            judged.verdict is not None and judged.verdict.failed
            for judged in students
            if judged.episode.error is None
        ),
        "demonstrator_errors": broken,
        "demonstrations_not_better": len(teachers) - broken - useful,
        "sampled_tokens": sum(judged.episode.num_sampled_tokens for judged in students),
        "truncated": sum(
            judged.episode.turns[-1].stop == "length" for judged in students if judged.episode.turns
        ),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return math.fsum(numbers) / len(numbers) if numbers else None
