"""Episodes, groups and rows made by hand, with tokens few enough to count."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from agents.chat_dialect import ChatDialect
from agents.episode import Episode, Segment, Turn
from ovd_envs.task import Task
from teachers.verdict import Verdict
from tests.tiny import tiny_model, tiny_tokenizer
from training.groups import Group, Judged
from training.packing import batches, collate, pack_rows
from training.rows import Row

CPU = torch.device("cpu")


@cache
def dialect() -> ChatDialect:
    return ChatDialect(tiny_tokenizer())


@cache
def model() -> Any:
    """A tiny model for reading: who trains it takes ``tiny_model()`` instead."""
    return tiny_model().requires_grad_(False)


def task(number: int = 0) -> Task:
    return Task(f"t/train/{number}", f"What is 1 + {number}?", (str(1 + number),))


def student(
    reward: float = 0.0,
    reply: Sequence[int] = (5, 6, 257),
    *,
    index: int = 0,
    group: int = 0,
    prompt: Sequence[int] = (256, 1, 2, 3),
    error: str | None = None,
) -> Episode:
    """A student's episode: a prompt that it read and a reply that it sampled."""
    segment = Segment()
    segment.extend_given(prompt)
    segment.extend_sampled(reply, [-0.5 - 0.01 * i for i in range(len(reply))])
    return Episode(
        task=task(group),
        env="ovd/Math-v0",
        agent="student",
        observation="q",
        turns=[Turn("".join(map(chr, reply)), reward=reward)],
        segments=[segment],
        reward=reward,
        terminated=error is None,
        truncated=error is not None,
        end_reason="error" if error else "answered",
        error=error,
        group=f"1-{group}",
        index=index,
        seed=(0, 1, group, index),
    )


def teacher(
    reward: float = 1.0,
    text: str = "ok",
    *,
    index: int = 0,
    group: int = 0,
    error: str | None = None,
) -> Episode:
    """A demonstrator's episode: text, no tokens."""
    return Episode(
        task=task(group),
        env="ovd/Math-v0",
        agent="scripted",
        observation="q",
        turns=[Turn(text, reward=reward)],
        reward=reward,
        terminated=True,
        end_reason="error" if error else "answered",
        error=error,
        group=f"1-{group}",
        index=index,
        seed=(0, 1, group, index),
    )


def verdict(episode: Episode, score: float | None) -> Verdict:
    """A verdict with this score; ``None``: the judge failed."""
    error = "no reply" if score is None else None
    return Verdict(episode=episode.id, judge="j", score=score, error=error)


def group_of(
    rewards: Sequence[float],
    scores: Sequence[float | None] | None = None,
    *,
    number: int = 0,
    replies: Sequence[Sequence[int]] | None = None,
) -> Group:
    """A group of a student's episodes; every reply is another one unless ``replies`` says."""
    replies = replies or [(5, 10 + i, 257) for i in range(len(rewards))]
    episodes = [
        student(reward, replies[i], index=i, group=number) for i, reward in enumerate(rewards)
    ]
    judged = [
        Judged(episode, verdict(episode, scores[i]) if scores is not None else None)
        for i, episode in enumerate(episodes)
    ]
    return Group(task(number), judged)


def row_of(
    ids: Sequence[int],
    mask: Sequence[int],
    advantage: float = 1.0,
    *,
    group: int = 0,
    weight: float = 1.0,
    teacher: bool = False,
) -> Row:
    return Row(
        group=group,
        ids=tuple(ids),
        mask=tuple(mask),
        advantages=tuple(advantage * m for m in mask),
        sampler_logprobs=tuple(-1.0 * m for m in mask),
        weight=weight,
        teacher=teacher,
    )


def batches_of(rows: Sequence[Row], *, share: bool = True, max_tokens: int = 2048) -> list[Any]:
    """The batches that a learner would make of ``rows``."""
    packs = pack_rows(rows, share_prompts=share, max_tokens=max_tokens)
    return [collate(part, CPU) for part in batches(packs, max_tokens)]
