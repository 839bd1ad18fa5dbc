"""``ovd fetch``: what is on a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ovd_envs.errors import OVDError

if TYPE_CHECKING:
    from ovd_envs.web.fetcher import FetchedPage


def register_commands(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command("fetch")(fetch)


def fetch(
    source: Annotated[str, typer.Argument(metavar="URL|FILE", help="An address, or a saved page.")],
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="HOST[:PORT]",
            help="Read this host although it is private or local; may be repeated.",
        ),
    ] = None,
    robots: Annotated[
        bool, typer.Option("--robots", help="Keep to what the site's robots.txt says.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="Folder in which pages are kept.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of the page.")
    ] = False,
) -> None:
    """Show the main text of a page, as a model reads it.

    Pages are limited to 10 MB and 15 seconds; private, loopback and link-local addresses are
    refused unless they are allowed by name.

    Example: ovd fetch https://en.wikipedia.org/wiki/Knowledge_distillation --json
    """
    try:
        page = _page(source, allow or [], robots, cache)
    except OVDError as error:
        raise OVDError(f"{source}: {error}{_hint(source, str(error))}") from error
    if as_json:
        typer.echo(json.dumps(page, ensure_ascii=True, indent=2))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(Text(page["title"] or "(no title)", style="bold"), Text(page["url"], style="dim"))
    console.print()
    console.print(Text(page["text"]))


def _page(source: str, allow: list[str], robots: bool, cache: Path | None) -> dict[str, Any]:
    """What ``--json`` prints."""
    from dataclasses import asdict

    from ovd_envs.web.fetcher import Fetcher, read_file

    page: FetchedPage
    if "://" in source:
        page = Fetcher(allow=allow, robots=robots, cache=cache).read(source)
    elif Path(source).exists():
        page = read_file(source)
    else:
        raise OVDError("no such file, and not an address (http://...)")
    return asdict(page)


def _hint(source: str, reason: str) -> str:
    """How a person, who knows the host, can read it all the same; a model is not told this."""
    from ovd_envs.web.addresses import parse_url

    if not reason.startswith(("refused: private", "refused: the name of", "refused: port")):
        return ""
    if "redirect" in reason:
        return ""
    return f"; --allow {parse_url(source).host} reads it"
