"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict, cast

import typer

from agents.student_source import MAX_TOKENS

if TYPE_CHECKING:
    from agents.free_rollout import Workers
    from agents.rollout import Mode

ENV_ARGUMENT = typer.Argument(
    None,
    metavar="ENV",
    help="Name of an environment, see `ovd envs`; default for a run folder: the run's own.",
    show_default=False,
)

#: Help of the option that names a student; what it means is ``agents.student_source``'s.
STUDENT_HELP = (
    "Model: an alias (smollm2-135m), a folder, a hub name, or a run folder (its newest checkpoint)."
)

ENV_OPTION = typer.Option(
    [],
    "--env-option",
    "-e",
    metavar="KEY=VALUE",
    help="An option of the environment, e.g. level=word-1 or attempts=2; may be repeated; "
    "default for a run folder: the run's own.",
)

MAX_TOKENS_OPTION = typer.Option(
    None,
    metavar="N",
    min=1,
    help=f"Most tokens of one message; default: the run's, or {MAX_TOKENS}.",
)

DIALECT_OPTION = typer.Option(
    None,
    "--dialect",
    metavar="NAME",
    help="How a conversation becomes tokens: chat, chat-no-thinking "
    "or inline; default: the run's, or the environment's own.",
)

BACKEND_OPTION = typer.Option(
    "transformers",
    "--backend",
    metavar="NAME[:ADDRESS]",
    help="What runs the model: transformers, vllm, or vllm-server:http://HOST:PORT.",
)

#: The same of the judge `llm`, where other judges have none.
JUDGE_BACKEND_OPTION = typer.Option(
    None,
    "--backend",
    metavar="NAME[:ADDRESS]",
    help="What runs the model of the judge 'llm': transformers (the default), vllm, "
    "vllm-server:http://HOST:PORT, or openai:http://HOST/v1.",
    show_default=False,
)

MODE_OPTION = typer.Option(
    None,
    "--mode",
    metavar="lockstep|free",
    help="All episodes take a turn together, or each goes on for itself (slow environments, vLLM, "
    "chat APIs); default: free where the backend answers request by request, or with processes.",
)

WORKERS_OPTION = typer.Option(
    "threads",
    "--workers",
    metavar="threads|processes|N",
    help="Where the environments of mode free run: in threads, in as many processes as there are "
    "processors, or in N.",
)


class Pace(TypedDict):
    """How episodes are run, as ``agents.rollout`` takes it."""

    batch_size: int
    mode: Mode | None
    workers: Workers


def choose_pace(batch_size: int, mode: str | None, workers: str) -> Pace:
    """What the three options say. Raises ``OVDError``: here, before a model is loaded."""
    from agents.rollout import check_mode

    chosen = int(workers) if workers.isdecimal() else workers
    check_mode(mode, chosen)
    return {
        "batch_size": batch_size,
        "mode": cast("Mode | None", mode),
        "workers": cast("Workers", chosen),
    }
