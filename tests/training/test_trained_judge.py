"""A judge that is trained here judges: from verdicts to the weights, and to the judge ``llm``."""

import json

import pytest

from agents.episode import write_episodes
from agents.student_source import readers
from teachers import make_judge, score
from teachers.step_judge import StepJudge
from tests.teachers.conftest import make_episode
from tests.tiny import tiny_model, tiny_tokenizer
from training.commands import _run_student
from training.config import parse_config
from training.trainer import Trainer


def test_a_judge_learns_by_heart_and_is_asked_for_just_that(tmp_path):
    """One episode, which a tiny model can learn by heart: any token that differed would show."""
    model = tiny_model()
    model.config.max_position_embeddings = 4096
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    sum_ = {"solution": ["37 + 58 = 95"], "operands": [37, 58]}
    episode = make_episode("37 + 58 = 85. \\boxed{85}", metadata=sum_)
    write_episodes(tmp_path / "episodes.jsonl", [episode])
    [verdict] = StepJudge().judge([episode])
    (tmp_path / "verdicts.jsonl").write_text(json.dumps({**verdict.to_dict(), "key": "k"}) + "\n")
    (tmp_path / "rubric.md").write_text("Check it.")
    run = tmp_path / "run"
    config = {
        "student": str(tmp_path / "model"),
        "env": "ovd/Judging-v0",
        "env_options": {
            **{name: str(tmp_path / f"{name}.jsonl") for name in ("episodes", "verdicts")},
            "rubric": str(tmp_path / "rubric.md"),
            "show_gold": False,
        },
        "algorithm": "sft",
        "demonstrator": {"name": "judging", "working": "split"},
        "rollout": {"tasks_per_step": 1, "group_size": 1, "max_tokens": 200},
        "optimizer": {"steps": 60, "learning_rate": 2e-2, "kl": 0, "schedule": "linear"},
        "evaluation": {"tasks": 0},
        "checkpoint": {"every": 60},
        "dtype": "float32",
        "threads": 1,
    }
    Trainer(parse_config(config), run).train()
    assert _run_student in readers  # a run's folder is a model
    judge = make_judge(
        "llm", model=str(run), rubric=str(tmp_path / "rubric.md"), show_gold=False, max_tokens=200
    )
    [learned] = score(judge, [episode])
    assert learned.error is None
    assert learned.reason == "37 + 58 = 80 + 15 = 95. " + verdict.reason
    assert learned.score == pytest.approx(verdict.score, abs=0.2)
    assert sum(learned.distribution) == pytest.approx(1, abs=0.05)
