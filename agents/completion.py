"""From sampled ids to a completion: why a reply ended, and what its text is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agents.protocol import Capabilities, Completion, Request
from ovd_envs.errors import OVDError

if TYPE_CHECKING:
    from agents.dialect import Dialect


def check_request(request: Request, context_length: int, able: Capabilities) -> None:
    """Raise ``OVDError`` for an empty prompt, one without room for a reply, meaningless options,
    and what a backend that is ``able`` to do this much cannot do.
    """
    if not request.ids:
        raise OVDError("an empty prompt: expected at least one token id")
    if request.max_tokens < 1:
        raise OVDError(f"max_tokens: expected at least 1, got {request.max_tokens}")
    if not request.temperature >= 0:
        raise OVDError(f"temperature: expected 0 (greedy) or more, got {request.temperature}")
    if "" in request.stop:
        raise OVDError("stop: expected strings that are not empty, got ''")
    if request.schema is not None and not able.schema:
        raise OVDError(
            "schema: this backend cannot hold a reply to a JSON schema; expected one whose "
            "capabilities have schema, see `ovd envs`"
        )
    if len(request.ids) + request.max_tokens > context_length:
        raise OVDError(
            f"a prompt of {len(request.ids)} tokens and a reply of {request.max_tokens}: "
            f"expected at most {context_length} together"
        )


def reason_to_stop(dialect: Dialect, request: Request, ids: Sequence[int]) -> str:
    """Why a reply of ``ids`` is over: see ``Completion.stop``; empty where it goes on."""
    if ids and ids[-1] in dialect.stop_ids:
        return "end_of_turn"
    if request.stop and first_stop(dialect.decode(ids), request.stop):
        return "stop_string"
    return "length" if len(ids) >= request.max_tokens else ""


def first_stop(text: str, stops: Sequence[str]) -> str:
    """The one of ``stops`` that comes first in ``text``; empty where there is none."""
    return min((stop for stop in stops if stop in text), key=text.find, default="")


def complete(
    dialect: Dialect,
    request: Request,
    ids: list[int],
    logprobs: list[float],
    *,
    version: int = 0,
) -> Completion:
    """The completion of a reply that is over.

    Raises ``ValueError`` where it is not: whoever sampled it stopped for a reason of its own.
    """
    if len(ids) != len(logprobs):
        raise ValueError(f"{len(ids)} tokens with {len(logprobs)} log-probabilities")
    stop = reason_to_stop(dialect, request, ids)
    if not stop:
        raise ValueError(f"a reply of {len(ids)} tokens that had not ended")
    text, stop_string = dialect.decode(ids), ""
    if stop == "stop_string":
        stop_string = first_stop(text, request.stop)
        text = text.partition(stop_string)[0]
    return Completion(ids, logprobs, stop, text, stop_string, version)
