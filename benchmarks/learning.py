"""What the student learns: OVD beside outcome-only GRPO and beside imitation.

    python benchmarks/learning.py --out runs/learning            # everything, over an hour
    python benchmarks/learning.py --seeds 0 --algorithms ovd     # a part of it
    python benchmarks/learning.py --config examples/worldqa_cpu.yaml --out runs/world --seeds 0 \\
        --also search=false --also k=3                            # other recipes, other questions

Every run is the recipe (`examples/math_cpu.yaml`) with another seed or algorithm: the same student,
tasks, schedule and evaluations. `sft` is imitation at equal teacher episodes: as many steps as the
teacher episodes of the same seed's OVD run pay for, at a full group of them a step, with its own
whole learning-rate schedule; its student does not act. `--also` evaluates each trained student once
more, with other options of the environment. Finished runs are kept and resumed; prints JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[1] / "examples"
ALGORITHMS = ("ovd", "grpo", "sft")


def overrides(algorithm: str, seed: int, out: Path) -> list[str]:
    """The keys that differ from the recipe."""
    changed = [f"seed={seed}"]
    if algorithm == "grpo":
        changed += ["algorithm={name: grpo}", "judge=null", "demonstrator=null"]
    if algorithm == "sft":
        changed += ["algorithm={name: sft}", f"optimizer.steps={equal_steps(out, seed)}"]
    return changed


def equal_steps(out: Path, seed: int) -> int:
    """Steps of imitation that spend the teacher episodes of the OVD run of this seed."""
    run = out / f"ovd-{seed}"
    spent = json.loads((run / "summary.json").read_text())["teacher_episodes"]
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    return max(1, round(spent / first["student_episodes"]))


def train(algorithm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one run, or read it where it is there; what it came to."""
    folder = options.out / f"{algorithm}-{seed}"
    if not (folder / "summary.json").is_file():
        changes = [*overrides(algorithm, seed, options.out), *options.extra]
        settings = [part for change in changes for part in ("--set", change)]
        ovd("train", str(options.config), "--run", str(folder), "--resume", *settings)
    summary = json.loads((folder / "summary.json").read_text())
    curve, spent = [], {0: 0}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        spent[row["step"]] = spent[row["step"] - 1] + row["teacher_episodes"]
    for file in sorted((folder / "evaluations").glob("*.json")):
        result = json.loads(file.read_text())
        curve.append(
            {
                "step": result["step"],
                "teacher_episodes": spent[result["step"]],
                "accuracy": result["accuracy"],
                "interval": result["interval"],
            }
        )
    also = {changes: evaluate(folder, changes.split()) for changes in options.also}
    return {"algorithm": algorithm, "seed": seed, **summary, "curve": curve, "also": also}


def evaluate(run: Path, env_options: list[str]) -> dict[str, Any]:
    """The last student of ``run`` with other options of its environment, greedy, 200 tasks."""
    changed = [part for option in env_options for part in ("-e", option)]
    result = json.loads(ovd("eval", "--student", str(run), *changed, "--json"))
    return {key: result[key] for key in ("accuracy", "interval", "n")}


def ovd(*arguments: str) -> str:
    """Run the command; what it printed. Everything else that it says goes to our stderr."""
    command = [sys.executable, "-m", "ovd", *arguments]
    if "--json" in arguments:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    subprocess.run(command, check=True, stdout=sys.stderr)
    return ""


def main() -> None:
    """Train what is missing and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, default=EXAMPLES / "math_cpu.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs/learning"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--algorithms", nargs="+", default=ALGORITHMS, choices=ALGORITHMS)
    parser.add_argument("--set", dest="extra", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--also", action="append", default=[], metavar="'KEY=VALUE ...'")
    options = parser.parse_args()
    if "sft" in options.algorithms and "ovd" not in options.algorithms:
        for seed in options.seeds:
            if not (options.out / f"ovd-{seed}" / "summary.json").is_file():
                parser.error(f"sft spends what ovd spent: train ovd with seed {seed} first")
    # OVD first: it says how many teacher episodes imitation may spend.
    chosen = [name for name in ALGORITHMS if name in options.algorithms]
    runs = [train(name, seed, options) for seed in options.seeds for name in chosen]
    print(json.dumps({"config": options.config.name, "runs": runs}, indent=2))


if __name__ == "__main__":
    main()
