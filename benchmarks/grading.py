"""How fast answers are graded, and how often the grader agrees with labelled pairs.

    python benchmarks/grading.py
    python benchmarks/grading.py ../shared/data/grading/*_pairs.jsonl

Prints JSON: easy pairs (whole numbers in messages) a second in one thread, resets and steps of
``ovd/Math-v0`` a second, and for each file of pairs the agreement with its "expected" and the
pairs a second in one worker process.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ovd_envs
from ovd_envs.grade_command import grade_pairs
from ovd_envs.grading import grade_math, grade_message

EASY = 50_000
EPISODES = 20_000


def rate(count: int, work: Callable[[], None]) -> dict[str, float]:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {"per_second": round(count / wall), "per_processor_second": round(count / processor)}


def easy_messages() -> None:
    for n in range(EASY):
        grade_message((str(n),), f"The sum is \\boxed{{{n + n % 2}}}.", kind="number")


def easy_pairs() -> None:
    for n in range(EASY):
        grade_math(f"{n:,}", str(n + n % 2))


def episodes() -> None:
    env = ovd_envs.make("ovd/Math-v0")
    for seed in range(EPISODES):
        env.reset(seed=seed)
        env.step("\\boxed{5}")


def labelled(path: Path) -> dict[str, Any]:
    start = time.perf_counter()
    report = grade_pairs("math", [path])
    seconds = time.perf_counter() - start
    return {
        "n": report["n"],
        "agree": report["agree"],
        "timeouts": report["timeouts"],
        "per_second": round(report["n"] / seconds),
    }


def main() -> None:
    grade_math("x + 1", "1 + x")  # starts a worker process
    result: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.processor() or platform.machine(),
        "easy_messages": rate(EASY, easy_messages),
        "easy_pairs": rate(EASY, easy_pairs),
        "episodes": rate(EPISODES, episodes),
        "files": {Path(name).name: labelled(Path(name)) for name in sys.argv[1:]},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
