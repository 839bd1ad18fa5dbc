"""A demonstrator that walks the gold path of a question: it searches each page, then answers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import ovd_envs
from agents.episode import Episode
from agents.protocol import Act
from ovd_envs.errors import OVDError, TaskError
from ovd_envs.task import Task
from ovd_envs.webqa.action import Action, Protocol
from teachers.demonstrators import AgentDemonstrator

#: How a page is searched for, mostly by its name alone: a small student learns that first.
QUERIES = ("{subject}", "{subject}", "{subject}", "{subject} {relation}")

#: Tried where a page was not found by the others.
OTHER_WORDS = "{relation} of {subject}"


class PathWalker:
    """An agent that searches the pages of ``task.metadata["path"]`` one after another.

    It reads what came back: where the page is not among the results it asks again in other words,
    and it answers once every page was shown. The wording depends on ``episode.seed``, the turn and
    the task alone.

    ``act`` raises ``TaskError`` for a task without a path or an answer.
    """

    def __init__(self, protocol: Protocol, *, name: str = "path") -> None:
        self.protocol = protocol
        self.name = name

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """The next message for every episode."""
        return [Act(self.protocol.write(self._next(episode))) for episode in episodes]

    def _next(self, episode: Episode) -> Action:
        task = episode.task
        path = task.metadata.get("path")
        steps = [step for step in path if _title(step)] if isinstance(path, list | tuple) else []
        if not steps or not task.answers:
            raise TaskError(f"task {task.id!r} has no gold path to walk, or no answer")
        seen = [turn.observation for turn in episode.turns]
        missing = [
            step
            for step in steps
            if not any(self.protocol.shows(text, _title(step)) for text in seen)
        ]
        if not missing:
            return Action("answer", task.answers[0])
        return Action("search", self._query(missing[0], episode))

    def _query(self, step: Mapping[str, Any], episode: Episode) -> str:
        relation = str(step.get("relation", "")).replace("_", " ")
        queries = [
            wording.format(subject=_title(step), relation=relation).strip()
            for wording in (*QUERIES, OTHER_WORDS)
        ]
        tried = {self.protocol.parse(turn.action).text for turn in episode.turns}
        if queries[-1] not in tried and not tried.isdisjoint(queries):
            return queries[-1]
        rng = random.Random(f"{tuple(episode.seed)}/{len(episode.turns)}/{episode.task.id}")
        return rng.choice([query for query in queries[:-1] if query not in tried] or queries)


def _title(step: Any) -> str:
    return str(step.get("title", "")) if isinstance(step, Mapping) else ""


class PathDemonstrator:
    """The demonstrator "path": a ``PathWalker`` that writes as the environment's protocol asks.

    For ``ovd/WorldQA-v0``, and any environment of its kind whose tasks bring a gold path.
    """

    name = "path"

    def demonstrate(
        self,
        env: str,
        requests: Sequence[tuple[Task, tuple[int, ...]]],
        env_options: Mapping[str, Any] | None = None,
    ) -> list[Episode]:
        """One finished episode for each (task, seed), in order. See ``Demonstrator``.

        Raises ``OVDError`` where the environment is not one in which there is something to search.
        """
        return self._in(env, env_options).demonstrate(env, requests, env_options)

    def continue_from(
        self,
        env: str,
        requests: Sequence[tuple[Episode, int]],
        env_options: Mapping[str, Any] | None = None,
    ) -> list[Episode]:
        """Search what the student's turns have not shown yet, then answer. See ``Continuing``.

        Raises ``OVDError`` as ``demonstrate`` does.
        """
        return self._in(env, env_options).continue_from(env, requests, env_options)

    def _in(self, env: str, env_options: Mapping[str, Any] | None) -> AgentDemonstrator:
        protocol = getattr(ovd_envs.make(env, **dict(env_options or {})), "protocol", None)
        if not isinstance(protocol, Protocol):
            raise OVDError(f"demonstrator 'path': {env!r} has no searches; see ovd/WorldQA-v0")
        walker = PathWalker(protocol, name=self.name)
        return AgentDemonstrator(walker)
