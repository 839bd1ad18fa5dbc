"""A whole episode without a model: ours beside GEM's, on the same tasks, messages and verdicts.

    python benchmarks/environments.py

GEM (the package gem-llm 0.1.0) is no dependency of this project. Where it cannot be imported, our
side is timed alone and the JSON says how to get it: into a virtual environment of its own, with
this project, since both pin what they need.

What is timed is ``reset()`` and ``step(message)``, from the call to the return: a task is drawn,
the prompt is made, the answer is read from the message and graded, and the infos are made. Both
sides hold the same questions and gold answers in memory, and get the same message for the same
question; half of the messages are right. The look-up of the message (a dictionary) is in the time
of both. Not timed: making the environment, and the first round, in which workers start and caches
fill. Rounds of the two alternate in this process; a figure is the median of the rounds' means, in
milliseconds. ``same_verdicts`` counts the tasks for which both give the same reward, in a pass that
is not timed.

- ``math_numbers``: two-digit sums. GEM grades in a process (its default), first as text, then by
  sympy and math-verify; ours compares plain numbers exactly, in this process.
- ``math_algebra``: gold answers that are no plain number, right ones written another way, so that
  both sides need computer algebra in a process. 360 gold answers: more than our worker remembers.
- ``qa``: questions with gold answers in words, ``<answer>`` in the message, exact match on both
  sides (``ovd/WebQA-v0`` counts F1 too). Nobody searches; an engine over 900 pages is there.
- ``world_qa``: ``ovd/WorldQA-v0`` as it comes, whose questions are made as they are drawn. GEM has
  no such thing: it is its time on ``qa``.

``seeded`` is the same with ``reset(seed=n)``, which makes a generator of random numbers each time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ovd_envs
from ovd_envs import ListTasks, Task
from ovd_envs.grading.pool import shared_pool
from ovd_envs.math_tasks import ArithmeticTasks
from ovd_envs.world.env import world_index
from ovd_envs.world.tasks import WorldTasks

GEM = """\
python -m venv gem && gem/bin/pip install -c constraints.txt . && \
gem/bin/pip install gem-llm==0.1.0 pylatexenc && gem/bin/python benchmarks/environments.py"""

#: Gold answers of algebra, the same written in another way, and a wrong answer; K is a number.
ALGEBRA = (
    (r"\frac{\sqrt{3}}{K}", r"\sqrt{3}/K", r"\frac{\sqrt{2}}{K}"),
    (r"(x+K)^2", r"x^2 + 2 \cdot K x + K^2", r"(x-K)^2"),
    (r"K\sqrt{5}", r"\sqrt{5 \cdot K^2}", r"5\sqrt{K}"),
    (r"(K, \frac{\pi}{2})", r"(K, \pi/2)", r"(K, \pi)"),
    (r"\frac{1}{x+K}", r"(x+K)^{-1}", r"\frac{1}{x-K}"),
    (r"[K, 500)", r"\left[K, 500\right)", r"[K, 501)"),
    (r"K + 9i", r"9i + K", r"K - 9i"),
    (r"\frac{\pi}{K}", r"\frac{1}{K}\pi", r"\frac{2\pi}{K}"),
    (r"x^3 - Kx", r"x(x^2 - K)", r"x^3 + Kx"),
    (r"\{1, 2, K\}", r"\{K, 2, 1\}", r"\{1, K\}"),
    (r"K + \sqrt{2}", r"\sqrt{2} + K", r"K - \sqrt{2}"),
    (r"Kab^2", r"b^2 a \cdot K", r"Ka^2b"),
)


@dataclass(frozen=True)
class Row:
    """A question, its gold answer, and what is said to it."""

    question: str
    gold: str
    said: str


@dataclass(frozen=True)
class Side:
    """One of the two: start and finish an episode, and what the model would say."""

    reset: Callable[[], str]
    seeded: Callable[[int], str]
    step: Callable[[str], float]
    #: The message by what is observed, and the question too, so that verdicts can be compared.
    replies: Mapping[str, str]
    close: Callable[[], None]


def number_rows() -> list[Row]:
    """Sums; every second answer is wrong by one."""
    tasks = ArithmeticTasks("addition").distinct("train", 200)
    return [
        Row(t.question, t.answers[0], rf"I add them up: \boxed{{{int(t.answers[0]) + n % 2}}}")
        for n, t in enumerate(tasks)
    ]


def algebra_rows() -> list[Row]:
    """Each form with many numbers; every second answer is wrong."""
    rows = []
    for number in range(11, 41):
        for form, texts in enumerate(ALGEBRA):
            gold, *answers = (text.replace("K", str(number)) for text in texts)
            question = f"Simplify number {number} of form {form}."
            rows.append(
                Row(question, gold, rf"So it is $\boxed{{{answers[(number + form) % 2]}}}$.")
            )
    return rows


def word_rows() -> list[Row]:
    """Questions about an invented world; every second answer is another question's."""
    tasks = WorldTasks((1, 2)).distinct("train", 200)
    golds = [task.answers[0] for task in tasks]
    return [
        Row(t.question, golds[n], f"<think>Well.</think> <answer>{golds[n - n % 2]}</answer>")
        for n, t in enumerate(tasks)
    ]


def our_side(name: str, rows: Sequence[Row], **options: Any) -> Side:
    """An environment of this project over ``rows``."""
    tasks = [Task(str(number), row.question, (row.gold,)) for number, row in enumerate(rows)]
    env = ovd_envs.make(name, source=ListTasks("rows", train=tasks), **options)
    replies = {}
    for task, row in zip(tasks, rows, strict=True):
        observation, _ = env.reset(options={"task": task})
        replies[observation] = row.said
    return Side(
        lambda: env.reset()[0],
        lambda seed: env.reset(seed=seed)[0],
        lambda said: env.step(said)[1],
        replies,
        env.close,
    )


def world_side() -> Side:
    """``ovd/WorldQA-v0`` as it comes: the same is said to every question."""

    class Everything(dict[str, str]):
        def __missing__(self, observation: str) -> str:
            return "<think>Well.</think> <answer>Ada Varnmoor</answer>"

    env = ovd_envs.make("ovd/WorldQA-v0")
    return Side(
        lambda: env.reset()[0],
        lambda seed: env.reset(seed=seed)[0],
        lambda said: env.step(said)[1],
        Everything(),
        env.close,
    )


def gem_side(kind: str, rows: Sequence[Row]) -> Side:
    """GEM's environment over ``rows``. Raises ``ImportError`` where GEM is not there."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    if kind == "math":
        from gem.envs.math_env import MathEnv

        data = [{"problem": row.question, "answer": row.gold} for row in rows]
        env: Any = MathEnv(dataset=Dataset.from_list(data))
    else:
        from gem.envs.qa_env import QaEnv

        data = [{"question": row.question, "answer": [row.gold]} for row in rows]
        env = QaEnv(dataset=Dataset.from_list(data), load_from_cache_file=False)
    said = {row.question: row.said for row in rows}
    replies = {}
    for _ in rows:  # its questions come one after the other
        observation, _ = env.reset()
        question = next(question for question in said if question in observation)
        replies[observation] = said[question]
    return Side(
        lambda: env.reset()[0],
        lambda seed: env.reset(seed=seed)[0],
        lambda said: float(env.step(said)[1]),
        replies,
        getattr(env, "close", lambda: None),
    )


def episodes(side: Side, count: int, *, seeded: bool = False) -> float:
    """Milliseconds that an episode takes, the mean of ``count``."""
    start = time.perf_counter()
    for number in range(count):
        observation = side.seeded(number) if seeded else side.reset()
        side.step(side.replies[observation])
    return (time.perf_counter() - start) * 1000 / count


def verdicts(side: Side, rows: Sequence[Row]) -> dict[str, float]:
    """The reward for each question, as far as it comes up in some rounds."""
    found: dict[str, float] = {}
    for _ in range(40 * len(rows)):
        observation = side.reset()
        if observation not in found:
            found[observation] = side.step(side.replies[observation])
        if len(found) == len(rows):
            break
    questions = {row.question for row in rows}
    return {
        next(question for question in questions if question in observation): reward
        for observation, reward in found.items()
    }


def compare(sides: Mapping[str, Side], rows: Sequence[Row], rounds: int, count: int) -> Any:
    """The figures of one case."""
    result: dict[str, Any] = {}
    for kind in ("plain", "seeded"):
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds + 1):
            for name, side in sides.items():
                taken = episodes(side, count, seeded=kind == "seeded")
                if number:  # the first round warms up
                    times[name].append(taken)
        figures: dict[str, Any] = {
            name: {
                "ms": round(statistics.median(found), 4),
                "from_to": [round(min(found), 4), round(max(found), 4)],
            }
            for name, found in times.items()
        }
        if len(sides) == 2:
            ours, theirs = (figures[name]["ms"] for name in ("ovd", "gem"))
            figures["ovd_to_gem"] = round(ours / theirs, 4)
        result[kind] = figures
    if rows and len(sides) == 2:
        one, other = (verdicts(sides[name], rows) for name in ("ovd", "gem"))
        same = [one[question] == other[question] for question in one.keys() & other.keys()]
        result["same_verdicts"] = f"{sum(same)} of {len(same)}"
    return result


def main() -> None:
    """Time all cases and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--episodes", type=int, default=100, help="episodes a round and side")
    options = parser.parse_args()
    engine = world_index(0, 400, "train")
    cases = {
        "math_numbers": ("math", number_rows(), "ovd/Math-v0", {}),
        "math_algebra": ("math", algebra_rows(), "ovd/Math-v0", {}),
        "qa": ("qa", word_rows(), "ovd/WebQA-v0", {"engine": engine, "reward": "em"}),
    }
    result: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": platform.processor() or platform.machine(),
        "gem": "0.1.0",
    }
    made: dict[str, dict[str, Side]] = {}
    for name, (kind, rows, env, env_options) in cases.items():
        made[name] = {}
        try:  # first, since it forks this process
            made[name]["gem"] = gem_side(kind, rows)
        except ImportError as error:
            result["gem"] = f"not timed ({error}); to have it: {GEM}"
        made[name]["ovd"] = our_side(env, rows, **env_options)
    for name, (_, rows, _, _) in cases.items():
        result[name] = compare(made[name], rows, options.rounds, options.episodes)
    result["world_qa"] = compare({"ovd": world_side()}, [], options.rounds, options.episodes)
    for sides in made.values():
        for side in sides.values():
            side.close()
    shared_pool().close()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
