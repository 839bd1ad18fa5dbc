"""kill -9 at random moments, --resume, and the same bits: with the real student and Adam.

    python benchmarks/resume.py --kills 10 --out runs/resume

Trains a short run of `examples/math_cpu.yaml` without a stop, then the same run killed at random
moments and resumed each time until it ends. Prints JSON: the moments, what differs in the metrics
(wall-clock fields aside) and whether every tensor of the last checkpoint is bitwise equal.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

CONFIG = Path(__file__).parents[1] / "examples" / "math_cpu.yaml"
SHORT = [
    "optimizer.steps=6",
    "rollout.tasks_per_step=4",
    "evaluation.tasks=8",
    "checkpoint.every=2",
]


def command(run: Path, student: str) -> list[str]:
    """The command that begins the run in ``run`` or goes on with it."""
    settings = [part for key in [*SHORT, f"student={student}"] for part in ("--set", key)]
    base = [sys.executable, "-m", "ovd", "train", str(CONFIG)]
    return [*base, "--run", str(run), "--resume", *settings]


def train(run: Path, student: str, stop_after: float | None = None) -> bool:
    """Train; with ``stop_after`` seconds kill -9. Whether the run came to its end."""
    process = subprocess.Popen(command(run, student), stdout=subprocess.DEVNULL)
    try:
        code = process.wait(stop_after)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    if code:
        raise SystemExit(f"ovd train failed with code {code}")
    return True


def metrics(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run without their wall-clock fields."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the last checkpoint: model, masters and Adam's moments."""
    last = max((run / "checkpoints").glob("step-*"))
    found = {}
    for file in sorted(last.rglob("*.safetensors")):
        for name, tensor in load_file(file).items():
            found[f"{file.name}:{name}"] = tensor
    return found


def main() -> None:
    """Train twice, kill one of them, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/resume"))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--student", default="smollm2-135m")
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    whole, killed = options.out / "whole", options.out / "killed"
    began = time.monotonic()
    train(whole, options.student)
    seconds = time.monotonic() - began
    rng = random.Random(options.seed)
    moments: list[dict[str, float]] = []
    ended = False
    while not ended and len(moments) < options.kills:
        # A start takes a while: moments are drawn so that some fall into it and most do not.
        moment = rng.uniform(0.1, 0.35) * seconds
        ended = train(killed, options.student, moment)
        if not ended:
            lines = killed / "metrics.jsonl"
            done = len(lines.read_bytes().splitlines()) if lines.exists() else 0
            moments.append({"seconds": round(moment, 2), "steps_done": done})
    if not ended:
        train(killed, options.student)
    left, right = tensors(whole), tensors(killed)
    differing = [
        name for name in left if not torch.equal(left[name], right.get(name, torch.empty(0)))
    ]
    report = {
        "kills": moments,
        "seconds_whole": round(seconds, 1),
        "metrics_equal": metrics(whole) == metrics(killed),
        "tensors": len(left),
        "tensors_that_differ": len(differing) + len(set(right) - set(left)),
    }
    print(json.dumps(report, indent=2))
    if not report["metrics_equal"] or report["tensors_that_differ"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
