"""Real teachers end to end: a judge made with this toolkit, a trained student as demonstrator.

    python benchmarks/real_teachers.py --out runs/real-teachers       # hours on 2 cores; goes on

1. demo: the scripted run, `examples/math_cpu.yaml`.
2. judging: the episodes of its student with the step judge's verdicts, and some of its last student
   on other levels. Unseen: what it answered to held-out tasks at each evaluation; their sums stand
   in no solution of the other levels' tasks either.
3. judge: `examples/judge_cpu.yaml`: a fresh SmolLM2 learns to judge them without the gold answers.
4. reliability: that judge on the unseen episodes: through a server (vLLM over HTTP) held to a
   schema with the digits' probabilities, without a schema, and in this process, where all ten
   probabilities are known.
5. student: a fresh SmolLM2 by the recipe of 1, judged by the model of 3 and shown episodes by the
   student of 1, each on a server. No part of it knows a gold answer but the environment.

Every stage is kept in --out and not done twice; prints JSON. Needs vLLM (`make vllm`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

import training.commands  # noqa: F401 - reads run folders as students
from agents.episode import Episode, read_episodes, write_episodes
from agents.protocol import Capabilities, Completion, Request
from agents.serve_model import server_command
from agents.student_source import find_source
from agents.vllm_server import VLLMServerBackend
from ovd_envs import make
from ovd_envs.task import Task
from teachers import LLMJudge, StepJudge, load_rubric, make_judge, read_verdicts
from teachers.demonstrators import equations_of
from teachers.reliability import Judged, reliability
from teachers.score_file import score_file
from teachers.verdict import Verdict
from training.run import Run

ROOT = Path(__file__).parents[1]
RUBRIC = ROOT / "examples" / "judge_cpu_rubric.md"
THETA = 7.0
#: Two numbers that are added; those of "1 + 2 + 3" are two such pairs.
_SUM = re.compile(r"(?=\b(\d+) \+ (\d+)\b)")
#: Levels of which the judge sees some episodes beside the demo's, and how many of each.
OTHER_LEVELS = ("subtraction", "multiplication", "mixed", "word-1")


def ovd(*arguments: str) -> None:
    """Run the command; what it says goes to our stderr."""
    subprocess.run([sys.executable, "-m", "ovd", *arguments], check=True, stdout=sys.stderr)


def train(config: str, run: Path, changes: list[str]) -> None:
    """Train by an example's recipe, or go on with it."""
    if not (run / "summary.json").is_file():
        settings = [part for change in changes for part in ("--set", change)]
        ovd("train", str(ROOT / "examples" / config), "--run", str(run), "--resume", *settings)


def judging_files(out: Path, others: int, unseen: int) -> Path:
    """The episodes to learn from and the unseen ones, with the step judge's verdicts."""
    folder, demo = out / "judging", Run(out / "demo")
    stages = [
        replace(episode, agent=f"demo after step {result['step']}")
        for result in demo.evaluations()
        for episode in list(read_episodes(demo.evaluation_episodes(result["step"])))[:unseen]
    ]
    held_out = {pair for episode in stages for pair in sums_of(episode.task)}
    if not (folder / "episodes.jsonl").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        levels = OTHER_LEVELS if others else ()
        for level in levels:
            ovd(
                *("run", "ovd/Math-v0", "--student", str(demo), "-e", f"level={level}"),
                *("--split", "train", "--tasks", str(others)),
                *("--out", str(folder / f"{level}.jsonl")),
            )
        episodes = [
            judged.episode
            for row in demo.metrics()
            for group in demo.groups(row["step"]) or ()
            for judged in group.student
        ]
        for level in levels:
            told = read_episodes(folder / f"{level}.jsonl")
            # A judge is shown the solution: one in which a held-out sum is a step tells its result.
            episodes += [
                replace(episode, agent=f"demo on {level}")
                for episode in told
                if held_out.isdisjoint(sums_of(episode.task))
            ]
        write_episodes(folder / "episodes.jsonl", episodes)
    if not (folder / "unseen.jsonl").is_file():
        write_episodes(folder / "unseen.jsonl", stages)
    # For benchmarks/injection.py: the last wrong answer of the trained student to each task.
    untrained = f"demo after step {demo.evaluations()[0]['step']}"
    wrong = {e.task.id: e for e in stages if e.reward < 1 and e.agent != untrained}
    write_episodes(folder / "wrong.jsonl", wrong.values())
    for episodes_file, verdicts in (("episodes", "verdicts"), ("unseen", "unseen-verdicts")):
        score_file(StepJudge(), folder / f"{episodes_file}.jsonl", folder / f"{verdicts}.jsonl")
    return folder


def sums_of(task: Task) -> set[tuple[int, int]]:
    """The pairs of whole numbers that the task's solution adds, each the smaller first."""
    pairs = (pair for step in equations_of(task) for pair in _SUM.findall(step))
    return {(min(pair), max(pair)) for pair in (tuple(map(int, found)) for found in pairs)}


@contextlib.contextmanager
def served(run: Path, name: str, port: int, log: Path) -> Iterator[str]:
    """A vLLM server of the newest student of ``run``; its address while it runs."""
    more = ["--enforce-eager", "--dtype", "bfloat16"]
    more += ["--max-num-seqs", "64", "--max-model-len", "1024"]
    model = find_source(str(run)).model
    command, environment = server_command(model, name=name, host="127.0.0.1", port=port, more=more)
    # Two servers and a trainer share the memory: one GiB of keys and values is enough here.
    environment = {**environment, "VLLM_CPU_KVCACHE_SPACE": "1", **os.environ}
    with log.open("ab") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=said, env=environment, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(process, address, log)
        yield address
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + 900
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            if httpx2.get(f"{address}/health", trust_env=False).status_code == 200:
                return
        time.sleep(1)
    raise SystemExit(f"the server did not start: see {log}")


class Unheld:
    """A backend that is not asked to hold replies to a schema."""

    def __init__(self, backend: VLLMServerBackend) -> None:
        self._backend = backend
        self.name, self.dialect = backend.name, backend.dialect
        self.context_length = backend.context_length
        self.capabilities: Capabilities = replace(backend.capabilities, schema=False)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """As the backend."""
        return self._backend.generate(requests)


def judge_reliability(out: Path, address: str, exact: int) -> dict[str, Any]:
    """The judge on the unseen episodes, in each way of asking it."""
    folder = out / "judging"
    episodes = list(read_episodes(folder / "unseen.jsonl"))
    reference = {v.episode: v for v in read_verdicts(folder / "unseen-verdicts.jsonl")}
    model = find_source(str(out / "judge")).model
    common: dict[str, Any] = {"show_gold": False, "max_tokens": 128}
    results: dict[str, Any] = {}

    def ask(name: str, make: Callable[[], Any], asked: list[Episode]) -> None:
        kept = folder / f"asked-{name}.json"
        if not kept.is_file():
            write_episodes(folder / f"asked-{name}.jsonl", asked)
            judge, began = make(), time.perf_counter()
            files = folder / f"asked-{name}.jsonl", folder / f"asked-{name}.verdicts.jsonl"
            verdicts = score_file(judge, *files)
            seconds = round(time.perf_counter() - began, 1)
            found = {**figures(asked, verdicts, reference), "seconds": seconds}
            kept.write_text(json.dumps(found, indent=2) + "\n")
        results[name] = json.loads(kept.read_text())

    def free() -> LLMJudge:
        backend = Unheld(VLLMServerBackend.load(model, address=address))
        return LLMJudge(backend, rubric=load_rubric(str(RUBRIC)), batch_size=64, **common)

    named = {"rubric": str(RUBRIC), **common}
    api = {"model": "judge", "backend": f"openai:{address}/v1", "concurrency": 64, **named}
    ask("held-to-schema", lambda: make_judge("llm", **api), episodes)
    ask("free", free, episodes)
    # Every n-th, so that all stages are among them, of an n-th of the tasks.
    some = episodes[:: max(1, len(episodes) // exact)][:exact]
    ask("exact-digits", lambda: make_judge("llm", model=model, **named), some)
    return results


def figures(
    episodes: list[Episode], verdicts: list[Verdict], reference: dict[str, Verdict]
) -> dict[str, Any]:
    """What the verdicts say of the outcome, and how far they agree with the reference's."""
    judged = [Judged.of(e, verdict) for e, verdict in zip(episodes, verdicts, strict=True)]
    found = reliability("judge", judged, theta=THETA)
    pairs = [
        (verdict.score, theirs)
        for verdict in verdicts
        if verdict.score is not None and (theirs := reference[verdict.episode].score) is not None
    ]
    sums = [sum(v.distribution) for v in verdicts if v.distribution is not None]
    wrong = [v.error for v in verdicts if v.failed]
    accepted = [
        e.reward >= 1
        for e, v in zip(episodes, verdicts, strict=True)
        if not v.failed and v.accepted(THETA)
    ]

    def share(hits: list[bool]) -> float | None:
        return sum(hits) / len(hits) if hits else None

    return {
        "episodes": len(episodes),
        "right": sum(e.reward >= 1 for e in episodes),
        "errors": len(wrong),
        "first_errors": [str(error)[:200] for error in wrong[:3]],
        "auc": found.auc and [found.auc.value, found.auc.low, found.auc.high],
        "same_side_of_theta": share([(a >= THETA) == (b >= THETA) for a, b in pairs]),
        "within_1": share([abs(a - b) <= 1 for a, b in pairs]),
        "same_digit": share([round(a) == round(b) for a, b in pairs]),
        "accepted": len(accepted),
        "accepted_right": sum(accepted),
        "wrong": Counter(e.agent for e in episodes if e.reward < 1),
        "accepted_wrong": Counter(
            e.agent
            for e, v in zip(episodes, verdicts, strict=True)
            if not v.failed and v.accepted(THETA) and e.reward < 1
        ),
        "distributions": len(sums),
        "largest_gap_from_1": max((abs(1 - total) for total in sums), default=None),
        "mean_sum": sum(sums) / len(sums) if sums else None,
    }


def run_summary(run: Path) -> dict[str, Any]:
    """The curve of a run, what its teachers were asked for, and what its judge accepted."""
    summary = json.loads((run / "summary.json").read_text())
    curve = [
        {key: result[key] for key in ("step", "accuracy", "interval", "n")}
        for result in Run(run).evaluations()
    ]
    rows = Run(run).metrics()
    counted = ("judge_errors", "demonstrator_errors", "demonstrations_not_better")
    judged = [
        (one.episode.reward >= 1, one.verdict.accepted(THETA))
        for row in rows
        for group in Run(run).groups(row["step"]) or ()
        for one in group.student
        if one.verdict is not None and not one.verdict.failed
    ]
    return {
        **summary,
        "curve": curve,
        **{k: sum(row[k] for row in rows) for k in counted},
        "right": {"accepted": judged.count((True, True)), "rejected": judged.count((True, False))},
        "wrong": {
            "accepted": judged.count((False, True)),
            "rejected": judged.count((False, False)),
        },
    }


def taught_student(out: Path, steps: int, judge: str, demonstrator: str) -> None:
    """A fresh student by the demo's recipe, its script and its gold-aware judge replaced."""
    options = {
        "name": "llm",
        "model": "judge",
        "backend": f"openai:{judge}/v1",
        "rubric": str(RUBRIC),
        "show_gold": False,
        "max_tokens": 128,
        "concurrency": 64,
    }
    shown = {
        "name": "model",
        "model": "demonstrator",
        "backend": f"openai:{demonstrator}/v1",
        "temperature": 0.0,
        "max_tokens": 32,
    }
    changes = [
        f"judge={json.dumps(options)}",
        f"demonstrator={json.dumps(shown)}",
        f"optimizer.steps={steps}",
        f"checkpoint.every={max(1, steps // 4)}",
    ]
    train("math_cpu.yaml", out / "student", changes)


def main() -> None:
    """Do what is missing, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/real-teachers"))
    parser.add_argument("--steps", type=int, default=40, help="of the taught student")
    parser.add_argument("--others", type=int, default=60, help="episodes of each other level")
    parser.add_argument("--unseen", type=int, default=80, help="held-out tasks of each evaluation")
    parser.add_argument("--exact", type=int, default=100, help="episodes judged in this process")
    # Always the same: an address is a part of a run's configuration, and a run goes on as it began.
    parser.add_argument("--port", type=int, default=8101, help="of the judge; the next one too")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    train("math_cpu.yaml", out / "demo", [])
    folder = judging_files(out, options.others, options.unseen)
    shown = {name: str(folder / f"{name}.jsonl") for name in ("episodes", "verdicts")}
    shown["rubric"] = str(RUBRIC)
    changes = [f"env_options.{name}={value}" for name, value in shown.items()]
    train("judge_cpu.yaml", out / "judge", changes)
    with served(out / "judge", "judge", options.port, out / "judge-server.log") as judge:
        trusted = judge_reliability(out, judge, options.exact)
        if not (out / "student" / "summary.json").is_file():
            log = out / "demonstrator-server.log"
            with served(out / "demo", "demonstrator", options.port + 1, log) as shower:
                taught_student(out, options.steps, judge, shower)
    learned = make("ovd/Judging-v0", show_gold=False, **shown).unwrapped.tasks
    result = {
        "judging": {
            "episodes": sum(1 for _ in read_episodes(folder / "episodes.jsonl")),
            "different": {split: learned.size(split) for split in learned.splits},
        },
        "scripted": run_summary(out / "demo"),
        "judge": {"run": run_summary(out / "judge"), "unseen": trusted},
        "taught": run_summary(out / "student"),
    }
    text = json.dumps(result, indent=2)
    (out / "result.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
