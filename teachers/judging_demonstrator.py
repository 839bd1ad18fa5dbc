"""The demonstrator ``judging``: writes the reference verdict as a judge model should reply."""

from __future__ import annotations

from collections.abc import Sequence

from agents.episode import Episode
from agents.protocol import Act
from ovd_envs.errors import OVDError
from ovd_envs.task import Task
from teachers import wordings
from teachers.demonstrators import AgentDemonstrator, equations_of, summands_of
from teachers.judging_env import reply_text

WORKINGS = ("none", "direct", "split")


class ReferenceJudge:
    """An agent of ``ovd/Judging-v0`` that replies with the reference verdict.

    A score is one digit, and too little to learn from: what leads to it must stand before it. With
    ``working`` "direct" the reason begins with the equations that solve the judged episode's task
    (its metadata, "solution"), with "split" a sum of two numbers is worked out by tens and ones;
    then comes the reason of the verdict. Tasks without equations, and "none": that reason alone.

    Raises ``OVDError`` for an unknown ``working`` and for a task of another environment.
    """

    name = "judging"

    def __init__(self, working: str = "direct") -> None:
        if working not in WORKINGS:
            raise OVDError(f"working: expected one of {', '.join(WORKINGS)}, got {working!r}")
        self.working = working

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """The reply to every episode."""
        return [Act(self.reply(episode.task)) for episode in episodes]

    def reply(self, task: Task) -> str:
        """The reference reply to ``task``."""
        known = task.metadata
        if "mark" not in known or "reason" not in known:
            raise OVDError(
                f"demonstrator 'judging': expected a task of ovd/Judging-v0, got {task.id!r}"
            )
        parts = [*self._working(task), known["reason"]]
        return reply_text(known["mark"], " ".join(parts), int(task.answers[0]))

    def _working(self, task: Task) -> list[str]:
        steps = [] if self.working == "none" else equations_of(task)
        numbers = summands_of(steps, task.metadata.get("operands"))
        if numbers is not None and self.working == "split":
            steps = [wordings.split_sum(*numbers)]
        return [f"{step}." for step in steps]


def judging_demonstrator(working: str = "direct") -> AgentDemonstrator:
    """The demonstrator "judging": see ``ReferenceJudge``."""
    return AgentDemonstrator(ReferenceJudge(working))
