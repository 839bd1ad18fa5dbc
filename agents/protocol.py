"""What an agent is, and what a backend is: the two protocols that users of this floor implement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ovd_envs.errors import RegistrationError

if TYPE_CHECKING:
    from agents.dialect import Dialect
    from agents.episode import Episode


#: Values of ``Act.stop`` that mean: there is no message any more, and the episode ends for this
#: reason. The tokens that it may hold, or that the agent may sample in it, are used up.
NO_MESSAGE = frozenset({"context_limit", "token_limit"})


@dataclass(frozen=True, slots=True)
class Act:
    """One message of an agent. ``stop`` says why it ended, ``version`` who: see ``Turn``.

    Or that there is none, and why: see ``NO_MESSAGE``.
    """

    text: str
    stop: str = "end_of_turn"
    version: int = 0


@runtime_checkable
class Agent(Protocol):
    """Acts in several episodes at once, a turn at a time."""

    name: str

    def act(self, episodes: Sequence[Episode]) -> list[Act]:
        """The next message in each of ``episodes``, in order.

        The newest observation is ``episode.turns[-1].observation``, at the first turn
        ``episode.observation``. An agent that samples tokens appends what it saw and what it
        sampled to ``episode.segments``. An agent may also define ``finish(episodes)``, called
        with episodes that have ended, and ``submit(episode)``, which returns a ``Future`` of the
        act: see ``agents.free_rollout``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, in token ids, and how to go on from it.

    ``key`` names the random numbers: token number t of the reply is drawn with the t-th numbers
    of the stream of ``key``, so a reply does not depend on what else is in the batch.
    ``temperature`` 0 is greedy. ``session`` names a conversation whose key-value cache may be
    kept for its next turn. ``schema`` is a JSON schema that the reply is held to while it is
    sampled (where it is not cut at ``max_tokens``, its text is JSON that fits); its
    log-probabilities are then those among the tokens that the schema allows: nothing is trained on
    such a reply. A backend that does not declare ``schema`` refuses it.
    """

    ids: Sequence[int]
    max_tokens: int
    temperature: float = 1.0
    key: tuple[int, ...] = (0,)
    stop: tuple[str, ...] = ()
    session: str | None = None
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model sampled: the ids, the end-of-turn token included where it was sampled.

    ``logprobs`` are natural logarithms at the sampling temperature (at temperature 1 where the
    request was greedy). ``stop`` is "end_of_turn", "stop_string" or "length". ``text`` is the
    message without the end-of-turn token, cut before ``stop_string``, the one that ended it; the
    ids are never cut. ``version`` is the version of the weights that sampled it.
    """

    ids: list[int]
    logprobs: list[float]
    stop: str
    text: str
    stop_string: str = ""
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do, as it declares it itself; who needs something asks here."""

    token_ids: bool = False
    """Takes token ids and gives the very ids that were sampled (``generate``)."""
    logprobs: bool = False
    """Gives the log-probability of each sampled token."""
    next_token_logprobs: bool = False
    """Gives the log-probabilities of chosen tokens as the next: ``next_token_logprobs(prompts,
    choices)``, one list for each prompt."""
    schema: bool = False
    """Holds a reply to a JSON schema while it is sampled: ``Request.schema``."""
    follow: bool = False
    """Takes new weights: ``follow(model, version)``."""
    submit: bool = False
    """Takes requests one by one: ``submit(request)`` returns a ``Future`` of the completion."""


@runtime_checkable
class Backend(Protocol):
    """What runs a model: as much as its ``capabilities`` say, beside ``generate``."""

    name: str
    dialect: Dialect

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; most easily an attribute of the class."""
        ...

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion for each request, in order."""
        ...


def capabilities_of(backend: object) -> Capabilities:
    """What a backend, its class, or a function that makes one, says that it can do.

    Raises ``RegistrationError`` where it does not say.
    """
    # Of a class method, as ``load`` is mostly, it is the class that says it.
    owner = getattr(backend, "__self__", backend)
    found = getattr(owner, "capabilities", None)
    if isinstance(found, Capabilities):
        return found
    who = getattr(owner, "__qualname__", type(owner).__qualname__)
    raise RegistrationError(
        f"{who}: expected an attribute `capabilities`, an agents.Capabilities that says what the "
        f"backend can do, got {found!r}"
    )
