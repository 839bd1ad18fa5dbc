"""A judge behind an API: how near to the ideal, how fast from the cache, and in how much memory.

    python benchmarks/judging.py

A server of its own process answers every call ``latency`` seconds after it came, with the
log-probabilities that are asked for. "api": ``ovd score``'s own function on a file of episodes; the
ideal is concurrency / latency verdicts a second, and the seconds include reading the file.
"cached": the episodes in memory, every verdict from the cache.
"file": the whole of the second run, reading the file and writing the verdicts included. Memory is
the peak of this process, before and after. Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from agents.episode import Episode, Turn, read_episodes, write_episodes
from ovd_envs.task import Task
from teachers import Verdict, VerdictCache, make_judge, score
from teachers.score_file import score_file


class Server(asyncio.Protocol):
    """A connection on which every call is answered ``latency`` seconds after its last byte came.

    The work of answering is within that time, so that what is measured is the judge's side alone.
    """

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._loop = asyncio.get_running_loop()
        self._came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what the answers are written to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take a part of a call; once it is whole, have its answer written in time."""
        due = self._loop.time() + self._latency
        self._came += data
        head, blank, body = self._came.partition(b"\r\n\r\n")
        if not blank or len(body) < content_length(head):
            return
        self._came = b""
        self._loop.call_at(due, self._transport.write, answer(json.loads(body)))


def content_length(head: bytes) -> int:
    return next(
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )


def answer(asked: dict[str, Any]) -> bytes:
    """A good verdict; each of its tokens with as many alternatives as are asked for."""
    mark = asked["messages"][1]["content"].rsplit('"id": "', 1)[1][:8]
    text = json.dumps({"id": mark, "reason": "The sum is right.", "score": 8})
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    if asked.get("logprobs"):
        others = [
            {"token": f"other {n}", "logprob": -20.0 - n, "bytes": list(f"other {n}".encode())}
            for n in range(asked["top_logprobs"] - 1)
        ]
        # The score is a token of its own.
        parts = [*(text[:-2][n : n + 4] for n in range(0, len(text) - 2, 4)), *text[-2:]]
        tokens = [{"token": part, "logprob": 0.0, "bytes": list(part.encode())} for part in parts]
        content = [{**token, "top_logprobs": [token, *others]} for token in tokens]
        choice["logprobs"] = {"content": content}
    reply = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 400, "completion_tokens": 30, "total_tokens": 430},
    }
    body = json.dumps(reply).encode()
    header = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{header}{len(body)}\r\n\r\n".encode() + body


def serve(latency: float, told: Connection) -> None:
    """Answer chat completions for ever; the port goes to ``told``."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Server(latency), "127.0.0.1", 0, backlog=1024)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def make_episodes(count: int) -> list[Episode]:
    """Short episodes of mathematics, no two alike."""
    return [
        Episode(
            task=Task(f"t/{n}", f"What is {n} + 58?", (str(n + 58),)),
            env="ovd/Math-v0",
            agent="student",
            observation=f"What is {n} + 58? Give the final answer in \\boxed{{}}.",
            turns=[Turn(f"{n} + 58 = {n + 58}. \\boxed{{{n + 58}}}", reward=1.0)],
            reward=1.0,
            terminated=True,
            end_reason="answered",
            group=str(n),
        )
        for n in range(count)
    ]


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def said(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Without what was paid for them: a file that takes them from the cache has paid nothing."""
    return [replace(one, prompt_tokens=0, completion_tokens=0) for one in verdicts]


def measure(episodes: int, concurrency: int, latency: float, folder: Path) -> dict[str, Any]:
    """Judge them by the API, then from the cache."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(latency, theirs), daemon=True
    )
    server.start()
    judge = make_judge(
        "llm",
        model="m",
        backend=f"openai:http://127.0.0.1:{ours.recv()}/v1",
        concurrency=concurrency,
    )
    path, cache = folder / "episodes.jsonl", VerdictCache(folder / "cache")
    write_episodes(path, make_episodes(episodes))
    before, began = peak_mb(), time.perf_counter()
    first = score_file(judge, path, folder / "first.jsonl", cache=cache)
    api = time.perf_counter() - began
    server.terminate()
    after = peak_mb()

    began = time.perf_counter()
    again = score_file(judge, path, folder / "again.jsonl", cache=VerdictCache(folder / "cache"))
    file = time.perf_counter() - began
    held = list(read_episodes(path))
    began = time.perf_counter()
    cached = score(judge, held, cache=VerdictCache(folder / "cache"))
    from_cache = time.perf_counter() - began
    assert said(first) == said(again) == said(cached)
    assert all(verdict.score == 8 and verdict.distribution for verdict in first)
    ideal = concurrency / latency
    return {
        "episodes": episodes,
        "concurrency": concurrency,
        "latency": latency,
        "api": {
            "seconds": api,
            "verdicts_per_second": episodes / api,
            "share_of_ideal": episodes / api / ideal,
        },
        "cached": {"seconds": from_cache, "verdicts_per_second": episodes / from_cache},
        "file": {"seconds": file, "verdicts_per_second": episodes / file},
        "peak_mb": {"before": before, "after": after},
    }


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=3000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(options.episodes, options.concurrency, options.latency, Path(folder))
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
