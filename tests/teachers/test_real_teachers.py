"""What benchmarks/real_teachers.py keeps apart: the sums that are unseen, and what is learned."""

import json

import pytest

from agents.episode import read_episodes, write_episodes
from benchmarks import real_teachers
from tests.teachers.conftest import make_episode
from training.run import Run


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A demo without steps, evaluated on 37 + 58 and 20 + 30; `ovd run` answers two tasks."""
    asked = [
        make_episode("95", metadata={"solution": ["37 + 58 = 95"]}),
        make_episode("50", metadata={"solution": ["20 + 30 = 50"]}, index=1),
    ]
    others = [
        make_episode("88", metadata={"solution": ["90 - 2 = 88", "58 + 37 + 1 = 96"]}),
        make_episode("88", metadata={"solution": ["90 - 2 = 88", "30 + 21 = 51"]}, index=1),
    ]
    place = tmp_path / "demo" / "evaluations" / "step-000000.jsonl"
    place.parent.mkdir(parents=True)
    write_episodes(place, asked)
    place.with_suffix(".json").write_text(json.dumps({"step": 0}))
    monkeypatch.setattr(Run, "metrics", lambda run: [])

    def ovd(*arguments):
        write_episodes(arguments[-1], others)

    monkeypatch.setattr(real_teachers, "ovd", ovd)
    return tmp_path


def test_a_sum_that_is_asked_of_the_judge_is_no_step_of_what_it_learns_from(out):
    folder = real_teachers.judging_files(out, others=2, unseen=80)
    learned = list(read_episodes(folder / "episodes.jsonl"))
    assert [e.agent for e in learned] == [f"demo on {v}" for v in real_teachers.OTHER_LEVELS]
    assert {e.task.metadata["solution"][1] for e in learned} == {"30 + 21 = 51"}
    assert len(list(read_episodes(folder / "unseen.jsonl"))) == 2
