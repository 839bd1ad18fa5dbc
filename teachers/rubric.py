"""Rubrics: the text that tells a judge what each score means."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from ovd_envs.errors import OVDError


def rubric_names() -> list[str]:
    """Names of the rubrics that come with the package."""
    folder = resources.files("teachers") / "rubrics"
    return sorted(p.name[:-3] for p in folder.iterdir() if p.name.endswith(".md"))


def load_rubric(name: str) -> str:
    """The text of a rubric that comes with the package ("general", "math", "web-qa"), or of a file.

    Raises ``OVDError`` where there is neither, or the file holds no text.
    """
    known = rubric_names()
    if name in known:
        return (resources.files("teachers") / "rubrics" / f"{name}.md").read_text("utf-8").strip()
    path = Path(name)
    try:
        text = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}, or a file"
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise OVDError(f"rubric {name!r}: {reason or error}; {hint}") from error
    if not text:
        raise OVDError(f"rubric {name!r}: the file is empty")
    return text
