"""The recipes in ``examples``: a step of each, with a tiny student in the place of the real one."""

from pathlib import Path

import pytest

from training.config import load_config
from training.run import Run
from training.trainer import Trainer

RECIPES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_step_of_the_recipe(recipe, student_folder, tmp_path):
    changes = (
        *(f"student={student_folder}", "dtype=float32", "threads=1"),
        *("optimizer.steps=1", "optimizer.warmup_steps=0", "rollout.tasks_per_step=2"),
        "evaluation.tasks=2",
    )
    config = load_config(recipe, changes)
    Trainer(config, tmp_path / "run").train()
    [row] = Run(tmp_path / "run").metrics()
    # The student can do nothing, and the demonstrator everything: what is learned from is its own.
    assert row["teacher_episodes"] == row["student_episodes"] == 4
    assert row["demonstrations_not_better"] == row["demonstrator_errors"] == 0
    assert row["teacher_token_share"] == 1
    assert row["grad_norm"] > 0
