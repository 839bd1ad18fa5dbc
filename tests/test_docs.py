"""The documentation is true: its Python runs, its commands parse, its YAML is accepted."""

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from ovd_envs.registry import Registry
from training import cli
from training.config import parse_config

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: `ovd COMMAND ARGUMENTS` in running text and tables.
_INLINE = re.compile(r"`(ovd [a-z]+ [^`]+)`")
_LINK = re.compile(r"\]\((?!https?://)([^)#]+)\)")


def blocks(language):
    for page in PAGES:
        for number, (kind, text) in enumerate(_BLOCK.findall(page.read_text()), start=1):
            if kind == language:
                yield pytest.param(text, id=f"{page.name}-{number}")


def commands():
    for page in PAGES:
        text = page.read_text()
        lines = [
            line
            for kind, block in _BLOCK.findall(text)
            if kind == "sh"
            for line in block.splitlines()
        ]
        for line in dict.fromkeys([*lines, *_INLINE.findall(_BLOCK.sub("", text))]):
            if re.match(r"(\.venv/bin/)?ovd ", line):
                yield pytest.param(line, id=f"{page.name}: {line}")


@pytest.mark.parametrize("code", list(blocks("python")))
def test_python_runs(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", list(commands()))
def test_commands_parse(line):
    command = typer.main.get_command(cli.build_app())
    name, *arguments = shlex.split(line)[1:]
    assert name in command.commands
    command.commands[name].make_context(name, arguments)


@pytest.mark.parametrize("text", list(blocks("yaml")))
def test_yaml_is_a_configuration(text):
    parse_config(yaml.safe_load(text))


@pytest.mark.parametrize("text", list(blocks("toml")))
def test_entry_points_are_of_groups_that_we_read(text):
    for package in ("agents", "teachers", "training"):
        importlib.import_module(f"{package}.registry")  # a registry is known once it is read

    known = {found.group for found in Registry.everywhere}
    for group, points in tomllib.loads(text)["project"]["entry-points"].items():
        assert group in known
        for target in points.values():
            assert re.fullmatch(r"[\w.]+:\w+", target)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in _LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_page_is_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in readme
