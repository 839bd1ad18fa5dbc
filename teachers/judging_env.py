"""``ovd/Judging-v0``: to judge is a task too, and who learns it is a student of judging."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from agents.episode import Episode, read_episodes
from ovd_envs.env import Budget, Reply, TextEnv
from ovd_envs.errors import TaskError
from ovd_envs.record_tasks import TEST_SHARE
from ovd_envs.stable import stable_hash
from ovd_envs.task import ListTasks, Task
from teachers.cache import content_hash
from teachers.judge_prompt import Prompting
from teachers.judge_reply import Fault, parse_reply
from teachers.rubric import load_rubric
from teachers.shortening import MAX_EPISODE_TOKENS, Room
from teachers.verdict import MAX_SCORE, Verdict
from teachers.verdict_log import content_of, read_keyed

#: What the demonstrator ``judging`` needs to know of the judged episode's task.
_SHOWN = ("solution", "operands", "level", "kind")


class JudgingEnv(TextEnv):
    """Saved episodes to judge, as the judge ``llm`` is asked to.

    System message and observation are those of the judge ``llm`` with the same rubric and options
    (``teachers.judge_prompt``), so a student that is trained here is asked for what it has learned,
    token by token. A message is a reply of that judge; the reward is 1 less a ninth for each point
    between its score and that of the reference verdict, and 0 for a reply that the judge could not
    use. ``info`` tells the "score" that was read, or the "fault".

    Args:
        episodes: a JSONL file of episodes.
        verdicts: the verdicts on them, as ``ovd score`` writes them; matched by the episode's id
            and content, or by its id alone where a row does not say what it was on.
        rubric: a rubric's name, or a text file.
        show_gold: whether the gold answers of the episodes are shown.
        split: "train" or "test": one in ten of the questions that the episodes answer belongs to
            the test, with all the episodes on it.
        budget: limits, a ``Budget`` or a mapping of its fields.
        render_mode: "ansi" or "human".

    Raises ``OVDError`` for a file that cannot be read and where no episode has a verdict.
    """

    def __init__(
        self,
        episodes: str | Path,
        verdicts: str | Path,
        *,
        rubric: str = "general",
        show_gold: bool = True,
        split: str = "train",
        budget: Budget | Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        tasks = judging_tasks(episodes, verdicts, rubric=load_rubric(rubric), show_gold=show_gold)
        super().__init__(tasks, split=split, budget=budget, render_mode=render_mode)

    def observe(self, task: Task) -> str:
        """The fenced episode and how to reply; the rubric is the system message."""
        self.system = task.metadata["system"]
        return task.question

    def respond(self, action: str) -> Reply:
        """Read the reply as the judge would."""
        try:
            score = parse_reply(action, self.task.metadata["mark"]).score
        except Fault as fault:
            return Reply(end="answered", info={"score": None, "fault": str(fault)})
        apart = abs(score - int(self.task.answers[0]))
        info = {"score": score, "fault": ""}
        return Reply(reward=1 - apart / MAX_SCORE, end="answered", info=info)

    def save_state(self) -> None:
        """Nothing: a reply ends the episode."""

    def load_state(self, state: None) -> None:
        """Nothing."""

    def gold_actions(self, task: Task, answer: str) -> tuple[str, ...]:
        """The reference verdict as a reply."""
        return (reply_text(task.metadata["mark"], task.metadata["reason"], int(answer)),)


def judging_tasks(
    episodes: str | Path, verdicts: str | Path, *, rubric: str, show_gold: bool
) -> ListTasks:
    """A task for each saved episode that has a verdict with a score; equal ones are one.

    The gold answer is the score as a whole number; ``metadata`` has the "system" message, the
    "mark" of the reply, the "reason" of the verdict, and what is known of the episode's own task.
    ``rubric`` is its text. The many environments of a rollout share one reading of the files, as
    long as these do not change. Raises ``OVDError`` as ``JudgingEnv``.
    """
    stamps = tuple(stamp for file in (episodes, verdicts) for stamp in _stamp(file))
    return _read(str(episodes), str(verdicts), rubric, show_gold, stamps)


def _stamp(path: str | Path) -> tuple[int, ...]:
    """What tells one state of a file from another; who reads it says where there is none."""
    with contextlib.suppress(OSError):
        stat = Path(path).stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns
    return ()


@lru_cache(maxsize=4)
def _read(
    episodes: str, verdicts: str, rubric: str, show_gold: bool, stamps: tuple[int, ...]
) -> ListTasks:
    """The tasks of the files as they are, of which ``stamps`` tells."""
    # By the content too: an id comes again in files that were joined, and in a run done anew.
    scored = {(v.episode, content_of(key)): v for key, v in read_keyed(verdicts)}
    train: dict[str, Task] = {}
    test: dict[str, Task] = {}
    for episode in read_episodes(episodes):
        verdict = scored.get((episode.id, content_hash(episode))) or scored.get((episode.id, ""))
        if verdict is None or verdict.score is None or episode.error is not None:
            continue
        task = _task(episode, verdict, rubric, show_gold=show_gold)
        asked = " ".join(episode.task.question.casefold().split())
        split = test if stable_hash(asked) % TEST_SHARE == 0 else train
        split.setdefault(task.id, task)
    if not train and not test:
        raise TaskError(f"{episodes}: expected an episode with a score in {verdicts}, found none")
    return ListTasks("judging", train=train.values(), test=test.values())


def _task(episode: Episode, verdict: Verdict, rubric: str, *, show_gold: bool) -> Task:
    asked = Prompting(rubric, show_gold=show_gold).ask(episode, Room(MAX_EPISODE_TOKENS))
    assert verdict.score is not None
    # Named by all that is asked: the same for ever, whatever file it stands in.
    name = hashlib.sha256(f"{asked.system}\0{asked.message}".encode()).hexdigest()[:16]
    shown = {key: episode.task.metadata[key] for key in _SHOWN if key in episode.task.metadata}
    return Task(
        f"judging/{name}",
        asked.message,
        (str(round(verdict.score)),),
        {
            "system": asked.system,
            "mark": asked.mark,
            "reason": verdict.reason or "No reason was given.",
            **shown,
        },
    )


def reply_text(mark: str, reason: str, score: int) -> str:
    """A reply as the judge ``llm`` wants it.

    Without blanks between its parts, as backends write it that are held to a schema: a model that
    learned other blanks would be made to write what it never saw.
    """
    return json.dumps(
        {"id": mark, "reason": reason, "score": score}, ensure_ascii=False, separators=(",", ":")
    )
