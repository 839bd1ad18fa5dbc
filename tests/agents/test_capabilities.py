"""What backends declare is what they do, and who does not declare it is named."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import agents
from agents.protocol import Capabilities, Request, capabilities_of
from agents.registry import backends
from agents.student import Student
from agents.transformers_backend import TransformersBackend
from ovd_envs import OVDError, RegistrationError
from ovd_envs.commands import register_commands
from teachers.llm_judge import LLMJudge
from tests.tiny import tiny_model, tiny_tokenizer

NAMES = ["openai", "transformers", "vllm", "vllm-server"]


class Mute:
    """Somebody's backend that does not say what it can do."""

    name = "mute"
    dialect = None

    def __init__(self, model="", **options):
        pass

    def generate(self, requests):
        raise AssertionError


class Plain(Mute):
    capabilities = Capabilities(token_ids=True)


def make_plain(model, *, dtype, device, batch_size, dialect):
    return Plain()


make_plain.capabilities = Plain.capabilities


@pytest.fixture
def own(monkeypatch):
    """Registers backends for one test."""
    monkeypatch.setattr(backends, "_entries", dict(backends._entries))
    return backends.register


def test_these_are_ours():
    assert [n for n in backends.names() if backends._entries[n].source.startswith("agents.")] == (
        NAMES
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_declaration_is_true_of_the_class(name):
    """Each capability is there exactly where the method is that it speaks of."""
    listed = {entry.name: entry.capabilities for entry in backends.entries()}[name]
    kind = backends.get(name).__self__
    assert listed == asdict(kind.capabilities)
    assert listed == asdict(capabilities_of(kind.load))
    for method in ("follow", "submit", "next_token_logprobs"):
        assert listed[method] == inspect.isfunction(getattr(kind, method, None)), method
    assert listed["token_ids"] == inspect.isfunction(getattr(kind, "generate", None))
    # An agent answers with a text, which has no log-probabilities.
    assert listed["logprobs"] == listed["token_ids"] == (not hasattr(kind, "act"))


def test_they_are_listed_without_loading_one():
    script = (
        "import sys; from training.cli import main\n"
        "try: main(['envs', '--json'])\n"
        "finally: assert not {'torch', 'vllm', 'openai', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row["name"]: row for row in json.loads(done.stdout)["backends"]}
    assert rows["vllm"]["capabilities"]["submit"] is True
    assert rows["openai"]["capabilities"]["token_ids"] is False
    for name in NAMES:
        assert list(rows[name]["capabilities"]) == [f.name for f in fields(Capabilities)]


def test_the_table_has_a_row_for_each():
    app = typer.Typer()
    register_commands(app)
    lines = CliRunner().invoke(app, ["envs"], env={"COLUMNS": "80"}).output.splitlines()
    table = lines[lines.index(next(x for x in lines if x.startswith("backends: what each"))) + 1 :]
    assert table[0].split()[0] == "name"
    rows = {row.split()[0]: row.split()[1:] for row in table[1:5]}
    assert list(rows) == NAMES
    for name, marks in rows.items():
        able = asdict(backends.get(name).__self__.capabilities).values()
        assert marks == ["yes" if each else "-" for each in able]


def test_the_docs_show_the_same():
    text = (Path(__file__).parents[2] / "docs/backends.md").read_text()
    names = [field.name.replace("_", " ") for field in fields(Capabilities)]
    assert f"| name | {' | '.join(names)} |" in text
    for name in NAMES:
        able = asdict(backends.get(name).__self__.capabilities).values()
        assert f"| `{name}` | {' | '.join('yes' if each else '-' for each in able)} |" in text
    for name in names:
        assert f"\n| {name} | " in text.partition("| Capability |")[2]


def test_one_that_does_not_declare_is_refused_when_it_is_registered(own):
    with pytest.raises(RegistrationError, match=r"^backend 'mute': Mute: expected an attribute"):
        own("mute", Mute)
    assert "mute" not in backends.names()


@pytest.mark.parametrize("target", [f"{__name__}:Mute", f"{__name__}:Mute.generate"])
def test_one_of_another_package_is_named_when_it_is_loaded(monkeypatch, own, target):
    class Point:
        name, value = "theirs", target
        dist = type("Distribution", (), {"name": "their-package"})

    monkeypatch.setattr(metadata, "entry_points", lambda group: [Point])
    backends.refresh()
    said = (
        rf"^backend 'theirs' from their-package: {target.partition(':')[2]}: expected an attribute "
        r"`capabilities`, an agents\.Capabilities that says what the backend can do, got None$"
    )
    for _ in range(2):
        with pytest.raises(RegistrationError, match=said):
            agents.load_backend("x", backend="theirs")
    entry = next(entry for entry in backends.entries() if entry.name == "theirs")
    assert entry.error.startswith(f"{target.partition(':')[2]}: expected an attribute")


def test_a_function_may_declare_for_the_class_that_it_makes(own):
    own("plain", make_plain)
    assert isinstance(agents.load_backend("x", backend="plain"), Plain)


def test_an_object_that_does_not_declare_is_refused_by_who_needs_to_know():
    for who in (Student, LLMJudge):
        with pytest.raises(OVDError, match=r"^Mute: expected an attribute `capabilities`"):
            who(Mute())


def test_what_needs_tokens_refuses_a_backend_without_any():
    with pytest.raises(OVDError, match=r"^backend 'openai': gives no token ids"):
        agents.load_backend("gpt", backend="openai")


def test_a_schema_is_refused_by_who_does_not_declare_it():
    backend = TransformersBackend(tiny_model(), tiny_tokenizer())
    assert not backend.capabilities.schema
    with pytest.raises(OVDError, match=r"^schema: this backend cannot hold a reply"):
        backend.generate([Request([1, 2], 4, schema={"type": "object"})])
