"""Calls of a chat API that end well, fail for a reason that is told, or wait for an outage to end.

Many at a time, up to a bound; each with a deadline; tried again where that can help.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import random
import socket
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from agents.openai_backend import KEY, NO_KEY, OPENAI_ADDRESS, find_key, without_key
from agents.outage import MAX_PAUSE, Circuit
from ovd_envs.errors import OVDError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_T = TypeVar("_T")

#: Alternatives of each token that are asked for: the most that the APIs give.
_ALTERNATIVES = 20

#: What an API may not know: it is left out from then on. The words name it in the API's complaint.
_OPTIONAL = {
    "logprobs": ("logprob",),
    "schema": ("response_format", "json_schema", "schema", "structured", "grammar"),
}


class RefusedError(OVDError):
    """The API refuses all calls: a bad key, no such model, no money, a quota that is used up.

    It is no use to go on.
    """


class FailedError(OVDError):
    """This call got no usable answer, however often it was tried."""


class _PassingError(Exception):
    """A failure that may pass; ``wait`` is what the server asked for, in seconds."""

    def __init__(self, why: str, wait: float = 0.0, *, refused: bool = False) -> None:
        super().__init__(why)
        self.wait = wait
        self.refused = refused
        #: Whether it used up one of the tries; an outage uses up none.
        self.counts = True


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What a chat API answered.

    ``stop`` is "end_of_turn" or "length". ``prompt_tokens`` and ``completion_tokens`` are what the
    API says that it charges, ``None`` where it says nothing. ``tokens`` holds, where the API gives
    log-probabilities, for each token of the text its UTF-8 bytes and its likeliest alternatives,
    itself among them, with their log-probabilities.
    """

    text: str
    stop: str
    prompt_tokens: int | None
    completion_tokens: int | None
    tokens: Sequence[tuple[bytes, Sequence[tuple[str, float]]]] = ()


class ChatAPI:
    """The model ``model`` at ``address``, asked by coroutines in a thread of its own.

    Args:
        key_variable: the environment variable that holds the key, which is kept nowhere else.
        concurrency: calls under way at a time.
        deadline: seconds that one call may take, from its first byte to its last.
        tries: of one call, while other calls are answered.
        base_wait: seconds before the second try; it doubles, up to 30, with jitter. Where the
            server says ``Retry-After``, at least that.
        patience: seconds that an outage may last (see ``agents.outage``), and the longest
            ``Retry-After`` that is waited for.

    Raises ``OVDError`` for an address that is none and a key that is missing.
    """

    def __init__(
        self,
        address: str,
        model: str,
        *,
        key_variable: str = KEY,
        concurrency: int = 16,
        deadline: float = 120.0,
        tries: int = 5,
        base_wait: float = 0.5,
        patience: float = 600.0,
    ) -> None:
        from openai import AsyncOpenAI

        self._key = find_key(address, key_variable)
        self.model = model
        self.where = urlsplit(address).netloc
        self._at_openai = address.startswith(OPENAI_ADDRESS)
        self._deadline, self._tries, self._base_wait = deadline, tries, base_wait
        self._patience = patience
        self._offered = dict.fromkeys(_OPTIONAL, True)
        #: Called with one line when an outage begins and when it ends.
        self.notice: Callable[[str], None] = lambda line: None
        self._numbers = itertools.count()
        self._pending = self._answered = 0
        # No retries of the client's own: it cannot tell an outage from a single failure.
        self._client: AsyncOpenAI = AsyncOpenAI(
            base_url=address, api_key=self._key or NO_KEY, max_retries=0, timeout=None
        )
        self._places = asyncio.Semaphore(concurrency)
        self._circuit = Circuit(
            f"the API at {self.where}",
            threshold=max(3, concurrency // 4),
            first_pause=2 * base_wait,
            patience=patience,
            tell=lambda line: self.notice(line),
        )
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="chat-api", daemon=True).start()
        # Once nobody holds it any more; at the end of the process all ends anyway.
        weakref.finalize(self, _leave, self._loop, self._client).atexit = False

    def run(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run a coroutine that asks in the API's own thread."""
        return asyncio.run_coroutine_threadsafe(self._counted(work), self._loop)

    def halt(self) -> None:
        """Begin no call any more: those that wait raise ``HaltedError``, those under way end.

        Once all of them have ended, the API can be asked again.
        """
        self._loop.call_soon_threadsafe(self._halt)

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float | None,
        seed: int | None = None,
        schema: Mapping[str, Any] | None = None,
        logprobs: bool = False,
    ) -> ChatReply:
        """The reply to a conversation.

        ``schema`` and ``logprobs`` are asked for as long as the API does not complain of them.

        Raises ``FailedError``, ``OutageError``, ``RefusedError`` and ``HaltedError``.
        """
        from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

        # Newer models of OpenAI refuse the one name, other servers do not know the other.
        limit = "max_completion_tokens" if self._at_openai else "max_tokens"
        body: dict[str, Any] = {"model": self.model, "messages": list(messages), limit: max_tokens}
        if temperature is not None:
            body["temperature"] = temperature
        if temperature and seed is not None:
            body["seed"] = seed
        number, failures = next(self._numbers), 0

        def spent(state: RetryCallState) -> bool:
            nonlocal failures
            error = state.outcome.exception() if state.outcome else None
            failures += isinstance(error, _PassingError) and error.counts
            return failures >= self._tries

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            if not isinstance(error, _PassingError) or not error.counts:
                return 0.0  # the circuit waits
            longest = min(self._base_wait * 2.0 ** (failures - 1), MAX_PAUSE)
            return max(longest * random.uniform(0.5, 1.0), error.wait)

        retrying = AsyncRetrying(
            stop=spent,
            wait=wait,
            sleep=self._circuit.sleep,
            retry=retry_if_exception_type(_PassingError),
            reraise=True,
        )
        try:
            return await retrying(self._try, number, body, schema, logprobs)
        except _PassingError as error:
            raise FailedError(f"{error} ({failures} tries)") from error

    async def _try(
        self, number: int, body: dict[str, Any], schema: Mapping[str, Any] | None, logprobs: bool
    ) -> ChatReply:
        """One call, once there is a place for it."""
        async with self._places:
            knocks = await self._circuit.enter()
            try:
                reply = await self._send(body, schema, logprobs)
                self._circuit.succeeded(knocked=knocks)
                self._answered += 1
                return reply
            except (FailedError, RefusedError):
                self._circuit.succeeded(knocked=knocks)  # a no is an answer too
                raise
            except _PassingError as error:
                self._circuit.failed(
                    number,
                    str(error),
                    knocked=knocks,
                    refused=error.refused,
                    pending=self._pending,
                )
                error.counts = not self._circuit.is_open
                raise
            finally:
                if knocks:
                    self._circuit.leave()

    async def _send(
        self, body: dict[str, Any], schema: Mapping[str, Any] | None, logprobs: bool
    ) -> ChatReply:
        import openai

        sent: dict[str, Any] = dict(body)
        if schema is not None and self._offered["schema"]:
            held = {"name": "reply", "strict": True, "schema": dict(schema)}
            sent["response_format"] = {"type": "json_schema", "json_schema": held}
        if logprobs and self._offered["logprobs"]:
            sent.update(logprobs=True, top_logprobs=_ALTERNATIVES)
        try:
            async with asyncio.timeout(self._deadline):
                # Not ``chat.completions.create``: it looks through all that is sent and makes
                # models of all that comes, in this process's time.
                answer = await self._client.post("/chat/completions", body=sent, cast_to=object)
            return _read(answer)
        except (TimeoutError, openai.APITimeoutError):
            raise _PassingError(f"no reply within {self._deadline:g} s") from None
        except openai.APIConnectionError as error:
            raise self._unconnected(error) from error
        except openai.APIStatusError as error:
            told = self._told(error)
            for option, words in _OPTIONAL.items():
                asked = ("response_format" if option == "schema" else option) in sent
                if error.status_code in (400, 422) and asked and _names(words, told):
                    self._offered[option] = False
                    return await self._send(body, schema, logprobs)
            raise self._unwilling(error, told) from error
        except (ValueError, openai.OpenAIError) as error:  # no JSON, or not this kind of it
            why = f"the reply's body cannot be read ({self._one_line(error)})"
            raise _PassingError(why) from error

    def _unconnected(self, error: Exception) -> Exception:
        """What a connection that failed means."""
        chain = list(_causes(error))
        root = self._one_line(chain[-1]) or type(chain[-1]).__name__
        if any(isinstance(cause, socket.gaierror) for cause in chain) and not self._answered:
            return RefusedError(f"the API at {self.where}: no such host ({root})")
        refused = any(type(cause).__name__ in ("ConnectError", "ConnectTimeout") for cause in chain)
        return _PassingError(f"no connection: {root}", refused=refused)

    def _unwilling(self, error: Any, told: str) -> Exception:
        """What a reply with an error status means."""
        status = int(error.status_code)
        code = str(getattr(error, "code", None) or "")
        no_model = code == "model_not_found" or (
            status in (400, 422)
            and "model" in told.lower()
            and any(words in told.lower() for words in ("not found", "not exist", "invalid model"))
        )
        if status in (401, 402, 403, 404) or no_model or code == "insufficient_quota":
            return RefusedError(f"model {self.model!r} at {self.where}: {status}: {told}")
        if status in (408, 409, 429) or status >= 500:
            wait = retry_after(error.response.headers)
            if wait > self._patience:  # a quota of the day: nobody waits that long without a word
                asks = f"it asks to wait {wait:.0f} s, the patience is {self._patience:g} s"
                return RefusedError(f"the API at {self.where}: {status}: {told} ({asks})")
            return _PassingError(f"{status}: {told}", wait)
        return FailedError(f"{status}: {told}")

    def _told(self, error: Any) -> str:
        """What the server said, one line, without the key that it may have quoted."""
        body = getattr(error, "body", None)
        if isinstance(body, Mapping) and isinstance(body.get("message"), str):
            return self._one_line(body["message"])
        return self._one_line(getattr(error, "message", error))

    def _one_line(self, text: object) -> str:
        return self.without_key(" ".join(str(text).split()))[:300]

    def without_key(self, text: str) -> str:
        """``text`` with the key, should a server quote it, blotted out."""
        return without_key(text, self._key)

    async def _counted(self, work: Coroutine[Any, Any, _T]) -> _T:
        self._pending += 1
        try:
            return await work
        finally:
            self._pending -= 1
            if not self._pending:
                self._circuit.halt(False)

    def _halt(self) -> None:
        if self._pending:
            self._circuit.halt(True)


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds to wait by the header ``Retry-After`` (seconds or a date); 0 without a sound one."""
    value = headers.get("retry-after", "").strip()
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
    with contextlib.suppress(ValueError, TypeError):
        return max(parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    return 0.0


def _read(answer: object) -> ChatReply:
    """The reply in the JSON of an answer. Raises ``_PassingError`` where there is none."""
    if isinstance(answer, str):  # sent as another kind of text
        with contextlib.suppress(ValueError):
            answer = json.loads(answer)
    choice = _first(_within(answer, "choices"))
    message = _within(choice, "message")
    if not isinstance(message, Mapping):
        raise _PassingError("the reply's body is no chat completion")
    text, usage = message.get("content"), _within(answer, "usage")
    return ChatReply(
        text if isinstance(text, str) else "",
        "length" if _within(choice, "finish_reason") == "length" else "end_of_turn",
        _number(_within(usage, "prompt_tokens")),
        _number(_within(usage, "completion_tokens")),
        _tokens(_within(_within(choice, "logprobs"), "content")),
    )


def _tokens(listed: object) -> list[tuple[bytes, list[tuple[str, float]]]]:
    """The tokens of a reply with their alternatives; none where a token cannot be read."""
    tokens: list[tuple[bytes, list[tuple[str, float]]]] = []
    try:
        for token in listed if isinstance(listed, list) else ():
            held, others = token.get("bytes"), token.get("top_logprobs") or ()
            # A list: ``bytes`` of a number is as many zeros.
            written = token["token"].encode() if held is None else bytes([*held])
            # str + "" and float + 0.0 raise for what is neither.
            likely = [(other["token"] + "", other["logprob"] + 0.0) for other in others]
            tokens.append((written, likely))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return []
    return tokens


def _within(held: object, name: str) -> object:
    """What stands under ``name``; ``None`` where there is nothing or ``held`` is no object."""
    return held.get(name) if isinstance(held, Mapping) else None


def _first(held: object) -> object:
    return held[0] if isinstance(held, list) and held else None


def _number(held: object) -> int | None:
    return held if isinstance(held, int) and not isinstance(held, bool) else None


def _leave(loop: asyncio.AbstractEventLoop, client: AsyncOpenAI) -> None:
    """Let the connections go, and end the thread."""

    async def leave() -> None:
        await client.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(leave(), loop)


def _names(words: Sequence[str], told: str) -> bool:
    return any(word in told.lower() for word in words)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
