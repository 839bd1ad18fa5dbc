"""An evaluation as ``ovd eval`` runs it: saved as it goes, with a teacher beside it or without."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from agents.command_options import Pace
from agents.saved_run import run_saved
from agents.student_source import ChosenStudent
from training.evaluation import evaluate, summarize
from training.feedback import Feedback, try_again

if TYPE_CHECKING:
    from agents.episode import Episode
    from agents.openai_backend import OpenAIStudent
    from agents.student import Student
    from ovd_envs.task import Task


def run_evaluation(
    student: ChosenStudent,
    tasks: Sequence[Task],
    *,
    temperature: float,
    backend: str,
    samples: int,
    seed: int,
    pace: Pace,
    feedback: Feedback | None,
    out: Path | None,
) -> tuple[dict[str, Any], list[Episode], list[Episode]]:
    """The numbers, the student's episodes alone, and those with a teacher's feedback.

    With a file ``out`` the student's own are in it as they end, and those that it holds are not run
    again: see ``run_saved``. "seconds" is the time of this start.
    """
    console = Console(stderr=True)

    @cache
    def load() -> Student | OpenAIStudent:
        return student.load(temperature=temperature, batch_size=pace["batch_size"], backend=backend)

    if out is None:
        result, episodes = _unsaved(student, tasks, load(), samples, seed, pace, console)
    else:
        began = time.perf_counter()
        episodes, _ = run_saved(
            student,
            [
                (task, (seed, 0, place, n))
                for place, task in enumerate(tasks)
                for n in range(samples)
            ],
            out,
            temperature=temperature,
            backend=backend,
            load=load,
            pace=pace,
            console=console,
        )
        result = {**summarize(episodes), "seconds": round(time.perf_counter() - began, 3)}
    again: list[Episode] = []
    if feedback is not None:
        with Progress(console=console) as progress:
            bar = progress.add_task("with feedback", total=None)
            result["teacher_feedback"], again = try_again(
                load(),
                student.env,
                episodes,
                feedback,
                seed=seed,
                env_options=student.env_options,
                progress=lambda _: progress.advance(bar),
                **pace,
            )
    return result, episodes, again


def _unsaved(
    student: ChosenStudent,
    tasks: Sequence[Task],
    agent: Student | OpenAIStudent,
    samples: int,
    seed: int,
    pace: Pace,
    console: Console,
) -> tuple[dict[str, Any], list[Episode]]:
    with Progress(console=console) as progress:
        bar = progress.add_task("episodes", total=len(tasks) * samples)
        try:
            return evaluate(
                agent,
                student.env,
                tasks,
                samples=samples,
                seed=seed,
                env_options=student.env_options,
                progress=lambda _: progress.advance(bar),
                **pace,
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                "stopped: no episode is kept; with --out FILE the same command would go on"
            ) from None
