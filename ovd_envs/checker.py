"""What ``ovd check`` checks: Gymnasium's rules, and what training needs beyond them."""

from __future__ import annotations

import contextlib
import io
import json
import re
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import gymnasium
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from ovd_envs.env import TextEnv
from ovd_envs.errors import OVDError
from ovd_envs.registry import make
from ovd_envs.task import Task

#: Questions of each split that are looked at for one that another split has too.
_QUESTIONS = 2_000

#: Messages that a model may well write, and that naive code falls over.
ODD_ACTIONS = (
    "",
    " \n\t ",
    "\x00 a NUL byte",
    "\u202e right to left \u0669\u0665",
    "\U0001f600 \u0301 \u200b",
    "\\boxed{",
    "{" * 10_000,
    "\\boxed{" * 2_000,
    "word " * 20_000,
)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was checked."""

    name: str
    passed: bool
    detail: str
    """What was seen; where it failed, what was expected and what came."""


class _Failed(Exception):
    """A check that failed; the message says what was expected and what came."""


def check_environment(
    name: str, options: dict[str, Any] | None = None, *, tasks: int = 20
) -> list[CheckResult]:
    """Check the registered environment ``name``, made with ``options``.

    ``tasks`` is how many tasks of each split are played with their gold answers. Raises
    ``RegistrationError`` where there is no such environment; whatever else goes wrong is a result.
    """
    options = options or {}
    make(name, **options).close()
    return [
        _run(title, check, name, options, tasks)
        for title, check in (
            ("Gymnasium's checker", _gymnasium_checker),
            ("Gymnasium's passive checker", _passive_checker),
            ("seeds", _seeds),
            ("gold answers", _gold_answers),
            ("gold answers stay secret", _secrecy),
            ("splits", _splits),
            ("odd messages", _odd_messages),
            ("ends", _ends),
        )
    ]


Check = Callable[[str, dict[str, Any], int], str]


def _run(title: str, check: Check, name: str, options: dict[str, Any], tasks: int) -> CheckResult:
    # Rendering for a person prints; nothing of that belongs in the report.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            detail = check(name, options, tasks)
        except (_Failed, AssertionError, OVDError) as error:
            return CheckResult(title, False, str(error))
        except Exception as error:  # noqa: BLE001 - somebody else's environment can raise anything
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{where.filename.rpartition('/')[2]}, line {where.lineno}"
            return CheckResult(title, False, f"{type(error).__name__}: {error} ({place})")
    complaints = [str(w.message) for w in caught if "gymnasium" in w.filename]
    if complaints:
        # Gymnasium colours its warnings for a terminal.
        text = complaints[0].replace("\x1b[33m", "").replace("\x1b[0m", "")
        return CheckResult(title, False, text)
    return CheckResult(title, True, detail)


def _gymnasium_checker(name: str, options: dict[str, Any], tasks: int) -> str:
    env = make(name, **options)
    check_env(env.unwrapped)
    env.close()
    return "check_env has nothing to object"


def _passive_checker(name: str, options: dict[str, Any], tasks: int) -> str:
    env = gymnasium.make(name, disable_env_checker=False, **options)
    inner = env.unwrapped
    assert isinstance(inner, TextEnv)
    steps = 0
    for seed in range(3):
        env.reset(seed=seed)
        for action in _gold_messages(inner, inner.task):
            steps += 1
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                break
    env.render()
    env.close()
    return f"3 episodes, {steps} steps without a warning"


def _seeds(name: str, options: dict[str, Any], tasks: int) -> str:
    first, second = make(name, **options), make(name, **options)
    for seed in range(5):
        one, two = first.reset(seed=seed), second.reset(seed=seed)
        if one != two:
            raise _Failed(f"reset(seed={seed}) twice: expected {one!r:.100}, got {two!r:.100}")
        action = next(iter(_gold_messages(first, first.task)), "")
        one_step, two_step = first.step(action), second.step(action)
        if one_step != two_step:
            raise _Failed(
                f"step after seed {seed}: expected {one_step!r:.100}, got {two_step!r:.100}"
            )
    drawn = {first.reset(seed=seed)[1]["task"] for seed in range(20)}
    size = first.tasks.size(first.split)
    if len(drawn) == 1 and size != 1:
        raise _Failed(f"20 seeds: expected different tasks, got {drawn.pop()!r} every time")
    return f"5 seeds give the same episode twice; 20 seeds draw {len(drawn)} tasks"


def _gold_answers(name: str, options: dict[str, Any], tasks: int) -> str:
    env = make(name, **options)
    played = unknown = 0
    for task in _some_tasks(env, tasks):
        for answer in task.answers:
            actions = env.gold_actions(task, answer)
            if not actions:
                unknown += 1
                continue
            reward, info = _play(env, task, actions)
            blank, _ = _play(env, task, [""] * 50)
            if info is None:
                raise _Failed(f"task {task.id!r}: expected gold_actions to end the episode")
            if reward <= blank:
                raise _Failed(
                    f"task {task.id!r}, gold answer {answer!r}: expected more reward than for "
                    f"saying nothing ({blank:g}), got {reward:g} ({info['end_reason']})"
                )
            played += 1
    if not played and not unknown:
        return "the tasks bring no gold answers"
    more = f"; {unknown} not played: no way to them is known (gold_actions gives none)"
    return f"{played} gold answers rewarded{more if unknown else ''}"


def _secrecy(name: str, options: dict[str, Any], tasks: int) -> str:
    env = make(name, **options)
    # By message and reply: each task that got it, with the gold answer that it tells, if any.
    told: dict[tuple[str, str], list[tuple[Task, str | None]]] = {}
    for task in _some_tasks(env, min(tasks, 5)):
        opening, info = env.reset(options={"task": task})
        for action in ("", "something", "something else", *([""] * 20)):
            if info["end_reason"]:
                if info.get("answers") != list(task.answers):
                    raise _Failed(f"task {task.id!r}: expected 'answers' in info at the end")
                break
            said = [
                text for name, value in info.items() if name != "task" for text in _texts(value)
            ]
            if "answers" in info or any(gold in said for gold in task.answers):
                held = json.dumps(info)
                raise _Failed(f"task {task.id!r}: info tells a gold answer before the end: {held}")
            observation, _, _, _, info = env.step(action)
            if not info["end_reason"]:
                golds = (g for g in task.answers if _told(g, observation))
                gold = next((g for g in golds if not _told(g, opening)), None)
                told.setdefault((action, observation), []).append((task, gold))
    for (action, observation), asked in told.items():
        # What is said to every task alike, e.g. which moves there are, tells nothing.
        if all(gold is not None for _, gold in asked):
            task, gold = asked[0]
            raise _Failed(
                f"task {task.id!r}: a reply to {action!r} tells the gold answer {gold!r}: "
                f"{observation!r:.200}"
            )
    return "neither info nor an answer to a wrong message tells a gold answer before the end"


def _texts(value: Any) -> Iterator[str]:
    """Every text in plain JSON; not the names of its fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _told(gold: str, text: str) -> bool:
    """Whether ``gold`` stands in ``text`` as a whole word; a short one does so by chance."""
    return len(gold) >= 4 and re.search(rf"(?<!\w){re.escape(gold)}(?!\w)", text) is not None


def _splits(name: str, options: dict[str, Any], tasks: int) -> str:
    source = make(name, **options).tasks
    seen: dict[str, str] = {}
    of = "all"
    for split in source.splits:
        size = source.size(split)
        if size is None or size > _QUESTIONS:
            of = f"the first {_QUESTIONS:,}"
        for number, task in enumerate(islice(source.iterate(split), _QUESTIONS)):
            key = " ".join(task.question.casefold().split())
            if seen.setdefault(key, split) != split:
                raise _Failed(f"splits {seen[key]!r} and {split!r} share {task.question!r:.80}")
            if number < 200 and source.find(task.id).question != task.question:
                raise _Failed(f"task {task.id!r}: expected find to give it back")
    return f"{len(seen):,} questions, of {of} of {', '.join(source.splits)}: none in two splits"


def _odd_messages(name: str, options: dict[str, Any], tasks: int) -> str:
    env = make(name, **options)
    for number, action in enumerate(ODD_ACTIONS):
        env.reset(seed=number)
        observation, reward, _, _, info = env.step(action)
        if observation not in env.observation_space:
            raise _Failed(f"after {action!r:.40}: the observation is not in the observation space")
        if reward > 0:
            raise _Failed(f"{action!r:.40}: expected no reward, got {reward:g}")
        try:
            json.dumps(info)
        except (TypeError, ValueError) as error:
            raise _Failed(f"after {action!r:.40}: info is not plain JSON ({error})") from error
    return f"{len(ODD_ACTIONS)} odd messages answered"


def _ends(name: str, options: dict[str, Any], tasks: int) -> str:
    env = make(name, **options)
    env.reset(seed=0)
    for _ in range(1000):
        _, _, terminated, truncated, info = env.step("")
        if terminated and truncated:
            raise _Failed("expected either terminated or truncated at the end, got both")
        if terminated or truncated:
            break
    else:
        raise _Failed("expected an end within 1000 turns of silence; give the environment a budget")
    try:
        env.step("")
    except ResetNeeded:
        return f"silence ends after {info['turn']} turn(s): {info['end_reason']}"
    raise _Failed("step after the end: expected gymnasium.error.ResetNeeded, got a reply")


def _some_tasks(env: TextEnv, count: int) -> Iterator[Task]:
    for split in env.tasks.splits:
        yield from islice(env.tasks.iterate(split), count)


def _gold_messages(env: TextEnv, task: Task) -> list[str]:
    actions = env.gold_actions(task, task.answers[0]) if task.answers else ()
    return list(actions) or [""]


def _play(env: TextEnv, task: Task, actions: Any) -> tuple[float, dict[str, Any] | None]:
    """Total reward of ``actions`` and the last info, ``None`` where the episode goes on."""
    env.reset(options={"task": task})
    total = 0.0
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        total += reward
        if terminated or truncated:
            return total, info
    return total, None
