"""The command ``ovd serve-search``."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import Annotated

import typer

from ovd_envs.errors import OVDError


def register_commands(app: typer.Typer) -> None:
    """Add the commands of this module to ``app``."""
    app.command("serve-search")(serve_search)


def serve_search(
    index: Annotated[
        str,
        typer.Argument(
            metavar="INDEX",
            help="Folder of an index (see `ovd index`), or any engine as NAME:VALUE.",
            show_default=False,
        ),
    ],
    engine: Annotated[
        str | None,
        typer.Option(
            help="Of an index folder: bm25, dense or hybrid; default: the best that it has.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one and prints it.")
    ] = 8000,
    topk: Annotated[int, typer.Option(min=1, help="Results where a request names no number.")] = 3,
    threads: Annotated[
        int,
        typer.Option(min=1, help="Calls of the engine at once; more for web or http, which wait."),
    ] = 1,
    batch: Annotated[
        int, typer.Option(min=1, help="Queries of one call of the engine, at most.")
    ] = 64,
    batch_wait: Annotated[
        float, typer.Option(min=0, help="Milliseconds that a query may wait for company.")
    ] = 2.0,
    max_queries: Annotated[int, typer.Option(min=1, help="Queries of a request, at most.")] = 4096,
    max_query: Annotated[int, typer.Option(min=1, help="Characters of a query, at most.")] = 4096,
    max_topk: Annotated[int, typer.Option(min=1, help="Results of a query, at most.")] = 100,
    max_body: Annotated[float, typer.Option(min=0.001, help="MiB of a request, at most.")] = 32.0,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Queries that may wait; past it a request gets 503.")
    ] = 16384,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds that a request may take; past it it gets 504.")
    ] = 300.0,
) -> None:
    """Serve an index, or any search engine, with Search-R1's /retrieve.

    POST /retrieve takes {"queries": [...], "topk": 3, "return_scores": true}; GET /health and
    GET /metrics (Prometheus) tell how it is. Ctrl-C, or SIGTERM, finishes what is under way.
    There is no password: whoever reaches the address can search.

    Example: ovd serve-search wiki.index --port 8000
    """
    with contextlib.ExitStack() as stack:
        # First of all: a taken port is known before a large index is opened.
        listening = stack.enter_context(_listen(host, port))
        from ovd_envs.search.index import open_engine
        from ovd_envs.search.server import ServerLimits, create_app

        opened = open_engine(index, engine)
        if close := getattr(opened, "close", None):
            stack.callback(close)
        app = create_app(
            opened,
            topk=topk,
            limits=ServerLimits(
                queries=max_queries,
                query_characters=max_query,
                topk=max_topk,
                body_bytes=int(max_body * 2**20),
                waiting=max_waiting,
                seconds=timeout,
            ),
            threads=threads,
            max_batch=batch,
            wait=batch_wait / 1000,
        )
        shown = f"[{host}]" if ":" in host else host
        chosen = listening.getsockname()[1]
        typer.echo(f"{opened.name} on http://{shown}:{chosen}/retrieve (Ctrl-C stops)")
        _run(app, listening, timeout)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``OVDError`` where the address cannot be had."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        # The protocol by its number: asyncio turns Nagle's algorithm off for no other socket, and
        # with it each answer would wait 40 ms for the client's acknowledgement.
        listening = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(2048)
        except OSError:
            listening.close()
            raise
        return listening
    except UnicodeError as error:  # "a..b", which cannot be asked for in the DNS
        raise OVDError(f"--host: expected an address or a name, got {host!r}") from error
    except OSError as error:
        raise OVDError(
            f"cannot listen on {host}, port {port}: {error.strerror or error} "
            "(--port 0 takes a free port)"
        ) from error


def _run(app: object, listening: socket.socket, seconds: float) -> None:
    """Serve until SIGTERM (returns) or Ctrl-C (raises ``KeyboardInterrupt``)."""
    import uvicorn

    # uvicorn stops at the signal, then sends it to itself again: the process ends well by then.
    signal.signal(signal.SIGTERM, lambda *_: None)
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_level="warning",
        access_log=False,
        # Its one task, to end the engine's threads, is done by the end of the process; and uvicorn
        # prints a traceback where Ctrl-C comes before it has begun.
        lifespan="off",
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(seconds) + 1,
    )
    server = uvicorn.Server(config)
    try:
        server.run(sockets=[listening])
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; what was under way was answered") from None
