from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from ovd_envs import OVDError
from ovd_envs.commands import register_commands


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
