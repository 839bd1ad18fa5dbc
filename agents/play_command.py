"""``ovd play``: a person in an environment, alone or with a student at their side."""

from __future__ import annotations

import contextlib
import random
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import ovd_envs
from agents.command_options import (
    BACKEND_OPTION,
    DIALECT_OPTION,
    ENV_ARGUMENT,
    ENV_OPTION,
    MAX_TOKENS_OPTION,
    STUDENT_HELP,
)
from agents.student_source import ChosenStudent, choose_student
from ovd_envs.errors import OVDError
from ovd_envs.options import parse_options

if TYPE_CHECKING:
    from rich.console import Console

    from agents.episode import Episode
    from agents.protocol import Agent
    from ovd_envs.task import Task


def play(
    env: str | None = ENV_ARGUMENT,
    with_student: str | None = typer.Option(
        None,
        "--with-student",
        "-s",
        metavar="MODEL|RUN",
        help="See at each turn what this student would say, send it or write your own. "
        + STUDENT_HELP,
    ),
    task: str | None = typer.Option(
        None, metavar="ID", help="Id of the task; default: a random one."
    ),
    split: str = typer.Option("train", metavar="NAME", help="Split that a random task comes from."),
    seed: int | None = typer.Option(
        None, metavar="N", min=0, help="Seed of the random task, and of the student."
    ),
    temperature: float = typer.Option(
        1.0, metavar="T", min=0.0, help="Sampling temperature of the student; 0 is greedy."
    ),
    max_tokens: int | None = MAX_TOKENS_OPTION,
    env_option: list[str] = ENV_OPTION,
    dialect: str | None = DIALECT_OPTION,
    backend: str = BACKEND_OPTION,
    out: Path | None = typer.Option(
        None, "--out", "-o", metavar="FILE", help="JSONL file to add the episode to."
    ),
) -> None:
    """Act in an environment yourself: read, type, and see the score.

    One line is one message; a line that ends in a backslash goes on in the next. The episode is
    saved in the same form as a model's. With a student at your side Enter alone sends its message,
    `/student` lets it go on alone, and `/me` takes back; the episode tells who wrote each turn.

    Example: `ovd play ovd/Math-v0 --out mine.jsonl`

    Example: `ovd play ovd/WorldQA-v0 --with-student smollm2-135m`
    """
    from rich.console import Console

    from agents.display import printable
    from agents.episode_log import EpisodeLog

    console = Console()
    options = parse_options(env_option, "--env-option")
    student: ChosenStudent | None = None
    if with_student is not None:
        student = choose_student(with_student, env, options, max_tokens=max_tokens, dialect=dialect)
        env, options = student.env, dict(student.env_options)
    elif env is None:
        raise OVDError("ENV: expected the name of an environment, see `ovd envs`")
    seed = random.randrange(10_000) if seed is None else seed
    chosen = _one_task(env, options, task, split, seed)
    with EpisodeLog(out) if out is not None else contextlib.nullcontext() as log:
        agent: Agent | None = None
        if student is not None:
            agent = _beside(console, student, temperature=temperature, backend=backend)
        hint = "Enter sends, " if with_student is None else f"with {with_student} · "
        console.print(printable(f"{env} · seed {seed} · {hint}Ctrl-C leaves", style="dim"))
        key = (seed, 0, len(log.episodes) if log is not None else 0, 0)
        episode = _let_a_person_act(console, agent, env, options, chosen, key)
        if log is not None:
            log.append(episode)
    _show_the_score(console, episode, out)


def _beside(console: Console, student: ChosenStudent, *, temperature: float, backend: str) -> Agent:
    """A person with this student at their side."""
    from agents.display import printable
    from agents.side_by_side import SideBySide

    with console.status(printable(f"loading {student.name}")):
        loaded = student.load(temperature=temperature, batch_size=1, backend=backend)
    return SideBySide(loaded, console=console)


def _let_a_person_act(
    console: Console,
    agent: Agent | None,
    env: str,
    options: Mapping[str, Any],
    task: Task,
    seed: tuple[int, ...],
) -> Episode:
    """The finished episode. Raises where the person leaves before it has ended."""
    from agents.human import HumanAgent, Left
    from agents.rollout import run_seeded

    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")
    agent = agent or HumanAgent(console=console)
    try:
        [episode] = run_seeded(agent, env, [(task, seed)], env_options=options)
    except Left as left:
        raise OVDError(f"{left}: nothing was saved") from left
    except KeyboardInterrupt:
        console.print()  # leave the line of the prompt
        raise KeyboardInterrupt("left: nothing was saved") from None
    if episode.error:
        raise RuntimeError(f"the environment or the student failed:\n{episode.error}")
    return episode


def _show_the_score(console: Console, episode: Episode, out: Path | None) -> None:
    from rich.panel import Panel

    from agents.display import outcome_line, printable
    from agents.side_by_side import WRITTEN_BY

    if episode.turns and (last := episode.turns[-1].observation):
        console.print(Panel(printable(last)))
    lines = outcome_line(episode)
    gold = " or ".join(episode.task.answers)
    lines.append("\n").append_text(printable(f"gold answer: {gold}"))
    if WRITTEN_BY in episode.info:
        counts = Counter(episode.info[WRITTEN_BY]).most_common()
        shares = ", ".join(f"{name} {count}" for name, count in counts)
        lines.append("\n").append_text(printable(f"turns written by: {shares}"))
    if out is not None:
        lines.append("\n").append_text(printable(f"saved in {out}", style="dim"))
    console.print(Panel(lines, title="score", title_align="left"))


def _one_task(
    env: str, options: Mapping[str, Any], task: str | None, split: str, seed: int
) -> Task:
    import numpy as np

    tasks = ovd_envs.make(env, **options).tasks
    return tasks.find(task) if task else tasks.draw(split, np.random.default_rng(seed))
