"""A million passages: what an index costs to build, to search and to open, beside plain tantivy.

    python benchmarks/search.py
    python benchmarks/search.py --passages 100000

Prints JSON. The passages and the questions come from an invented world. Builds take turns, each in
a process of its own (so that peak memory is its own); queries of the two take turns in one process
on one core. What 21 million passages (Wikipedia in hundred-word pieces) would cost is the straight
line through a quarter, a half and all of the passages.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tantivy

from ovd_envs.search.bm25 import BM25Engine
from ovd_envs.search.corpus import Document
from ovd_envs.world import World, WorldTasks

WIKIPEDIA = 21_000_000
QUERIES = 300
ROUNDS = 2
SEED = 0
STARTS = 5
K = 10

#: A world has a little more than two pages a person.
PAGES_PER_PERSON = 2.0

_OVD = "import ovd; ovd.main()"


def main() -> None:
    if sys.argv[1:2] == ["--raw-build"]:
        raw_build(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    options = argparse.ArgumentParser()
    options.add_argument("--passages", type=int, default=1_000_000)
    passages = options.parse_args().passages
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps(measure(Path(place), passages), indent=2))


def measure(place: Path, passages: int) -> dict[str, Any]:
    people = int(passages / PAGES_PER_PERSON) + 50
    world = World(SEED, people=people, split="train")
    sizes = [passages // 4, passages // 2, passages]
    files = [place / f"{size}.jsonl" for size in sizes]
    words = write_corpora(world.documents(), dict(zip(sizes, files, strict=True)))
    indexes = [place / f"{size}.index" for size in sizes]
    ours = [build([*command(), "index", files[n], "--out", indexes[n]]) for n in (0, 1)]
    rounds = []
    for turn in range(ROUNDS):
        raw_folder = place / "raw"
        subprocess.run(["rm", "-rf", raw_folder, indexes[-1]], check=True)
        raw_folder.mkdir()
        raw = build([sys.executable, __file__, "--raw-build", str(files[-1]), str(raw_folder)])
        mine = build([*command(), "index", files[-1], "--out", indexes[-1]])
        rounds.append({"turn": turn, "tantivy": raw, "ovd": mine})
    best = {side: min(r[side]["seconds"] for r in rounds) for side in ("tantivy", "ovd")}
    ours.append({**rounds[-1]["ovd"], "seconds": best["ovd"]})
    tasks = WorldTasks((1, 2, 3, 4), people=people, seed=SEED)
    questions = [tasks.task("train", number).question for number in range(QUERIES)]
    latency = [query_times(index, None, questions)["ovd"] for index in indexes[:-1]]
    both = query_times(indexes[-1], raw_folder, questions)
    latency.append(both["ovd"])
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "tantivy": tantivy.__version__,
        "passages": passages,
        "words_per_passage": round(words, 1),
        "corpus_bytes": files[-1].stat().st_size,
        "builds": rounds,
        "build_ratio": round(best["ovd"] / best["tantivy"], 3),
        "peak_mb": max(r["ovd"]["peak_mb"] for r in rounds),
        "query": both,
        "query_ratio_p50": round(both["ovd"]["p50_ms"] / both["tantivy"]["p50_ms"], 3),
        "start_to_answer_s": start_times(indexes[-1], questions),
        "growth": [
            {
                "passages": size,
                "build_s": built["seconds"],
                "index_mb": round(folder_bytes(index) / 1e6),
                "p50_ms": times["p50_ms"],
            }
            for size, built, index, times in zip(sizes, ours, indexes, latency, strict=True)
        ],
        "at_21_million": {
            "build_minutes": round(line(sizes, [b["seconds"] for b in ours]) / 60, 1),
            "index_gb": round(line(sizes, [folder_bytes(i) for i in indexes]) / 1e9, 1),
            "p50_ms": round(line(sizes, [t["p50_ms"] for t in latency]), 1),
        },
    }


def write_corpora(documents: Iterator[Document], files: dict[int, Path]) -> float:
    """Write the first documents to each file, as many as it says; returns words a passage."""
    handles = {size: path.open("w") for size, path in files.items()}
    words = number = 0
    for number, document in enumerate(islice(documents, max(files)), start=1):
        line = json.dumps(
            {"id": document.id, "contents": f'"{document.title}"\n{document.text}'},
            ensure_ascii=False,
        )
        words += document.text.count(" ") + 1
        for size, handle in handles.items():
            if number <= size:
                handle.write(line + "\n")
    for handle in handles.values():
        handle.close()
    if number < max(files):
        raise SystemExit(f"the world has {number} pages only, {max(files)} are wanted")
    return words / number


def command() -> list[Any]:
    return [sys.executable, "-c", _OVD]


def build(arguments: list[Any]) -> dict[str, float]:
    """Seconds (all of the process) and peak memory."""
    began = time.perf_counter()
    process = subprocess.Popen([str(a) for a in arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} failed")
    return {
        "seconds": round(time.perf_counter() - began, 2),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }


def raw_build(corpus: Path, folder: Path) -> None:
    """The same corpus by the library alone, as its own documentation uses it."""
    schema = tantivy.SchemaBuilder()
    schema.add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
    schema.add_text_field("contents", stored=True, tokenizer_name="en_stem", index_option="freq")
    index = tantivy.Index(schema.build(), str(folder))
    writer = index.writer()
    with corpus.open("rb") as lines:
        for line in lines:
            row = json.loads(line)
            writer.add_document(tantivy.Document(id=row["id"], contents=row["contents"]))
    writer.commit()
    writer.wait_merging_threads()


def query_times(index: Path, raw: Path | None, questions: list[str]) -> dict[str, Any]:
    """Milliseconds of a query by each, in turns on one core, the second time it is asked."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    engine = BM25Engine(index)
    sides: dict[str, Callable[[str], object]] = {"ovd": lambda text: engine.search([text], K)}
    if raw is not None:
        sides["tantivy"] = raw_search(raw)
    times: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(2):
        for text in questions:
            for side, search in sides.items():
                began = time.perf_counter()
                search(text)
                if turn:
                    times[side].append(1000 * (time.perf_counter() - began))
    os.sched_setaffinity(0, cores)
    return {
        side: {
            "p50_ms": round(float(np.quantile(values, 0.5)), 2),
            "p95_ms": round(float(np.quantile(values, 0.95)), 2),
        }
        for side, values in times.items()
    }


def raw_search(folder: Path) -> Callable[[str], object]:
    index = tantivy.Index.open(str(folder))
    searcher = index.searcher()

    def search(text: str) -> list[object]:
        query, _ = index.parse_query_lenient(text, ["contents"])
        hits = searcher.search(query, K, count=False).hits
        return [searcher.doc(address).to_dict() for _, address in hits]

    return search


def start_times(index: Path, questions: list[str]) -> dict[str, float]:
    """Seconds from the start of `ovd search` to its end."""
    times = []
    for text in questions[:STARTS]:
        began = time.perf_counter()
        subprocess.run(
            [*command(), "search", index, text, "--json"], stdout=subprocess.DEVNULL, check=True
        )
        times.append(time.perf_counter() - began)
    return {"median": round(statistics.median(times), 3), "most": round(max(times), 3)}


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def line(sizes: list[int], values: list[float]) -> float:
    """The value at Wikipedia's size of the straight line through the measured ones."""
    slope, start = np.polyfit(sizes, values, 1)
    return float(start + slope * WIKIPEDIA)


if __name__ == "__main__":
    main()
