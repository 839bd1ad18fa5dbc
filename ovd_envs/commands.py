"""The commands of this package: ``ovd envs``, ``ovd check``, ``ovd grade``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovd_envs.grade_command import grade
from ovd_envs.options import parse_options
from ovd_envs.registry import Entry, Registry

if TYPE_CHECKING:
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register_commands(app: typer.Typer) -> None:
    """Add the commands of this package to ``app``."""
    app.command("envs")(envs)
    app.command("check")(check)
    app.command("grade")(grade)


def envs(as_json: Json = False) -> None:
    """List what is registered: environments, judges, backends and so on.

    Environments of other packages appear here once they are installed; one that does not load is
    listed with the reason.

    Example: ovd envs --json
    """
    listed = {
        registry.group.rpartition(".")[2]: registry.entries() for registry in Registry.everywhere
    }
    if as_json:
        _print_json({group: [_plain(entry) for entry in found] for group, found in listed.items()})
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for group, found in listed.items():
        table = Table(title=group.replace("_", " "), title_justify="left", box=None)
        for column in ("name", "what it is", "from"):
            table.add_column(column, overflow="fold")
        for entry in found:
            what = f"[red]{_escape(entry.error)}[/red]" if entry.error else _escape(entry.summary)
            table.add_row(f"[bold]{_escape(entry.name)}[/bold]", what, _escape(entry.source))
        if found:
            console.print(table)
            console.print()
        if able := [entry for entry in found if entry.capabilities]:
            console.print(_abilities(f"{group}: what each can do", able))
            console.print()


def _abilities(title: str, entries: Sequence[Entry]) -> Table:
    """A row for each entry, a column for each capability."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None)
    table.add_column("name", overflow="fold")
    names = list(dict.fromkeys(name for entry in entries for name in entry.capabilities))
    for name in names:
        table.add_column(name.replace("_", " "))
    for entry in entries:
        marks = ("yes" if entry.capabilities.get(name) else "-" for name in names)
        table.add_row(f"[bold]{_escape(entry.name)}[/bold]", *marks)
    return table


def check(
    env: Annotated[str, typer.Argument(help="Registered name, e.g. ovd/Math-v0.")],
    env_option: Annotated[
        list[str] | None,
        typer.Option(
            "--env-option",
            "-e",
            metavar="KEY=VALUE",
            help="An option of the environment, e.g. level=word-1; may be repeated.",
        ),
    ] = None,
    tasks: Annotated[int, typer.Option(min=1, help="Tasks of each split to play.")] = 20,
    as_json: Json = False,
) -> None:
    """Check an environment: Gymnasium's rules, seeds, spaces, gold answers, splits.

    Exit code 1 where a check fails.

    Example: ovd check ovd/Math-v0 --env-option level=word-2
    """
    from ovd_envs.checker import check_environment

    results = check_environment(env, parse_options(env_option or [], "--env-option"), tasks=tasks)
    passed = all(result.passed for result in results)
    if as_json:
        _print_json(
            {
                "env": env,
                "passed": passed,
                "checks": [
                    {"name": r.name, "passed": r.passed, "detail": r.detail} for r in results
                ],
            }
        )
    else:
        from rich.console import Console

        console = Console()
        for result in results:
            mark = "[green]passed[/green]" if result.passed else "[red]failed[/red]"
            console.print(f"{mark}  [bold]{result.name}[/bold]: {_escape(result.detail)}")
    if not passed:
        raise typer.Exit(1)


def _plain(entry: Entry) -> dict[str, Any]:
    able = {"capabilities": dict(entry.capabilities)} if entry.capabilities else {}
    return {
        "name": entry.name,
        "summary": entry.summary,
        "source": entry.source,
        "error": entry.error,
        **able,
    }


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=True, indent=2))
