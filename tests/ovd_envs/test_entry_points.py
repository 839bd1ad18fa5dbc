"""An environment in somebody's package is there after ``pip install``: with a real package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "somebodys-env"
version = "1.0"

[project.entry-points."ovd.environments"]
"somebody/Parrot-v0" = "somebodys_env:Parrot"
"somebody/Broken-v0" = "somebodys_env:NoSuchThing"
"not a name!" = "somebodys_env:Parrot"

[tool.setuptools]
py-modules = ["somebodys_env"]
"""

MODULE = '''
from ovd_envs import ListTasks, Reply, Task, TextEnv

class Parrot(TextEnv):
    """Wants to hear its own words."""

    def __init__(self, *, split="train", render_mode=None):
        tasks = ListTasks(
            "parrot",
            train=[Task("parrot-1", "hello", ("hello",))],
            test=[Task("parrot-2", "goodbye", ("goodbye",))],
        )
        super().__init__(tasks, split=split, render_mode=render_mode)

    def observe(self, task):
        return task.question

    def respond(self, action):
        return Reply(reward=float(action in self.task.answers), end="answered")
'''

OVD = (
    "import typer; from ovd_envs.commands import register_commands; "
    "app = typer.Typer(); register_commands(app); app()"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The Python of a new virtual environment, which sees our own libraries and the package."""
    folder = tmp_path_factory.mktemp("somebody")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    ours = f"{sysconfig.get_path('purelib')}\n{REPOSITORY}\n"
    (site / "ours.pth").write_text(ours)
    package = folder / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(PYPROJECT)
    (package / "somebodys_env.py").write_text(MODULE)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    run(python, "-m", "pip", "install", *options, str(package))
    return python


def run(python, *arguments):
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), *arguments],
        capture_output=True,
        text=True,
        cwd=Path(sys.prefix),
        env=clean,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_ovd_envs_lists_it_and_says_what_is_broken(environment):
    listed = {
        e["name"]: e
        for e in json.loads(run(environment, "-c", OVD, "envs", "--json"))["environments"]
    }
    assert listed["somebody/Parrot-v0"] == {
        "name": "somebody/Parrot-v0",
        "summary": "Wants to hear its own words.",
        "source": "somebodys-env",
        "error": "",
    }
    assert "does not load" in listed["somebody/Broken-v0"]["error"]
    assert "not a Gymnasium name" in listed["not a name!"]["error"]
    assert listed["ovd/Math-v0"]["error"] == ""


def test_ovd_check_passes(environment):
    report = json.loads(run(environment, "-c", OVD, "check", "somebody/Parrot-v0", "--json"))
    assert report["passed"], report


@pytest.mark.parametrize(
    "code",
    [
        "import ovd_envs; env = ovd_envs.make('somebody/Parrot-v0', split='test')",
        "import gymnasium, ovd_envs; env = gymnasium.make('somebody/Parrot-v0', split='test')",
        "import gymnasium; env = gymnasium.make('ovd_envs:somebody/Parrot-v0', split='test')",
    ],
)
def test_it_can_be_made(environment, code):
    assert run(environment, "-c", f"{code}; print(env.reset(seed=0)[0])") == "goodbye\n"


def test_it_is_not_imported_before_it_is_used(environment):
    code = "import sys, ovd_envs; print('somebodys_env' in sys.modules)"
    assert run(environment, "-c", code) == "False\n"
