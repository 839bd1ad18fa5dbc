"""``ovd score`` with a judge behind an API: real processes, a real server, kills and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agents.episode import write_episodes
from teachers import read_verdicts
from tests.teachers.conftest import make_episode
from tests.teachers.fault_server import COMPLETION_TOKENS, PROMPT_TOKENS, FaultServer

ROOT = Path(__file__).resolve().parents[2]
NAMES = [str(n) for n in range(150)]


@pytest.fixture
def server():
    made = FaultServer(seconds=0.05).start()
    yield made
    made.stop()


@pytest.fixture
def folder(tmp_path):
    write_episodes(tmp_path / "e.jsonl", [make_episode(f"case:{n}", index=int(n)) for n in NAMES])
    return tmp_path


def start(server, folder, *options):
    command = [sys.executable, "-c", "from training.cli import main; main()", "score", "e.jsonl"]
    command += ["--judge", "llm", "--model", "m", "--backend", f"openai:{server.url}", "--json"]
    command += ["--out", "v.jsonl", "--option", "concurrency=4", "--option", "base_wait=0.02"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    environment["OPENAI_API_KEY"] = "sk-secret-1234"
    return subprocess.Popen(
        [*command, *options],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def wait_for_rows(folder, rows):
    out, deadline = folder / "v.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline:
        if out.exists() and out.read_text().count("\n") >= rows:
            return
        time.sleep(0.01)
    raise AssertionError("no verdicts")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_was_answered_is_kept_and_the_rest_alone_is_asked(server, folder, how):
    process = start(server, folder)
    wait_for_rows(folder, 20)
    process.send_signal(how)
    code, _, err = finish(process)
    kept = {v.episode.rpartition(":")[2] for v in read_verdicts(folder / "v.jsonl")}
    assert 20 <= len(kept) < len(NAMES)
    paid = server.charged.total()
    if how == signal.SIGINT:
        assert code == 130
        assert "the same command goes on" in err
        assert len(kept) == paid  # Ctrl-C waited for the replies under way
    else:
        assert paid - len(kept) <= 4  # what was under way
    code, out, _ = finish(start(server, folder))
    assert code == 0
    summary = json.loads(out)
    assert (summary["new"], summary["scored"]) == (len(NAMES) - len(kept), len(NAMES))
    assert all(server.charged[name] == 1 for name in kept)
    assert server.charged.total() <= len(NAMES) + 4
    assert [v.score for v in read_verdicts(folder / "v.jsonl")] == [7] * len(NAMES)
    for file in folder.rglob("*"):
        assert b"secret" not in file.read_bytes()


def test_a_bad_key_is_one_line_and_exit_code_2(server, folder):
    server.scripts = {name: ["401"] * 9 for name in NAMES[40:]}
    server.echo_key = True
    code, out, err = finish(start(server, folder))
    assert (code, out) == (2, "")
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "401: this is 401 Bearer [key]" in line
    assert "secret" not in err
    assert len(list(read_verdicts(folder / "v.jsonl"))) == 40
    assert f"40 of {len(NAMES)} episodes have a verdict" in line


def test_a_budget_and_money_in_the_summary(server, folder):
    prices = ["--option", 'prices={"input": 100, "output": 200}', "--option", "max_tokens=20"]
    code, out, err = finish(start(server, folder, *prices, "--option", "budget=1.0"))
    assert code == 1
    summary = json.loads(out)
    cost = (PROMPT_TOKENS * 100 + COMPLETION_TOKENS * 200) / 1e6
    assert 1.0 - 0.2 < summary["money"] <= 1.0
    assert summary["money"] == pytest.approx(summary["scored"] * cost)
    assert summary["not_asked"] == len(NAMES) - summary["scored"] > 0
    assert summary["errors"] == 0
    assert "the budget of 1 is spent" in summary["stopped"]
    assert "a larger budget goes on" in err
    code, out, _ = finish(start(server, folder, *prices, "--option", "budget=50"))
    summary = json.loads(out)
    assert (code, summary["scored"], summary["not_asked"]) == (0, len(NAMES), 0)
    assert summary["money"] == pytest.approx(len(NAMES) * cost)
    assert server.charged.total() == len(NAMES)
