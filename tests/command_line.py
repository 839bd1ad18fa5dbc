"""Command lines of one package, within the process of a test."""

from collections.abc import Callable

import typer


def invoke(register: Callable[[typer.Typer], None], *arguments: object) -> int:
    """The exit code of the command line ``arguments``; errors of OVD and Ctrl-C go up."""
    app = typer.Typer()
    register(app)
    command = typer.main.get_command(app)
    try:
        with command.make_context("ovd", [str(argument) for argument in arguments]) as context:
            command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    return 0
