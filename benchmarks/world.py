"""What the invented world costs, and how little of it can be guessed.

    python benchmarks/world.py
    python benchmarks/world.py --passages 1000000

Prints JSON: milliseconds to make a world of 400 people; tasks, HTML pages, and passages of a large
world a second, with the growth of memory (all seconds are the processor's, of one thread); how
often a search by an entity's name has its page first and among three; how often the question
itself, as the only query, finds all that is needed; and for each form and number of hops how often
the best constant answer of a kind is right (the mean over kinds, and the worst kind).
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Any

from ovd_envs.search.bm25 import BM25Engine
from ovd_envs.world import World, WorldTasks, kinds_of
from ovd_envs.world.questions import form_of

PEOPLE = 400
TASKS = 3_000
#: Questions of each kind from which its best constant answer is counted.
PER_KIND = 1_000


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds: all that is measured here is one thread's own work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def large(passages: int) -> dict[str, Any]:
    start = time.process_time()
    world = World(people=max(50, passages // 2))
    made = time.process_time() - start
    before = megabytes()
    start = time.process_time()
    count = sum(1 for _ in islice(world.documents(), passages))
    return {
        "passages": count,
        "construct_seconds": round(made, 3),
        "per_second": round(count / (time.process_time() - start)),
        "memory_before_mb": round(before, 1),
        "memory_growth_mb": round(megabytes() - before, 1),
    }


def found(split: str) -> dict[str, float]:
    """Shares of what a search finds among its first results."""
    world = World(PEOPLE, people=PEOPLE, split=split)
    engine = BM25Engine.from_documents(world.documents())
    pages = [page for page in world.page_keys() if page.type == "entity"]
    shown = [
        [r.id for r in found] for found in engine.search([world.name(p.ref) for p in pages], 3)
    ]
    shares = {
        f"name_top_{k}": sum(p.id in ids[:k] for p, ids in zip(pages, shown, strict=True))
        / len(pages)
        for k in (1, 3)
    }
    for hops in (1, 2, 3, 4):
        source = WorldTasks(hops, kinds="chain", people=PEOPLE, seed=PEOPLE)
        tasks = [source.task(split, index) for index in range(1000)]
        results = engine.search([task.question for task in tasks], 3)
        shares[f"question_as_query_{hops}_hop"] = sum(
            {r.id for r in found} >= set(task.metadata["support"])
            for task, found in zip(tasks, results, strict=True)
        ) / len(tasks)
    return {name: round(share, 3) for name, share in shares.items()}


def guesses() -> dict[str, Any]:
    shares: dict[str, dict[str, float]] = {}
    for hops in (1, 2, 3, 4):
        for kind in kinds_of(hops):
            source = WorldTasks(hops, kinds=kind, people=PEOPLE)
            answers = Counter(source.task("test", i).answers[0] for i in range(PER_KIND))
            share = answers.most_common(1)[0][1] / PER_KIND
            shares.setdefault(f"{form_of(kind)}_{hops}_hop", {})[kind] = share
    return {
        form: {
            "kinds": len(by_kind),
            "mean": round(sum(by_kind.values()) / len(by_kind), 3),
            "worst": max(by_kind.values()),
            "worst_kind": max(by_kind, key=lambda kind: by_kind[kind]),
        }
        for form, by_kind in shares.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--passages", type=int, default=100_000)
    options = parser.parse_args()
    large_world = large(options.passages)
    world = World(people=PEOPLE)
    keys = list(world.page_keys())
    sources = {hops: WorldTasks(hops) for hops in (1, 2, 3, 4)}
    report = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "world_400_milliseconds": round(1000 * seconds(lambda: World(people=PEOPLE)), 1),
        "tasks_per_second": {
            hops: round(TASKS / seconds(lambda s=source: [s.task("test", i) for i in range(TASKS)]))
            for hops, source in sources.items()
        },
        "pages_per_second": round(
            len(keys) / seconds(lambda: [world.page(key.id) for key in keys])
        ),
        "large": large_world,
        "found": {split: found(split) for split in ("train", "test")},
        "best_constant_answer": guesses(),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
