"""``examples/own_judge.py`` runs, and prints what its text says."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_of_a_judge_of_ones_own():
    done = subprocess.run(
        [sys.executable, "examples/own_judge.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    short, long, wrong = done.stdout.splitlines()
    assert short.startswith("9  It is \\boxed{")
    assert long.startswith("6  Well, let me see")
    assert wrong.startswith("0  \\boxed{0}")
