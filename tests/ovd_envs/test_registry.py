from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib import metadata

import gymnasium
import pytest

import ovd_envs
from ovd_envs import ListTasks, OVDError, RegistrationError, Registry, Reply, Task, TextEnv


@pytest.fixture
def registry():
    """A registry that is forgotten after the test."""
    made = Registry("ovd.things", "thing")
    yield made
    Registry.everywhere.remove(made)


@pytest.fixture
def points(monkeypatch):
    """Entry points of pretended packages: {name: target}, in the group "ovd.things"."""
    found = []

    class Point:
        def __init__(self, name, value, package):
            self.name, self.value = name, value
            self.dist = type("Distribution", (), {"name": package})

    def add(name, value, package="somebodys-package"):
        found.append(Point(name, value, package))

    monkeypatch.setattr(metadata, "entry_points", lambda group: found if group else [])
    return add


def test_register_and_get(registry):
    registry.register("one", 1, "the first")
    assert registry.get("one") == 1
    assert registry.names() == ["one"]
    registry.register("one", 1, "again the same")
    with pytest.raises(RegistrationError, match="thing 'one' is registered already"):
        registry.register("one", 2)


def test_a_name_after_its_module_is_found_once_that_is_imported(registry, tmp_path, monkeypatch):
    (tmp_path / "my_things.py").write_text(
        "from ovd_envs import Registry\n"
        "[registry] = [r for r in Registry.everywhere if r.group == 'ovd.things']\n"
        "registry.register('mine', 7)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RegistrationError, match=r"known: .*\(one of your own: MODULE:mine\)"):
        registry.get("mine")
    assert registry.get("my_things:mine") == 7
    with pytest.raises(RegistrationError, match="thing 'mine': module 'no_things' cannot be im"):
        registry.get("no_things:mine")


def test_what_entries_can_do_is_read_where_nobody_said_it(points):
    def describe(thing):
        if thing is json.dumps:
            raise RegistrationError("dumps: says nothing")
        return {"reads": True}

    registry = Registry("ovd.things", "thing", describe=describe)
    try:
        points("loads", "json:loads")
        points("dumps", "json:dumps")
        registry.register("ours", "no_such_module:thing", "ours", capabilities={"reads": False})
        registry.register("direct", json.loads)
        with pytest.raises(RegistrationError, match=r"^thing 'bad': dumps: says nothing$"):
            registry.register("bad", json.dumps)
        found = {entry.name: entry for entry in registry.entries()}
    finally:
        Registry.everywhere.remove(registry)
    assert found.keys() == {"loads", "dumps", "ours", "direct"}
    assert found["loads"].capabilities == found["direct"].capabilities == {"reads": True}
    assert found["ours"].capabilities == {"reads": False}, "without loading it"
    assert (found["dumps"].capabilities, found["dumps"].error) == ({}, "dumps: says nothing")


def test_the_nearest_name_is_told(registry):
    registry.register("multiply", 1)
    registry.register("add", 2)
    with pytest.raises(RegistrationError, match="no thing 'mutliply': did you mean 'multiply'"):
        registry.get("mutliply")
    with pytest.raises(RegistrationError, match="known: add, multiply"):
        registry.get("zzz")


def test_a_text_is_loaded_at_first_use(registry):
    registry.register("later", "json:JSONDecoder")
    assert registry.get("later") is json.JSONDecoder
    assert registry.entries()[0].summary.startswith("Simple JSON")


@pytest.mark.parametrize("target", ["no_such_module:x", "json:no_such_thing", "json:loads.deeper"])
def test_what_does_not_load_is_reported_and_not_fatal(registry, target):
    registry.register("broken", target)
    registry.register("fine", "json:loads")
    by_name = {entry.name: entry for entry in registry.entries()}
    assert "does not load" in by_name["broken"].error
    assert by_name["fine"].error == ""
    with pytest.raises(RegistrationError, match=r"thing 'broken' from .* does not load"):
        registry.get("broken")


def test_entry_points_are_part_of_a_registry(registry, points):
    registry.register("ours", "json:dumps", "ours", source="ovd")
    points("theirs", "json:loads")
    points("ours", "json:load", "rival-package")
    assert registry.names() == ["ours", "theirs"]
    assert registry.get("theirs") is json.loads
    assert registry.get("ours") is json.dumps, "a package cannot take a name that is taken"
    by_name = {entry.name: entry for entry in registry.entries()}
    assert by_name["theirs"].source == "somebodys-package"
    assert "rival-package registers this name too" in by_name["ours"].summary


def test_a_module_may_register_what_its_package_declares(registry, points, tmp_path, monkeypatch):
    """As docs/environment.md has it: ``register`` in the module, an entry point of that name."""
    (tmp_path / "my_games.py").write_text(
        "class Guess: pass\ndef register(registry): registry.register('guess', Guess)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    points("guess", "my_games:Guess")
    my_games = importlib.import_module("my_games")
    assert "guess" in registry.names()
    my_games.register(registry)
    assert registry.get("guess") is my_games.Guess
    with pytest.raises(RegistrationError, match="registered already"):
        registry.register("guess", object)


def test_entry_points_of_a_package_installed_meanwhile(registry, points):
    assert registry.names() == []
    points("new", "json:loads")
    assert registry.names() == []
    registry.refresh()
    assert registry.names() == ["new"]


class Greeting(TextEnv):
    """Says hello."""

    def __init__(self, *, split="train", render_mode=None, fail=False):
        if fail:
            raise OVDError("fail: expected false")
        tasks = ListTasks("hello", train=[Task("1", "Say hello.", ("hello",))])
        super().__init__(tasks, split=split, render_mode=render_mode)

    def observe(self, task):
        return task.question

    def respond(self, action):
        right = action in self.task.answers
        return Reply(reward=float(right), end="answered")


@pytest.fixture
def greeting():
    """The name of a registered environment, forgotten after the test."""
    name = "test/Greeting-v0"
    ovd_envs.register(name, Greeting)
    yield name
    del ovd_envs.registry.ENVIRONMENTS._entries[name]
    del gymnasium.registry[name]


def test_an_environment_of_ones_own(greeting):
    env = ovd_envs.make(greeting)
    assert isinstance(env, Greeting)
    assert env.unwrapped is env
    assert env.spec is not None
    assert env.spec.id == greeting
    assert isinstance(gymnasium.make(greeting).unwrapped, Greeting)
    info = ovd_envs.environments()[greeting]
    assert (info.summary, info.error) == ("Says hello.", "")
    assert env.spec.make().unwrapped.reset(seed=0)[0] == "Say hello."


def test_options_are_checked_by_name(greeting):
    with pytest.raises(OVDError, match="no option 'splt': did you mean 'split'"):
        ovd_envs.make(greeting, splt="train")
    with pytest.raises(OVDError, match="fail: expected false"):
        ovd_envs.make(greeting, fail=True)
    assert ovd_envs.make(greeting, split="train").spec.kwargs == {"split": "train"}


def test_names_are_checked():
    with pytest.raises(RegistrationError, match="namespace/Name-v0"):
        ovd_envs.register("not a name!", Greeting)
    with pytest.raises(RegistrationError, match="registered already, from ovd"):
        ovd_envs.register("ovd/Math-v0", Greeting)
    with pytest.raises(RegistrationError, match="did you mean 'ovd/Math-v0'"):
        ovd_envs.make("ovd/math-v0")
    with pytest.raises(RegistrationError, match="No module named 'no_such_module'"):
        ovd_envs.make("no_such_module:ovd/Math-v0")
    assert ovd_envs.make("ovd_envs:ovd/Math-v0").spec.id == "ovd/Math-v0"


def test_what_is_no_text_environment_is_refused():
    name = "test/CartPole-v0"
    ovd_envs.register(name, lambda: gymnasium.make("CartPole-v1"))
    try:
        with pytest.raises(RegistrationError, match="expected a TextEnv"):
            ovd_envs.make(name)
    finally:
        del ovd_envs.registry.ENVIRONMENTS._entries[name]
        del gymnasium.registry[name]


def python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, **options
    ).stdout


def test_gymnasium_alone_finds_the_environment():
    code = (
        "import gymnasium\n"
        "env = gymnasium.make('ovd_envs:ovd/Math-v0')\n"
        "print(env.reset(seed=0)[0])"
    )
    assert python(code, env={**os.environ, "PYTHONPATH": os.getcwd()}).startswith("What is ")


def test_the_import_is_quick_and_light():
    code = (
        "import time; start = time.process_time(); import ovd_envs\n"
        "print(time.process_time() - start)\n"
        "import sys; print([m for m in ('torch', 'transformers', 'sympy', 'datasets', 'pandas',"
        " 'math_verify', 'typer', 'rich') if m in sys.modules])"
    )
    seconds = []  # of this process, so that a busy machine fails nobody
    for _ in range(3):
        measured, heavy = python(code).splitlines()
        assert heavy == "[]"
        seconds.append(float(measured))
    assert min(seconds) < 0.5
