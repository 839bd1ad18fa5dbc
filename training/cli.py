"""The command line ``ovd``: the commands of the four packages under one roof."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import Abort, TyperException

from ovd_envs.errors import OVDError

#: Modules with a ``register_commands(app)``, in the order of the floors.
COMMANDS = (
    "ovd_envs.commands",
    "ovd_envs.search.commands",
    "ovd_envs.search.serve",
    "ovd_envs.web.commands",
    "agents.commands",
    "teachers.commands",
    "training.commands",
    "training.doctor",
)

#: The order of `ovd --help`: that of a newcomer's first hour.
ORDER = (
    *("doctor", "envs", "check", "play", "run", "score", "train", "eval", "grade"),
    *("index", "search", "serve-search", "fetch"),
)

#: Exit codes: success, bad input, stopped by Ctrl-C.
BAD_INPUT, INTERRUPTED = 2, 130


class _Commands(TyperGroup):
    """The commands in the order of ``ORDER``; Ctrl-C says what is left of the work."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = list(super().list_commands(ctx))
        rank = {name: position for position, name in enumerate(ORDER)}
        return sorted(names, key=lambda name: rank.get(name, len(ORDER)))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            # A command that was stopped half-way raises it with what it has saved.
            _say(str(stop) or "interrupted")
            raise typer.Exit(INTERRUPTED) from stop


def build_app() -> typer.Typer:
    """The Typer application with the commands of all packages."""
    app = typer.Typer(
        cls=_Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
        help=(
            "OVD: a language model acts in text environments, a judge scores what it did from "
            "0 to 9, a demonstrator replaces what was rejected, and a trainer makes it better.\n\n"
            "Start with: `ovd doctor`, `ovd envs`, `ovd play ovd/Math-v0`."
        ),
    )

    @app.callback()
    def root(
        version: bool = typer.Option(
            False, "--version", help="Print the version and exit.", callback=_version, is_eager=True
        ),
    ) -> None:
        pass

    for module in COMMANDS:
        importlib.import_module(module).register_commands(app)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``ovd`` with ``arguments`` (default: the process's own) and exit.

    Exit codes: 0 success; 1 what was looked at is not in order (``doctor``, ``check``); 2 bad
    input, with one line on stderr; 130 Ctrl-C. Any other exception is a bug: it keeps its
    traceback.
    """
    try:
        command = typer.main.get_command(build_app())
        code = command.main(args=arguments, prog_name="ovd", standalone_mode=False)
        sys.stdout.flush()
    except OVDError as error:
        _say(f"error: {error}")
        sys.exit(BAD_INPUT)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see `{context.command_path} --help`)" if context is not None else ""
        _say(f"error: {error.format_message()}{hint}")
        sys.exit(error.exit_code)
    except Abort:  # a prompt at the end of its input
        _say("error: the input ended")
        sys.exit(BAD_INPUT)
    except BrokenPipeError:
        # Who reads us has left (`ovd envs | head -1`): no traceback, also none at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ovd {metadata.version('ovd')}")
        raise typer.Exit


def _say(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    line = " ".join(message.split())
    sys.stderr.write("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) + "\n")
