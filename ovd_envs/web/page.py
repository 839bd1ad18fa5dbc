"""A page as it is read, and what reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ovd_envs.errors import OVDError


class FetchError(OVDError):
    """A page that cannot be read; the message says why in a few words, fit for a model to read."""


@dataclass(frozen=True, slots=True)
class Page:
    """The text of a page."""

    url: str
    """Where it was read in the end, after redirects."""
    title: str
    text: str


@runtime_checkable
class PageReader(Protocol):
    """Reads pages by their addresses; ``blocks = True`` means what it means for a search engine."""

    def read(self, url: str) -> Page:
        """The page at ``url``. Raises ``FetchError`` where it cannot be had; nothing else."""
        ...
