"""``ovd run``, ``ovd play`` and ``ovd serve-model``."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
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
    MODE_OPTION,
    STUDENT_HELP,
    WORKERS_OPTION,
    choose_pace,
)
from agents.play_command import play
from agents.student_source import choose_student, find_source
from ovd_envs.errors import OVDError
from ovd_envs.options import parse_options

if TYPE_CHECKING:
    from agents.episode import Episode
    from ovd_envs.task import Task


def register_commands(app: typer.Typer) -> None:
    """Add ``ovd run``, ``ovd play`` and ``ovd serve-model``."""
    app.command(name="run")(run)
    app.command(name="play")(play)
    app.command(
        name="serve-model",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )(serve_model)


def run(
    env: str | None = ENV_ARGUMENT,
    student: str = typer.Option(..., "--student", "-s", metavar="MODEL|RUN", help=STUDENT_HELP),
    out: Path = typer.Option(
        ..., "--out", "-o", metavar="FILE", help="JSONL file that the episodes go to."
    ),
    tasks: str = typer.Option(
        "16", "--tasks", metavar="N|FILE", help="The first N tasks of the split, or a JSONL file."
    ),
    split: str = typer.Option("test", metavar="NAME", help="Split that the N tasks come from."),
    group_size: int = typer.Option(1, metavar="N", min=1, help="Episodes of each task."),
    seed: int = typer.Option(
        0, metavar="N", min=0, help="Seed of the run; it names all random numbers."
    ),
    temperature: float = typer.Option(
        1.0, metavar="T", min=0.0, help="Sampling temperature; 0 is greedy."
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
    watch: bool = typer.Option(
        False,
        "--watch",
        help="Show the episodes as they go, as many as fit; where "
        "standard output is no terminal, each as it ends.",
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Run episodes of a student in an environment and save them as JSONL.

    Each episode is saved as it ends: Ctrl-C loses none of the finished ones, and the same command
    goes on with the missing ones (and with a larger N).

    Example: `ovd run ovd/Math-v0 --student smollm2-135m --tasks 32 --out episodes.jsonl`

    Example: `ovd run --student runs/demo --out episodes.jsonl`
    """
    from rich.console import Console

    from agents.saved_run import run_saved

    pace = choose_pace(batch_size, mode, workers)
    acting = choose_student(
        student,
        env,
        parse_options(env_option, "--env-option"),
        max_tokens=max_tokens,
        dialect=dialect,
    )
    chosen = choose_tasks(acting.env, acting.env_options, tasks, split)
    requests = [
        (task, (seed, 0, position, index))
        for position, task in enumerate(chosen)
        for index in range(group_size)
    ]
    ordered, new = run_saved(
        acting,
        requests,
        out,
        temperature=temperature,
        backend=backend,
        load=lambda: acting.load(temperature=temperature, batch_size=batch_size, backend=backend),
        pace=pace,
        console=Console(stderr=True),
        watch=watch,
    )
    summary = summarize(ordered, new=new)
    if as_json:
        typer.echo(json.dumps({"out": str(out), **summary}, indent=2))
    else:
        _print_summary(summary, out)
    if summary["errors"]:
        first = next(episode for episode in ordered if episode.error)
        reason = (first.error or "").strip().splitlines()[-1]
        typer.echo(
            f"{summary['errors']} episode(s) ended in an error, the first: {first.task.id}: "
            f"{reason} (the same command tries them again)",
            err=True,
        )
        raise typer.Exit(1)


def choose_tasks(env: str, options: Mapping[str, Any], spec: str, split: str) -> list[Task]:
    """The tasks that ``spec`` means: the first N distinct ones of the split, or those of a file.

    Raises ``OVDError``.
    """
    if spec.isdecimal():
        if int(spec) < 1:
            raise OVDError("--tasks: expected at least 1, got 0")
        return ovd_envs.make(env, **options).tasks.distinct(split, int(spec))
    ovd_envs.make(env, **options)  # a wrong name or option is told before the file is read
    return read_tasks(spec)


def read_tasks(path: str) -> list[Task]:
    """Every task of a JSONL file, in its order. Raises ``OVDError`` naming file and row."""
    from ovd_envs.record_tasks import JsonlTasks

    return list(JsonlTasks({"all": path}).iterate("all"))


def summarize(episodes: Sequence[Episode], *, new: int) -> dict[str, Any]:
    """The numbers of a file of episodes, as plain JSON."""
    return {
        "episodes": len(episodes),
        "new": new,
        "tasks": len({episode.task.id for episode in episodes}),
        "mean_reward": statistics.fmean(e.reward for e in episodes) if episodes else None,
        "end_reasons": dict(Counter(e.end_reason for e in episodes).most_common()),
        "turns": sum(len(e.turns) for e in episodes),
        "sampled_tokens": sum(e.num_sampled_tokens for e in episodes),
        "errors": sum(e.error is not None for e in episodes),
    }


def _print_summary(summary: Mapping[str, Any], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(style="bold")
    table.add_column()
    ends = ", ".join(f"{count} {reason}" for reason, count in summary["end_reasons"].items())
    table.add_row("episodes", f"{summary['episodes']} of {summary['tasks']} tasks ({ends})")
    table.add_row("new", str(summary["new"]))
    table.add_row("mean reward", f"{summary['mean_reward']:.3f}")
    table.add_row("turns", str(summary["turns"]))
    table.add_row("tokens", f"{summary['sampled_tokens']} sampled")
    table.add_row("saved in", str(out))
    Console().print(table)


def serve_model(
    context: typer.Context,
    model: str = typer.Argument(metavar="MODEL|RUN", help=STUDENT_HELP),
    host: str = typer.Option("127.0.0.1", metavar="ADDRESS", help="Address to listen on."),
    port: int = typer.Option(8000, metavar="N", min=1, max=65535, help="Port to listen on."),
    lora_rank: int | None = typer.Option(
        None, metavar="N", min=1, help="Rank of the adapters that a trainer will send."
    ),
) -> None:
    """Serve a model with vLLM, for `--backend vllm-server:http://HOST:PORT` and for training.

    Further options go to vLLM as they are. Anybody who can reach the address can change the
    model's weights: keep it on the loopback address or in a network of your own.

    Example: `ovd serve-model smollm2-135m --port 8000 --enforce-eager`
    """
    from agents.serve_model import server_command

    command, environment = server_command(
        find_source(model).model,
        name=model,
        host=host,
        port=port,
        lora_rank=lora_rank,
        more=context.args,
    )
    sys.stdout.flush()
    os.execve(command[0], command, dict(environment))
