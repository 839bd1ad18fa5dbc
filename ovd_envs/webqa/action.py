"""What a message of the acting model asks for, and how it may be written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from ovd_envs.search.protocol import SearchResult

Kind = Literal["search", "open", "answer", "invalid"]


@dataclass(frozen=True, slots=True)
class Action:
    """One request to the environment, however it was written.

    ``text`` is the query of "search", the result's number or the address of "open", the answer of
    "answer", and what is wrong with the message of "invalid".
    """

    kind: Kind
    text: str = ""
    page: int = 1
    """Of "open": which part of a long document, counted from 1."""


class Protocol(ABC):
    """How actions and observations are written in text.

    A protocol never sees a gold answer, and ``parse`` sees nothing but the acting model's own
    message.
    """

    name: ClassVar[str]
    #: How the conversation is best put into tokens: "chat" or "inline" (see ``agents``).
    dialect: ClassVar[str] = "chat"
    #: What ends a message and belongs to it, where no end of turn does: see ``TextEnv``.
    stop_strings: ClassVar[tuple[str, ...]]
    #: Whether the model is told that its last message has come.
    warns: ClassVar[bool] = True
    #: Characters (or tokens, where they can be counted) of the text within one observation.
    observation_limit: ClassVar[int] = 2000

    @abstractmethod
    def prompt(self, question: str) -> str:
        """The first observation: how to act, and the question."""

    @abstractmethod
    def parse(self, message: str) -> Action:
        """What ``message`` asks for; any text can come."""

    @abstractmethod
    def write(self, action: Action) -> str:
        """The message that asks for ``action``.

        ``parse`` gives it back, where its text has no blanks around it and none of the tags.
        """

    @abstractmethod
    def passage(self, number: int, result: SearchResult) -> str:
        """One result as the model reads it, without a line feed at the end."""

    @abstractmethod
    def shows(self, observation: str, title: str) -> bool:
        """Whether the result with this title is among those of ``observation``."""

    @abstractmethod
    def observation(self, text: str) -> str:
        """``text``, results or a page, as an observation."""

    @abstractmethod
    def complaint(self, reason: str) -> str:
        """The observation after an action that could not be done."""
