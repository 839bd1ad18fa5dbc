"""``ovd train`` and ``ovd eval``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agents.command_options import (
    BACKEND_OPTION,
    DIALECT_OPTION,
    ENV_ARGUMENT,
    ENV_OPTION,
    MAX_TOKENS_OPTION,
    MODE_OPTION,
    STUDENT_HELP,
    WORKERS_OPTION,
    choose_pace,
)
from agents.commands import choose_tasks
from agents.student_source import StudentSource, choose_student, readers
from ovd_envs.errors import OVDError
from ovd_envs.options import parse_options
from training.registry import algorithms  # noqa: F401 - `ovd envs` lists what is imported

if TYPE_CHECKING:
    from agents.episode import Episode


def register_commands(app: typer.Typer) -> None:
    """Add ``ovd train`` and ``ovd eval``."""
    app.command(name="train")(train)
    app.command(name="eval")(evaluate)


def _run_student(name: str) -> StudentSource | None:
    """The newest student of the run in folder ``name``; ``None`` where no run is there."""
    from training.run import Run

    run = Run(name)
    if not run.exists:
        return None
    config = run.config()
    return StudentSource(
        model=str(run.latest_model()),
        dtype=run.facts().get("dtype", "auto"),
        max_tokens=config.rollout.max_tokens,
        max_context=config.rollout.max_context,
        max_episode_tokens=config.rollout.max_episode_tokens,
        dialect=config.rollout.dialect,
        env=config.env,
        env_options=config.env_options,
    )


readers.append(_run_student)  # so every command that takes a student knows run folders


def train(
    config: Path = typer.Argument(metavar="CONFIG", help="YAML file, see examples/math_cpu.yaml."),
    run: Path | None = typer.Option(
        None,
        "--run",
        "-r",
        metavar="DIR",
        help="Run folder; default: runs/, named as CONFIG.",
    ),
    resume: bool = typer.Option(
        False, "--resume", help="Go on where the run in the folder stopped; begin it if none did."
    ),
    overrides: list[str] = typer.Option(
        [],
        "--set",
        metavar="KEY=VALUE",
        help="Override a key, e.g. optimizer.steps=10; may be repeated.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Train a student, and show before and after.

    The run folder holds the configuration, metrics, every episode, evaluations and checkpoints.
    Ctrl-C and kills lose at most the step under way: --resume goes on to the same numbers.

    Example: `ovd train examples/math_cpu.yaml --run runs/demo`
    """
    from rich.console import Console

    from teachers.protocol import JudgeStopError
    from training.config import load_config

    settings = load_config(config, overrides)
    folder = run or Path("runs") / config.stem
    console = Console(stderr=True) if as_json else Console()
    with console.status("starting"):
        from training.display import RunDisplay, summary_table
        from training.trainer import Trainer

        display = RunDisplay(settings, str(folder), console)
        trainer = Trainer(settings, folder, resume=resume, reporter=display)
    try:
        with display:
            summary = trainer.train()
    except KeyboardInterrupt:
        # From None: the stop itself is no news, what is kept is.
        raise KeyboardInterrupt(
            f"stopped: all whole steps are in {folder}; the same command with --resume goes on"
        ) from None
    except JudgeStopError as stopped:
        raise JudgeStopError(
            f"{stopped} (all whole steps are in {folder}; the same command with --resume goes on)"
        ) from stopped
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    if summary["before"] and summary["after"]:
        console.print(summary_table(summary, trainer.config))
        _show_episodes(console, trainer)
    console.print(f"run folder: {folder}", highlight=False)
    console.print(
        f"next: ovd eval {settings.env} --student {folder}", highlight=False, soft_wrap=True
    )


def _show_episodes(console: Any, trainer: Any) -> None:
    from agents.episode import read_episodes
    from training.display import side_by_side

    first, last = (
        list(read_episodes(trainer.run.evaluation_episodes(step)))
        for step in (0, trainer.config.optimizer.steps)
    )
    if count := trainer.config.display_episodes:
        console.print(side_by_side(first, last, count))


def evaluate(
    env: str | None = ENV_ARGUMENT,
    student: str | None = typer.Option(
        None, "--student", "-s", metavar="MODEL|RUN", help=STUDENT_HELP
    ),
    engine: str | None = typer.Option(
        None,
        metavar="NAME:VALUE",
        help="Instead of ENV and a student: measure what a search engine (bm25:FOLDER, ...) finds "
        "for the questions of --tasks FILE.",
    ),
    k: int = typer.Option(10, "--k", min=1, help="Results of a search that count, with --engine."),
    tasks: str = typer.Option(
        "200", "--tasks", metavar="N|FILE", help="The first N tasks of the split, or a JSONL file."
    ),
    split: str = typer.Option("test", metavar="NAME", help="Split that the N tasks come from."),
    samples: int = typer.Option(
        1, metavar="K", min=1, help="Episodes of each task; more than 1 gives pass@k."
    ),
    seed: int = typer.Option(0, metavar="N", min=0, help="Seed of the random numbers."),
    temperature: float = typer.Option(
        0.0, metavar="T", min=0.0, help="Sampling temperature; 0 is greedy."
    ),
    max_tokens: int | None = MAX_TOKENS_OPTION,
    batch_size: int = typer.Option(
        64, metavar="N", min=1, help="Most episodes that run at a time."
    ),
    env_option: list[str] = ENV_OPTION,
    dialect: str | None = DIALECT_OPTION,
    backend: str = BACKEND_OPTION,
    mode: str | None = MODE_OPTION,
    workers: str = WORKERS_OPTION,
    teacher_feedback: str | None = typer.Option(
        None,
        "--teacher-feedback",
        metavar="JUDGE",
        help="Measure the student, apart, with a teacher beside it as well: what this judge scores "
        "below --theta-test is tried again.",
    ),
    judge_option: list[str] = typer.Option(
        [],
        "--judge-option",
        metavar="KEY=VALUE",
        help="An option of that judge, e.g. model=smollm2-135m; may be repeated.",
    ),
    theta_test: float = typer.Option(
        5.0, metavar="T", min=0.0, max=10.0, help="Score from which the student is not asked again."
    ),
    attempts: int = typer.Option(1, metavar="K", min=1, help="Most times that it tries again."),
    with_reason: bool = typer.Option(
        True, help="Whether the student reads the judge's reason before it tries again."
    ),
    gold_aware: bool = typer.Option(
        False, "--gold-aware", help="Let the judge see the gold answers; the result says so."
    ),
    compare: str | None = typer.Option(
        None,
        "--compare",
        metavar="FILE|RUN",
        help="Episodes of another evaluation (--out), or a run: the first one of its own. "
        "Paired by task.",
    ),
    out: Path | None = typer.Option(
        None,
        "--out",
        "-o",
        metavar="FILE",
        help="JSONL file that the episodes go to as they end: the same command goes on with it "
        "after Ctrl-C. Those with a teacher go to NAME.feedback.jsonl.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the numbers as JSON."),
) -> None:
    """Evaluate a student alone: accuracy and reward with 95 % intervals.

    Or, with --engine, a search engine alone: how many of the supporting titles and of the answers
    it finds.

    Example: `ovd eval ovd/Math-v0 --student runs/demo --compare runs/demo`

    Example: `ovd eval --student runs/demo --teacher-feedback llm --judge-option model=smollm2-135m`

    Example: `ovd eval --engine bm25:wiki.index --tasks questions.jsonl --k 10`
    """
    from rich.console import Console

    if engine is not None:
        if env is not None or student is not None:
            raise OVDError("--engine: measures a search engine alone, without ENV and --student")
        _evaluate_engine(engine, tasks, k, as_json)
        return
    if student is None:
        raise OVDError("--student: expected ENV and --student MODEL, or --engine NAME:VALUE")
    pace = choose_pace(batch_size, mode, workers)
    acting = choose_student(
        student,
        env,
        parse_options(env_option, "--env-option"),
        max_tokens=max_tokens,
        dialect=dialect,
    )
    if samples > 1 and temperature == 0:
        raise OVDError("--samples: greedy samples are all the same; expected --temperature above 0")
    feedback = None
    if teacher_feedback is None and (judge_option or gold_aware):
        raise OVDError("--judge-option, --gold-aware: expected --teacher-feedback JUDGE with them")
    if teacher_feedback is not None:
        if samples > 1:
            raise OVDError(f"--teacher-feedback: expected one sample of each task, got {samples}")
        if not with_reason and temperature == 0:
            raise OVDError(
                "--no-with-reason: a greedy student says the same again; expected --temperature "
                "above 0"
            )
        from training.feedback import Feedback, feedback_judge

        options = parse_options(judge_option, "--judge-option")
        judge = feedback_judge(teacher_feedback, options, gold_aware=gold_aware)
        feedback = Feedback(judge, theta_test, attempts, with_reason, gold_aware)
    from training.evaluation_run import run_evaluation

    chosen = choose_tasks(acting.env, acting.env_options, tasks, split)
    other = _other_episodes(compare) if compare is not None else None
    result, episodes, again = run_evaluation(
        acting,
        chosen,
        temperature=temperature,
        backend=backend,
        samples=samples,
        seed=seed,
        pace=pace,
        feedback=feedback,
        out=out,
    )
    if out is not None and feedback is not None:
        from agents.episode import write_episodes

        write_episodes(out.with_suffix(".feedback.jsonl"), again)
    result = {"env": acting.env, "student": student, **result}
    if other is not None:
        from training.evaluation import compare as paired

        result["compare"] = {"with": compare, **paired(other, episodes)}
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        from training.evaluation_table import evaluation_table

        Console().print(evaluation_table(result))


def _evaluate_engine(spec: str, tasks: str, k: int, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from ovd_envs.search.index import open_engine
    from training.search_evaluation import evaluate_engine, recall_table

    if tasks.isdecimal():
        raise OVDError(f"--tasks: expected a JSONL file of questions with --engine, got {tasks!r}")
    opened = open_engine(spec)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("questions", total=None)
        result = evaluate_engine(
            opened,
            tasks,
            k,
            progress=lambda done, total: progress.update(bar, completed=done, total=total),
        )
    if as_json:
        typer.echo(json.dumps(result, indent=2))
    else:
        Console().print(recall_table(result))


def _other_episodes(place: str) -> list[Episode]:
    """The episodes to compare with. Raises ``OVDError`` where there are none."""
    from agents.episode import read_episodes
    from training.run import Run

    run = Run(place)
    if not run.exists:
        return list(read_episodes(place))
    steps = [result["step"] for result in run.evaluations()]
    if not steps:
        raise OVDError(f"--compare {place}: the run has no evaluation yet")
    return list(read_episodes(run.evaluation_episodes(steps[0])))
