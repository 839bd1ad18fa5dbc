from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def run(name):
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / name)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_environment():
    output = run("own_environment.py")
    assert "FAILED" not in output
    assert output.count("passed") == 8
    assert "Right!" in output
    assert "reward 1, answered" in output


def test_step_through():
    output = run("step_through.py")
    assert "No final answer found" in output
    assert "1.0 True False" in output
    lines = output.splitlines()
    assert lines[0] == lines[-1]
