"""To be written."""

from __future__ import annotations

import typer


def register_commands(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
