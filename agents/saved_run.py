"""Episodes of a student that are saved as they end, so that the same command goes on with them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.command_options import Pace
from agents.episode import Episode
from agents.episode_bar import EpisodeBar
from agents.episode_log import EpisodeLog
from agents.protocol import Agent
from agents.rollout import run_seeded
from agents.student_source import ChosenStudent
from agents.totals import Totals
from agents.watch import LiveEpisodes
from ovd_envs.errors import OVDError
from ovd_envs.task import Task

if TYPE_CHECKING:
    from rich.console import Console

Requests = Sequence[tuple[Task, tuple[int, ...]]]


def run_saved(
    student: ChosenStudent,
    requests: Requests,
    out: Path,
    *,
    temperature: float,
    backend: str,
    load: Callable[[], Agent],
    pace: Pace,
    console: Console,
    watch: bool = False,
) -> tuple[list[Episode], int]:
    """The episode of each (task, seed), in order, and how many of them are new.

    Those that the file ``out`` holds are not run again, unless they ended in an error; where none
    is missing ``load`` is not called. Each is saved as it ends, and Ctrl-C goes up with a word on
    what is saved.

    Raises ``OVDError`` where ``out`` holds other episodes, of other tasks, or of other settings.
    """
    # The name of an API's model means something at its address alone.
    api = backend if backend.partition(":")[0] == "openai" else None
    settings = {"temperature": temperature, "api": api, **student.settings}
    with EpisodeLog(out) as log:
        expected = {"env": student.env, "agent": student.name, **settings}
        done = _already_done(log.episodes, requests, expected, out)
        missing = [request for request in requests if request[1] not in done]
        fresh: list[Episode] = []
        if missing:
            fresh = _run_missing(
                missing,
                student,
                settings,
                kept=list(done.values()),
                load=load,
                pace=pace,
                log=log,
                console=console,
                watch=watch,
            )
        done.update({episode.seed: episode for episode in fresh})
        ordered = [done[key] for _, key in requests]
        log.close(ordered)
    return ordered, len(fresh)


def _already_done(
    saved: Sequence[Episode], requests: Requests, expected: Mapping[str, Any], out: Path
) -> dict[tuple[int, ...], Episode]:
    """Saved episodes by seed; those that ended in an error are left out, to be tried again.

    Raises ``OVDError`` where a saved episode is none of this run's.
    """
    wanted = {key: _content(task) for task, key in requests}
    done = {}
    for row, episode in enumerate(saved, start=1):
        found = {"env": episode.env, "agent": episode.agent, **episode.info.get("settings", {})}
        for name, value in expected.items():
            if found.get(name) != value:
                raise OVDError(
                    f"{out}, row {row}: an episode with {name} {found.get(name)!r}, this run has "
                    f"{value!r}; expected another --out"
                )
        if wanted.get(episode.seed) != _content(episode.task):
            raise OVDError(
                f"{out}, row {row}: episode {episode.id} of {episode.task.id!r} is none of this "
                "run's (other tasks, fewer tasks or another seed); expected another --out"
            )
        if episode.error is None:
            done[episode.seed] = episode
    return done


def _content(task: Task) -> tuple[str, str, tuple[str, ...]]:
    """What is asked and how it is graded: a file of tasks may change under the same ids."""
    return task.id, task.question, tuple(task.answers)


def _run_missing(
    requests: Requests,
    student: ChosenStudent,
    settings: Mapping[str, Any],
    *,
    kept: Sequence[Episode],
    load: Callable[[], Agent],
    pace: Pace,
    log: EpisodeLog,
    console: Console,
    watch: bool,
) -> list[Episode]:
    """Run and save what is missing."""
    with console.status(f"loading {student.name}"):
        agent = load()
    totals = Totals.of(len(kept) + len(requests), kept)
    fresh: list[Episode] = []
    # What it would draw must be seen by somebody, and standard output may be wanted elsewhere.
    live = watch and console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty()
    view = LiveEpisodes(totals, console) if live else EpisodeBar(totals, console, each=watch)
    with view:

        def ended(episode: Episode) -> None:
            episode.info["settings"] = dict(settings)
            log.append(episode)
            fresh.append(episode)
            totals.add(episode)
            view.ended(episode)

        try:
            run_seeded(
                view.following(agent),
                student.env,
                requests,
                env_options=student.env_options,
                progress=ended,
                **pace,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped: {totals.done} of {totals.total} episodes are in {log.path}; "
                "the same command goes on"
            ) from None
    return fresh
