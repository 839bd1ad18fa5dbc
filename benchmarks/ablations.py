"""What each choice of OVD is worth: one factor at a time from the recipe, on three seeds.

    python benchmarks/ablations.py --summary                   # the table of what is committed
    python benchmarks/ablations.py --recipe math               # run what is missing (2 hours)
    python benchmarks/ablations.py --recipe world --seeds 0    # a part of it

Short runs of `examples/math_cpu.yaml` and `examples/worldqa_two_hops_cpu.yaml` (their own whole
learning-rate schedule in fewer steps). Every finished run is one line of `--results`, which says
what was changed, on which seed and what came of it; a run that is there is not run again, one that
was stopped goes on. `--summary` prints JSON: for each variant its mean accuracy over the seeds and
the difference to the recipe on the same seeds, both with Student's 95 % interval over the seeds,
and the steps and teacher episodes after which each seed first had the accuracy of `--target`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from ovd_envs.statistics import mean_interval
from training.run import Run

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_suffix(".jsonl")

#: The recipe of each experiment, made shorter.
RECIPES = {
    "math": (
        ROOT / "examples" / "math_cpu.yaml",
        ["optimizer.steps=12", "evaluation.every=4", "checkpoint.every=4", "display_episodes=0"],
    ),
    "world": (
        ROOT / "examples" / "worldqa_two_hops_cpu.yaml",
        [
            "optimizer.steps=16",
            "optimizer.micro_batch_tokens=1024",
            "evaluation={every: 4, tasks: 100}",
            "checkpoint.every=4",
            "display_episodes=0",
        ],
    ),
}

#: What each variant changes in its recipe.
VARIANTS: dict[str, dict[str, list[str]]] = {
    "math": {
        "recipe": [],
        "replace: drop": ["algorithm.replace=drop", "demonstrator=null"],
        "keep_rejected": ["algorithm.keep_rejected=true"],
        "baseline: group": ["algorithm.baseline=group"],
        "baseline: group, scale: group": ["algorithm.baseline=group", "algorithm.scale=group"],
        "baseline: group, keep_rejected": [
            "algorithm.baseline=group",
            "algorithm.keep_rejected=true",
        ],
        "theta: 4": ["algorithm.theta=4"],
        "theta: 10": ["algorithm.theta=10"],
        "select: rank, keep: 1": ["algorithm.select=rank", "algorithm.keep=1"],
    },
    "world": {
        "recipe": [],
        "replace: suffix": ["algorithm.replace=suffix", "judge.score_level=turn"],
    },
}

#: Two-sided 95 % quantiles of Student's distribution, by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def read(file: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def folder_of(recipe: str, variant: str, seed: int, out: Path) -> Path:
    """Where a run lies."""
    name = "".join(c if c.isalnum() else "-" for c in variant)
    return out / recipe / f"{name}-{seed}"


def run(recipe: str, variant: str, seed: int, out: Path) -> dict[str, Any]:
    """Train one variant, or go on with it; its line of the results."""
    config, shorter = RECIPES[recipe]
    folder = folder_of(recipe, variant, seed, out)
    changes = [*shorter, *VARIANTS[recipe][variant], f"seed={seed}"]
    settings = [part for change in changes for part in ("--set", change)]
    command = [sys.executable, "-m", "ovd", "train", str(config), "--run", str(folder), "--resume"]
    subprocess.run([*command, *settings], check=True, stdout=sys.stderr)
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    curve = []
    for file in sorted((folder / "evaluations").glob("*.json")):
        result = json.loads(file.read_text())
        done = steps[: result["step"]]
        curve.append(
            {
                "step": result["step"],
                "accuracy": result["accuracy"],
                "n": result["n"],
                "teacher_episodes": sum(row["teacher_episodes"] for row in done),
            }
        )
    return {
        "recipe": recipe,
        "variant": variant,
        "seed": seed,
        "changes": changes,
        "curve": curve,
        "scores": scores_of(folder),
        "alpha": [round(row["alpha"], 4) for row in steps],
        "kept_turns": sum(row["kept_turns"] for row in steps),
        "without_advantage": [row["groups_without_advantage"] for row in steps],
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }


def scores_of(folder: Path) -> dict[str, int]:
    """How many of the student's episodes of a run had each score."""
    run = Run(folder)
    scores = Counter(
        f"{judged.verdict.score:g}"
        for row in run.metrics()
        for group in run.groups(row["step"]) or ()
        for judged in group.student
        if judged.verdict is not None and judged.verdict.score is not None
    )
    return dict(sorted(scores.items()))


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and Student's 95 % interval over seeds; no interval of a single one."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": round(mean, 4), "interval": None}
    interval = mean_interval(values, T95[len(values) - 1])
    return {"mean": round(mean, 4), "interval": [round(edge, 4) for edge in interval]}


def reached(curve: Sequence[dict[str, Any]], target: float) -> tuple[float, float] | None:
    """Steps and teacher episodes until ``target``, straight between evaluations; or ``None``."""
    for before, after in pairwise(curve):
        if before["accuracy"] < target <= after["accuracy"]:
            part = (target - before["accuracy"]) / (after["accuracy"] - before["accuracy"])
            spent, more = before["teacher_episodes"], after["teacher_episodes"]
            return (
                round(before["step"] + part * (after["step"] - before["step"]), 1),
                round(spent + part * (more - spent), 1),
            )
    return None


def summary(results: Sequence[dict[str, Any]], recipe: str, target: float) -> list[dict[str, Any]]:
    """What each variant of ``recipe`` came to."""
    final: dict[str, dict[int, dict[str, Any]]] = {}
    for row in results:
        if row["recipe"] == recipe:
            final.setdefault(row["variant"], {})[row["seed"]] = row
    table = []
    for variant, seeds in final.items():
        accuracy = {seed: row["curve"][-1]["accuracy"] for seed, row in seeds.items()}
        line: dict[str, Any] = {
            "variant": variant,
            "accuracies": {seed: accuracy[seed] for seed in sorted(accuracy)},
            **spread(list(accuracy.values())),
            "scores": dict(sum((Counter(row["scores"]) for row in seeds.values()), Counter())),
            "teacher_episodes": statistics.fmean(
                row["curve"][-1]["teacher_episodes"] for row in seeds.values()
            ),
            "kept_turns": statistics.fmean(row["kept_turns"] for row in seeds.values()),
            "target_reached": {
                seed: reached(seeds[seed]["curve"], target) for seed in sorted(seeds)
            },
        }
        default = final.get("recipe", {})
        paired = [
            accuracy[seed] - default[seed]["curve"][-1]["accuracy"]
            for seed in accuracy
            if seed in default
        ]
        if variant != "recipe" and paired:
            line["difference"] = spread(paired)
        table.append(line)
    return table


def missing(options: argparse.Namespace) -> list[tuple[str, str, int]]:
    """The runs that were asked for and are not among the results: every variant of a seed first."""
    done = {(row["recipe"], row["variant"], row["seed"]) for row in read(options.results)}
    wanted = [
        (recipe, variant, seed)
        for recipe in options.recipe
        for seed in options.seeds
        for variant in VARIANTS[recipe]
        if options.variants is None or variant in options.variants
    ]
    return [asked for asked in wanted if asked not in done]


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=RECIPES, nargs="+", default=list(RECIPES))
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="these only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--target", type=float, default=0.65)
    parser.add_argument("--summary", action="store_true", help="run nothing, print the table")
    options = parser.parse_args()
    known = [name for recipe in options.recipe for name in VARIANTS[recipe]]
    if unknown := sorted(set(options.variants or []) - set(known)):
        parser.error(f"--variants: expected some of {', '.join(known)}, got {unknown[0]!r}")
    for recipe, variant, seed in [] if options.summary else missing(options):
        line = json.dumps(run(recipe, variant, seed, options.out))
        with options.results.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        # 1.5 GB each, and nobody asks for these students.
        shutil.rmtree(folder_of(recipe, variant, seed, options.out) / "checkpoints")
    results = read(options.results)
    table = {recipe: summary(results, recipe, options.target) for recipe in options.recipe}
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
