"""A judge behind an API: how near to the ideal, how fast from the cache, and in how much memory.

    python benchmarks/judging.py

A server of its own process answers every call after ``latency`` seconds. "api": ``ovd score``'s own
function on a file of episodes; the ideal is concurrency / latency verdicts a second, and the
seconds include reading the file. "cached": the episodes in memory, every verdict from the cache.
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
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from agents.episode import Episode, Turn, read_episodes, write_episodes
from ovd_envs.task import Task
from teachers import VerdictCache, make_judge, score
from teachers.score_file import score_file


def serve(latency: float, told: Connection) -> None:
    """Answer chat completions for ever; the port goes to ``told``."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length")
            )
            asked = json.loads(await reader.readexactly(length))
            await asyncio.sleep(latency)
            mark = asked["messages"][1]["content"].rsplit('"id": "', 1)[1][:8]
            text = json.dumps({"id": mark, "reason": "The sum is right.", "score": 8})
            choice = {"index": 0, "message": {"role": "assistant", "content": text}}
            usage = {"prompt_tokens": 400, "completion_tokens": 30, "total_tokens": 430}
            reply = {
                "id": "x",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [{**choice, "finish_reason": "stop"}],
                "usage": usage,
            }
            body = json.dumps(reply).encode()
            header = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
            writer.write(f"{header}{len(body)}\r\n\r\n".encode() + body)
            await writer.drain()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
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
    assert first == again == cached
    assert all(verdict.score == 8 for verdict in first)
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
