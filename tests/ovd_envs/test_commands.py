from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from ovd_envs import OVDError
from ovd_envs.commands import register_commands
from ovd_envs.jsonl import write_jsonl


@pytest.fixture
def ovd():
    """Run the commands of this package; an OVDError comes out as it is."""
    app = typer.Typer()
    register_commands(app)

    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.output

    return run


@pytest.mark.parametrize("command", ["envs", "check", "grade"])
def test_every_command_has_help_with_an_example(ovd, command):
    text = ovd(command, "--help")
    assert f"Example: ovd {command}" in " ".join(text.split())
    assert "--json" in text


def test_envs(ovd):
    assert "ovd/Math-v0" in ovd("envs")
    listed = json.loads(ovd("envs", "--json"))
    entry = next(e for e in listed["environments"] if e["name"] == "ovd/Math-v0")
    assert (entry["source"], entry["error"]) == ("ovd", "")


def test_check(ovd):
    assert "failed" not in ovd("check", "ovd/Math-v0", "--tasks", 3)
    report = json.loads(ovd("check", "ovd/Math-v0", "-e", "level=mixed", "--tasks", 3, "--json"))
    assert report["passed"]
    assert {c["name"] for c in report["checks"]} >= {"seeds", "gold answers", "splits"}


def test_check_fails_with_code_1(ovd, monkeypatch):
    monkeypatch.setattr("ovd_envs.math_env.INSTRUCTION", None)
    monkeypatch.setattr("ovd_envs.math_env.MathEnv.observe", lambda self, task: 5)
    assert "failed" in ovd("check", "ovd/Math-v0", "--tasks", 3, code=1)


def test_check_of_bad_names_and_options(ovd):
    with pytest.raises(OVDError, match="did you mean 'ovd/Math-v0'"):
        ovd("check", "ovd/Maths-v0")
    with pytest.raises(OVDError, match="no option 'levle': did you mean 'level'"):
        ovd("check", "ovd/Math-v0", "-e", "levle=word-1")
    with pytest.raises(OVDError, match="expected KEY=VALUE, got 'level'"):
        ovd("check", "ovd/Math-v0", "-e", "level")


def test_grade(ovd, tmp_path):
    rows = [
        {"gold": "1/2", "answer": "0.5", "expected": True},
        {"gold": "x+1", "answer": "1+x", "expected": True},
        {"gold": "5", "answer": 6, "expected": True},
        {"gold": "5", "answer": "10^{10^{10}}", "expected": False},
        {"gold": "10^{10^{10}}", "answer": "5", "expected": False},
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    report = json.loads(ovd("grade", "math", tmp_path / "pairs.jsonl", "--json", "--deadline", 1.5))
    assert (report["n"], report["agree"], report["timeouts"]) == (5, 3, 1)
    verdicts = [row["verdict"].partition(":")[0] for row in report["rows"]]
    assert verdicts == ["right", "right", "wrong", "timeout", "gold error"]
    assert [row["gold"] for row in report["rows"]] == [row["gold"] for row in rows]
    text = ovd("grade", "math", tmp_path / "pairs.jsonl", "--deadline", 1.5)
    assert "3 of 5 as expected (60.0%)" in text


def test_grade_without_expectations(ovd, tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", [{"gold": "95", "answer": "\\boxed{37 + 58}"}] * 3)
    report = json.loads(ovd("grade", "math", tmp_path / "pairs.jsonl", "--json"))
    assert (report["n"], report["agree"]) == (3, None)
    assert report["rows"][0]["verdict"] == "right"
    report = json.loads(ovd("grade", "number", tmp_path / "pairs.jsonl", "--json"))
    assert report["rows"][0]["verdict"] == "wrong"


def test_grade_agrees_on_the_shared_pairs(ovd, shared_data):
    files = sorted((shared_data / "grading").glob("*_pairs.jsonl"))
    report = json.loads(ovd("grade", "math", *files, "--json"))
    assert report["agree"] / report["n"] >= 0.98
    assert report["timeouts"] == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"gold": "5", "response": "5"}, "row 2: expected a text in field 'answer', found .*gold"),
        ({"gold": None, "answer": "5"}, "row 2: expected a text in field 'gold'"),
        ({"gold": "5", "answer": "5", "expected": "yes"}, "row 2: 'expected': expected true or"),
        ({"gold": "5", "answer": "5", "settings": [1]}, "row 2: 'settings': expected an object"),
    ],
)
def test_bad_rows_are_named(ovd, tmp_path, row, message):
    write_jsonl(tmp_path / "pairs.jsonl", [{"gold": "5", "answer": "5"}, row])
    with pytest.raises(OVDError, match=message):
        ovd("grade", "math", tmp_path / "pairs.jsonl")


def test_bad_arguments_are_named(ovd, tmp_path):
    with pytest.raises(OVDError, match=r"missing.jsonl: cannot be read"):
        ovd("grade", "math", tmp_path / "missing.jsonl")
    with pytest.raises(OVDError, match="KIND: expected math or number, got 'chess'"):
        ovd("grade", "chess", tmp_path / "missing.jsonl")
