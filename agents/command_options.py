"""Arguments and options that several commands share."""

from __future__ import annotations

import typer

ENV_ARGUMENT = typer.Argument(metavar="ENV", help="Name of an environment, see `ovd envs`.")

ENV_OPTION = typer.Option(
    [],
    "--env-option",
    "-e",
    metavar="KEY=VALUE",
    help="An option of the environment, e.g. level=word-1 or attempts=2; may be repeated.",
)

DIALECT_OPTION = typer.Option(
    None,
    "--dialect",
    metavar="NAME",
    help="How a conversation becomes tokens: chat, chat-no-thinking "
    "or inline; default: the environment's own.",
)

BACKEND_OPTION = typer.Option(
    "transformers",
    "--backend",
    metavar="NAME[:ADDRESS]",
    help="What runs the model: transformers, vllm, or vllm-server:http://HOST:PORT.",
)
