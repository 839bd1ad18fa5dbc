"""The recipes in ``examples``: a step of each, with a tiny student in the place of the real one."""

import json
from pathlib import Path

import pytest

from agents.episode import write_episodes
from teachers.step_judge import StepJudge
from tests.teachers.conftest import make_episode
from training.config import load_config
from training.run import Run
from training.trainer import Trainer

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPES = sorted(EXAMPLES.glob("*.yaml"))


def judging_files(folder):
    """Files in the place of those that a benchmark makes, as keys of the configuration."""
    episodes = [
        make_episode(f"\\boxed{{{n}}}", observation=f"What is {n} + 0?", group=str(n))
        for n in range(60)
    ]
    write_episodes(folder / "episodes.jsonl", episodes)
    rows = [{**verdict.to_dict(), "key": "k"} for verdict in StepJudge().judge(episodes)]
    (folder / "verdicts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = {name: folder / f"{name}.jsonl" for name in ("episodes", "verdicts")}
    made["rubric"] = EXAMPLES / "judge_cpu_rubric.md"
    return [f"env_options.{name}={path}" for name, path in made.items()]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_step_of_the_recipe(recipe, student_folder, tmp_path):
    changes = (
        *(f"student={student_folder}", "dtype=float32", "threads=1"),
        *("optimizer.steps=1", "optimizer.warmup_steps=0", "rollout.tasks_per_step=2"),
        "evaluation.tasks=2",
    )
    if recipe.stem == "judge_cpu":
        changes += (*judging_files(tmp_path), "rollout.group_size=2")
    config = load_config(recipe, changes)
    Trainer(config, tmp_path / "run").train()
    [row] = Run(tmp_path / "run").metrics()
    # The student can do nothing, and the demonstrator everything: what is learned from is its own.
    assert row["teacher_episodes"] == 4
    assert row["student_episodes"] == (0 if config.algorithm.name == "sft" else 4)
    assert row["demonstrations_not_better"] == row["demonstrator_errors"] == 0
    assert row["teacher_token_share"] == 1
    assert row["grad_norm"] > 0
