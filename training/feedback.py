"""A student that is told, at inference, what a teacher thinks of its answer, and tries again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium

from agents.episode import Episode
from agents.protocol import Agent
from agents.rollout import Mode, Workers, run_seeded
from ovd_envs.errors import OVDError
from ovd_envs.registry import make
from ovd_envs.task import Task
from teachers.protocol import Judge
from teachers.registry import judges, make_judge
from teachers.score import score
from teachers.verdict import Verdict
from training.evaluation import compare, summarize

#: What stands after the first observation of another attempt.
REMARK = "\n\nA teacher read your last attempt at this and was not satisfied{reason}\nTry again."


@dataclass(frozen=True, slots=True)
class Feedback:
    """Who reads the student's episodes, and what follows from it.

    Below ``theta`` the student tries again, up to ``attempts`` times; ``with_reason`` puts the
    judge's reason in its context, otherwise it is only sampled again. Unless ``gold_aware``, the
    judge reads episodes from which the gold answers, the reward and the environment's info are
    gone.
    """

    judge: Judge
    theta: float = 5.0
    attempts: int = 1
    with_reason: bool = True
    gold_aware: bool = False


def feedback_judge(name: str, options: Mapping[str, Any], *, gold_aware: bool) -> Judge:
    """The judge ``name``; one that can be made blind to gold answers is, unless ``gold_aware``.

    Raises ``OVDError`` where it reads gold answers and ``gold_aware`` is not said, or where it
    does not say whether it does.
    """
    given = dict(options)
    if not gold_aware and given.get("show_gold", False) is not False:
        raise OVDError(
            f"judge {name!r}: show_gold={given['show_gold']} lets the teacher's feedback tell the "
            "answer (expected show_gold=false, or --gold-aware)"
        )
    if not gold_aware and "show_gold" in inspect.signature(judges.get(name)).parameters:
        given["show_gold"] = False
    judge = make_judge(name, **given)
    if not gold_aware and getattr(judge, "show_gold", True):
        raise OVDError(
            f"judge {name!r}: reads the gold answers, and its feedback could tell them (expected a "
            "judge that is blind to them, e.g. llm, or --gold-aware)"
        )
    return judge


def blind(episode: Episode) -> Episode:
    """``episode`` without all that tells the answer: gold, metadata, rewards, info."""
    return replace(
        episode,
        task=Task(episode.task.id, episode.task.question, ()),
        turns=[replace(turn, reward=0.0) for turn in episode.turns],
        reward=0.0,
        info={},
    )


def try_again(
    agent: Agent,
    env: str,
    first: Sequence[Episode],
    feedback: Feedback,
    *,
    seed: int = 0,
    env_options: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    mode: Mode | None = None,
    workers: Workers = "threads",
    progress: Callable[[Episode], None] | None = None,
) -> tuple[dict[str, Any], list[Episode]]:
    """What the student says with a teacher beside it: the numbers, and an episode of each task.

    ``first`` are the episodes of the student alone, one of each task. Of a task that was tried
    more often the episode with the highest score counts, the earliest where equal. Where the judge
    fails, the student is not told anything, and does not try again. The numbers are those of
    ``summarize``, "tokens" of all attempts together, "alone" compared with (``compare``), and what
    it took: "judge_calls", "judge_errors", "retries" (episodes) and "retried" (tasks).

    Raises ``OVDError`` where a task comes twice.
    """
    if len({episode.task.id for episode in first}) != len(first):
        raise OVDError("teacher feedback: expected one episode of each task")
    tried: list[list[tuple[Episode, Verdict]]] = [
        [(episode, verdict)] for episode, verdict in zip(first, _read(feedback, first), strict=True)
    ]
    for attempt in range(1, feedback.attempts + 1):
        again = [place for place, tries in enumerate(tried) if _below(tries[-1][1], feedback.theta)]
        if not again:
            break
        remarks = {
            first[place].task.id: _remark(tried[place][-1][1])
            for place in again
            if feedback.with_reason
        }
        episodes = run_seeded(
            agent,
            partial(_make_remarked, env, dict(env_options or {}), remarks),
            [(first[place].task, (seed, attempt, place, 0)) for place in again],
            batch_size=batch_size,
            mode=mode,
            workers=workers,
            progress=progress,
        )
        for episode in episodes:
            episode.env = env
        verdicts = _read(feedback, episodes)
        for place, episode, verdict in zip(again, episodes, verdicts, strict=True):
            tried[place].append((episode, verdict))
    chosen = [max(tries, key=_worth)[0] for tries in tried]
    everything = [one for tries in tried for one in tries]
    result = {
        "judge": feedback.judge.name,
        "theta_test": feedback.theta,
        "attempts": feedback.attempts,
        "with_reason": feedback.with_reason,
        "gold_aware": feedback.gold_aware,
        **summarize(chosen),
        "tokens": sum(episode.num_sampled_tokens for episode, _ in everything),
        "judge_calls": sum(episode.error is None for episode, _ in everything),
        "judge_errors": sum(v.failed for episode, v in everything if episode.error is None),
        "retried": sum(len(tries) > 1 for tries in tried),
        "retries": len(everything) - len(first),
        "alone": compare(first, chosen),
    }
    return result, chosen


def _read(feedback: Feedback, episodes: Sequence[Episode]) -> list[Verdict]:
    shown = list(episodes) if feedback.gold_aware else [blind(episode) for episode in episodes]
    return score(feedback.judge, shown)


def _below(verdict: Verdict, theta: float) -> bool:
    """Whether the student is to try again; a judge that failed said neither yes nor no."""
    return not verdict.failed and not verdict.accepted(theta)


def _worth(attempt: tuple[Episode, Verdict]) -> float:
    score = attempt[1].score
    return -1.0 if score is None else score


def _remark(verdict: Verdict) -> str:
    reason = " ".join(verdict.reason.split())
    return REMARK.format(reason=f": {reason}" if reason else ".")


class Remarked(gymnasium.Wrapper[str, str, str, str]):
    """An environment whose first observation ends with a remark, by task."""

    def __init__(self, env: gymnasium.Env[str, str], remarks: Mapping[str, str]) -> None:
        super().__init__(env)
        self._remarks = remarks

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """The observation of the environment, and what is remarked on its task."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation + self._remarks.get(info["task"], ""), info


def _make_remarked(
    env: str, options: Mapping[str, Any], remarks: Mapping[str, str]
) -> gymnasium.Env[str, str]:
    return Remarked(make(env, **options), remarks)
