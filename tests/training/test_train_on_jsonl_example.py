"""examples/train_on_jsonl.py, run as a user would, with a tiny student instead of a real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.tiny import tiny_model, tiny_tokenizer

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_on_jsonl.py"


def test_the_example_trains_on_a_file_and_keeps_its_test_questions_apart(tmp_path: Path) -> None:
    student = tmp_path / "student"
    tiny_model().save_pretrained(student)
    tiny_tokenizer().save_pretrained(student)
    rows = [{"question": f"Say {n}.", "answer": n} for n in range(120)]
    questions = tmp_path / "mine.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path / "run"

    ended = subprocess.run(
        [sys.executable, EXAMPLE, questions, "--student", student, "--steps", "2", "--run", run],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout[ended.stdout.index("{") :])
    assert summary["steps"] == 2
    assert summary["student_episodes"] == summary["teacher_episodes"] > 0  # it knows nothing yet
    trained = {
        json.loads(line)["task"]["question"]
        for file in (run / "steps").glob("*.jsonl")
        for line in file.read_text().splitlines()
    }
    evaluated = {
        json.loads(line)["task"]["question"]
        for line in (run / "evaluations" / "step-000002.jsonl").read_text().splitlines()
    }
    assert trained
    assert evaluated
    assert not trained & evaluated
    # The teacher has only the answers to show, and writes them in a box.
    first = json.loads((run / "steps" / "step-000001.jsonl").read_text().splitlines()[0])
    shown = first["teacher"]["0"]
    assert f"\\boxed{{{first['task']['answers'][0]}}}" in shown["turns"][-1]["action"]
