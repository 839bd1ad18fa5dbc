"""How fast and how steadily `ovd serve-search` answers many clients at once.

    python benchmarks/search_server.py
    python benchmarks/search_server.py --index wiki.index --clients 64 --seconds 60

Starts `ovd serve-search` as a process of its own, and clients in other processes; each client
keeps one connection and sends one request after the other. Without --index the corpus is made
here. Prints JSON: requests, errors, queries a second, the percentiles of a request's time in
milliseconds, the mean size of the engine's batches, and the server's peak memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import requests

PASSAGES = 100_000
WORDS = 20_000
#: Clients in one process: threads, which share its processor.
CLIENTS_A_PROCESS = 16


def words_of(draw: random.Random, count: int) -> list[str]:
    # A few words are common and most are rare, as in any language.
    return [f"w{int(WORDS * draw.random() ** 3)}" for _ in range(count)]


def make_corpus(path: Path) -> None:
    draw = random.Random(0)
    with path.open("w") as handle:
        for number in range(PASSAGES):
            text = " ".join(words_of(draw, 60))
            handle.write(
                json.dumps({"id": str(number), "title": f"P{number}", "text": text}) + "\n"
            )


def start_server(index: str, options: list[str]) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "ovd", "serve-search", index, "--port", "0", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    line = server.stdout.readline()
    found = re.search(r"http://\S+/retrieve", line)
    if found is None:
        sys.exit(f"the server did not start: {line}")
    return server, found[0]


def client(url: str, seed: int, end: float, topk: int, out: list[Any]) -> None:
    draw = random.Random(seed)
    times, errors = [], []
    with requests.Session() as session:
        session.trust_env = False
        while time.time() < end:
            body = {
                "queries": [" ".join(words_of(draw, 6))],
                "topk": topk,
                "return_scores": True,
            }
            began = time.perf_counter()
            try:
                reply = session.post(url, json=body, timeout=30)
                if reply.status_code != 200 or len(reply.json()["result"]) != 1:
                    errors.append(f"HTTP {reply.status_code}")
            except requests.RequestException as error:
                errors.append(type(error).__name__)
            times.append(time.perf_counter() - began)
    out.append((times, errors))


def clients(url: str, seeds: list[int], end: float, topk: int, results: Any) -> None:
    out: list[Any] = []
    threads = [threading.Thread(target=client, args=(url, seed, end, topk, out)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(out)


def metric(text: str, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def peak_memory(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**20  # type: ignore[index]


def load(url: str, count: int, seconds: float, topk: int) -> dict[str, Any]:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    end = time.time() + seconds
    seeds = list(range(count))
    workers = [
        context.Process(target=clients, args=(url, seeds[i::n], end, topk, results))
        for n in [max(1, count // CLIENTS_A_PROCESS)]
        for i in range(n)
    ]
    for worker in workers:
        worker.start()
    gathered = [item for _ in workers for item in results.get()]
    for worker in workers:
        worker.join()
    times = sorted(t for times, _ in gathered for t in times)
    errors = [e for _, errors in gathered for e in errors]

    def percentile(share: float) -> float:
        return round(1000 * times[min(int(share * len(times)), len(times) - 1)], 2)

    return {
        "clients": count,
        "seconds": seconds,
        "requests": len(times),
        "errors": len(errors),
        "kinds_of_errors": sorted(set(errors)),
        "requests_per_second": round(len(times) / seconds, 1),
        "p50_ms": percentile(0.50),
        "p90_ms": percentile(0.90),
        "p99_ms": percentile(0.99),
        "max_ms": percentile(1.0),
        "fewest_requests_of_a_client": min(len(t) for t, _ in gathered),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--index", help="folder of an index, or NAME:VALUE; default: made here")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--topk", type=int, default=3)
    parser.add_argument("options", nargs="*", help="after --: options of `ovd serve-search`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = arguments.index
        if index is None:
            corpus, index = Path(folder) / "corpus.jsonl", f"{folder}/index"
            make_corpus(corpus)
            command = [sys.executable, "-m", "ovd", "index", str(corpus), "--out", index]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        server, url = start_server(index, arguments.options)
        try:
            report = load(url, arguments.clients, arguments.seconds, arguments.topk)
            text = requests.get(url.replace("/retrieve", "/metrics"), timeout=30).text
            calls = metric(text, "ovd_search_batch_queries_count")
            report["mean_batch"] = round(metric(text, "ovd_search_batch_queries_sum") / calls, 2)
            report["server_peak_gib"] = round(peak_memory(server.pid), 3)
        finally:
            server.send_signal(signal.SIGTERM)
            report_code = server.wait(60)
    report |= {
        "server_exit_code": report_code,
        "passages": PASSAGES if arguments.index is None else None,
        "python": platform.python_version(),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
