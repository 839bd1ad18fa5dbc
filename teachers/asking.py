"""Ask a model for one JSON object: what is asked, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from teachers.judge_reply import Fault, PartialFault, told
from teachers.shortening import Room

_T = TypeVar("_T")

_CORRECTION = """Your reply cannot be used: {fault}. Reply again with one JSON object and nothing \
else: {form}"""


@dataclass(frozen=True, slots=True)
class Ask(Generic[_T]):
    """Two messages that ask for a JSON object of the form ``form``, under ``mark``.

    ``schema`` is for backends that hold a model to one; ``parse`` reads the reply and raises
    ``Fault`` for one that cannot be used. ``digit`` gives of what was read the raw text up to the
    digit whose ten probabilities are wanted; without it they are not asked for. ``max_tokens`` are
    those of one reply; by default what the asker allows.
    """

    mark: str
    system: str
    message: str
    form: str
    schema: Mapping[str, Any]
    parse: Callable[[str], _T]
    digit: Callable[[_T], str] | None = None
    max_tokens: int | None = None
    bare: bool = False
    """Whether so little of the material is shown that it is no use to ask."""

    def limit(self, otherwise: int) -> int:
        """The tokens of one reply: ``max_tokens``, or ``otherwise`` where it does not say."""
        return otherwise if self.max_tokens is None else self.max_tokens

    def correction(self, fault: str) -> str:
        """The message that shows a model what is wrong with its reply."""
        return _CORRECTION.format(fault=fault, form=self.form)


def too_bare(room: Room) -> str:
    """The fault of an ``Ask`` that is ``bare`` in this room."""
    return f"next to nothing of a message or of the task would be shown in {room.tokens} tokens"


@dataclass(frozen=True, slots=True)
class Writer(Generic[_T]):
    """Writes an ``Ask`` whose material takes so much room at most.

    ``episodes`` is how many the material holds: each may have the room of one.
    """

    write: Callable[[Room], Ask[_T]]
    episodes: int = 1


@dataclass(slots=True)
class Answer(Generic[_T]):
    """What came of an ``Ask``: a value, or none and why; and the tokens of all its replies."""

    value: _T | None = None
    fault: str = ""
    raw: str | None = None
    partial: list[_T] = field(default_factory=list)
    """What could be used of replies that could not be as a whole, the oldest first."""
    distribution: tuple[float, ...] | None = None
    """The probabilities of the ten digits where ``Ask.digit`` says."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def error(self) -> str:
        """The fault with the raw reply; empty where there is a value."""
        if self.value is not None:
            return ""
        return self.fault + (f"; the reply was: {self.raw[:500]!r}" if self.raw is not None else "")

    def take(self, asked: Ask[_T], text: str, stop: str) -> bool:
        """Read a reply; whether it can be used."""
        self.raw = text
        try:
            self.value, self.fault = asked.parse(text), ""
        except Fault as fault:
            self.fault = told(fault, stop)
            if isinstance(fault, PartialFault):
                self.partial.append(fault.usable)
        return self.value is not None


class Asker(Protocol):
    """Asks some model, within its limits."""

    #: Which time the same is asked: random numbers are named, and would be the same again.
    repeat: int

    def ask(self, writers: Sequence[Writer[_T]], samples: int = 1) -> list[Answer[_T]]:
        """``samples`` answers for each writer, one writer's after another's.

        An unusable reply is shown its fault and asked for once more.
        """
        ...
