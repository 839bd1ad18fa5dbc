"""The search server: Search-R1's ``POST /retrieve`` in front of any engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, BeforeValidator, Field, model_validator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ovd_envs.errors import OVDError
from ovd_envs.search.batching import Batcher, QueueFull
from ovd_envs.search.protocol import SearchEngine, SearchError
from ovd_envs.search.server_metrics import ServerMetrics
from ovd_envs.search.wire import to_items

#: Seconds after which a client that found the queue full may try again.
RETRY_AFTER = 1


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a server takes; a request past a limit is refused with a message that names it."""

    queries: int = 4096
    """Queries of one request (a training step of Search-R1 sends all its searches at once)."""
    query_characters: int = 4096
    """Code points of one query."""
    topk: int = 100
    """Results a query."""
    body_bytes: int = 32 * 2**20
    """Bytes of one request's body."""
    waiting: int = 16384
    """Queries that may wait for the engine; past it a request gets 503 and "Retry-After"."""
    seconds: float = 300.0
    """Time that one request may take, waiting included; past it the request gets 504."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not value > 0:
                raise OVDError(f"limit {limit.name}: expected more than 0, got {value}")
        if self.waiting < self.queries:
            raise OVDError(
                f"limit waiting: expected at least as many as one request may hold "
                f"({self.queries}), got {self.waiting}"
            )


def _whole_texts(value: object) -> object:
    """``value`` without half surrogate pairs, which a model can write and no engine can read."""
    if isinstance(value, list):
        return [_whole_texts(item) for item in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _one_or_several(value: object) -> object:
    return [value] if isinstance(value, str) else value


class RetrieveRequest(BaseModel):
    """The body of ``POST /retrieve``. Fields that are not named here are passed over."""

    queries: Annotated[list[str] | None, BeforeValidator(_whole_texts)] = Field(
        None, description="The queries (Search-R1's spelling)."
    )
    query: Annotated[
        list[str] | None, BeforeValidator(_one_or_several), BeforeValidator(_whole_texts)
    ] = Field(None, description="One text, or a list of them (SkyRL's spelling).")
    topk: int | None = Field(None, description="Results a query; null: the server's own number.")
    return_scores: bool | None = Field(
        False, description="Whether each document comes with its score."
    )

    @model_validator(mode="after")
    def _one_spelling(self) -> RetrieveRequest:
        if (self.queries is None) == (self.query is None):
            raise ValueError("expected either 'queries' (a list of texts) or 'query'")
        return self

    def texts(self) -> list[str]:
        """The queries, however they were spelled."""
        return self.query or [] if self.queries is None else self.queries


def create_app(
    engine: SearchEngine,
    *,
    topk: int = 3,
    limits: ServerLimits | None = None,
    threads: int = 1,
    max_batch: int = 64,
    wait: float = 0.002,
) -> FastAPI:
    """The application that serves ``engine``: ``/retrieve``, ``/health`` and ``/metrics``.

    ``topk`` is the number of results where a request names none. The engine runs in ``threads``
    threads, apart from those that speak with clients; requests that arrive within ``wait``
    seconds, or while it is busy, are searched for together, ``max_batch`` queries at most. Raises
    ``OVDError`` for limits that contradict each other.
    """
    limits = limits or ServerLimits()
    if not 1 <= topk <= limits.topk:
        raise OVDError(f"topk: expected 1 to {limits.topk}, got {topk}")
    metrics = ServerMetrics()
    batcher = Batcher(
        engine,
        max_batch=max_batch,
        max_waiting=limits.waiting,
        wait=wait,
        threads=threads,
        observe=metrics.engine_call,
    )
    metrics.watch_queue(lambda: batcher.waiting)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(batcher.close)

    app = FastAPI(title="OVD search server", lifespan=lifespan, redoc_url=None)
    app.state.metrics = metrics
    app.add_middleware(_Gate, metrics=metrics, limit=limits.body_bytes)

    @app.exception_handler(RequestValidationError)
    async def refuse(_: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse(*_told(error.errors()[0]))

    @app.post("/retrieve", summary="The best documents for each query")
    async def retrieve(request: RetrieveRequest) -> Response:
        queries = request.texts()
        k = topk if request.topk is None else request.topk
        _check(queries, k, limits)
        metrics.queries.inc(len(queries))
        try:
            found = await asyncio.wait_for(
                asyncio.wrap_future(batcher.submit(queries, k)), limits.seconds
            )
        except QueueFull as full:
            raise HTTPException(
                503, f"the server is busy: {full}", {"Retry-After": str(RETRY_AFTER)}
            ) from full
        except TimeoutError as late:
            raise HTTPException(504, f"no result within {limits.seconds:g} s") from late
        except SearchError as down:
            raise HTTPException(502, f"search engine {engine.name}: {down}") from down
        except Exception as error:
            told = f"search engine {engine.name}: {type(error).__name__}: {error}"
            raise HTTPException(500, told) from error
        scores = bool(request.return_scores)
        return _json({"result": [to_items(results[:k], scores=scores) for results in found]})

    @app.get("/health", summary="Whether the server answers")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "engine": engine.name,
            "topk": topk,
            "waiting": batcher.waiting,
        }

    @app.get("/metrics", summary="Counts and times for Prometheus")
    async def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


#: What pydantic's kinds of errors mean in our words.
_EXPECTED = {
    "string_type": "a text",
    "list_type": "a list of texts",
    "int_type": "a whole number or null",
    "int_parsing": "a whole number or null",
    "int_from_float": "a whole number or null",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "model_attributes_type": "a JSON object, sent as application/json",
    "missing": "a JSON object, sent as application/json",
}


def _told(error: Mapping[str, Any]) -> tuple[dict[str, str], int]:
    """The body and status for bad input: pydantic's own words would repeat the whole input."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "json_invalid":
        return {"detail": f"body: not valid JSON ({context.get('error', 'it breaks off')})"}, 400
    if kind == "value_error":
        return {"detail": f"body: {context['error']}"}, 422
    where = ".".join(map(str, error["loc"][1:])) or "body"
    expected = _EXPECTED.get(kind)
    if expected is None:
        return {"detail": f"{where}: {error['msg']}"}, 422
    return {"detail": f"{where}: expected {expected}, got {type(error['input']).__name__}"}, 422


def _check(queries: Sequence[str], k: int, limits: ServerLimits) -> None:
    if len(queries) > limits.queries:
        raise HTTPException(422, f"queries: {len(queries)} of them, at most {limits.queries}")
    for number, query in enumerate(queries):
        if len(query) > limits.query_characters:
            raise HTTPException(
                422,
                f"queries[{number}]: {len(query)} characters, at most {limits.query_characters}",
            )
    if not 1 <= k <= limits.topk:
        raise HTTPException(422, f"topk: expected 1 to {limits.topk} or null, got {k}")


def _json(value: Any) -> Response:
    # ASCII: a document may hold half a surrogate pair. Not a number is not JSON.
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise HTTPException(500, f"the engine's results are not JSON ({error})") from error
    return Response(text, media_type="application/json")


class _Gate:
    """Around every request: no body past the limit is read, and what went to /retrieve counts."""

    def __init__(self, app: ASGIApp, *, metrics: ServerMetrics, limit: int) -> None:
        self._app = app
        self._metrics = metrics
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        read, code = 0, 500

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                # Raised where the application reads the body, which turns it into a response.
                raise HTTPException(413, f"body: at most {self._limit} bytes")
            return message

        async def watched(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, limited, watched)
        finally:
            if scope["path"] == "/retrieve":
                self._metrics.request(code, time.perf_counter() - began)
