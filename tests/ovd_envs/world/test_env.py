"""``ovd/WorldQA-v0``: its own world only, over real HTTP, the same in every process."""

import subprocess
import sys

import pytest

from ovd_envs.checker import check_environment
from ovd_envs.errors import TaskError
from ovd_envs.task import Task
from ovd_envs.web.page import FetchError
from ovd_envs.webqa.env import PROTOCOLS
from ovd_envs.world.env import WorldQAEnv, WorldReader
from ovd_envs.world.world import BASE_URL, World

PEOPLE = 60


@pytest.fixture(scope="module")
def env():
    return WorldQAEnv(1, people=PEOPLE)


@pytest.mark.parametrize(
    ("hops", "protocol"),
    [(1, "tags"), (2, "tool_calls"), (3, "search-r1"), (4, "tags"), (4, "search-r1")],
)
def test_ovd_check(hops, protocol):
    options = {"hops": hops, "protocol": protocol, "people": PEOPLE}
    results = check_environment("ovd/WorldQA-v0", options, tasks=10)
    assert [(each.name, each.detail) for each in results if not each.passed] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://127.0.0.1/",
        "https://world.invalid/wiki/X",
        "http://world.invalid:80/wiki/X",
        "http://world.invalid@example.com/",
        "http://user@world.invalid/",
        "http://world.invalid.example.com/",
        "http://world.in\nvalid/wiki/X",
        "HTTP://world.invalid/wiki/X",
        "http://[world",
    ],
)
def test_only_the_world_is_read(env, url):
    with pytest.raises(FetchError, match=r"^(only pages of|not a web address$)"):
        WorldReader(0, PEOPLE, "train").read(url)
    env.reset(seed=0)
    observation, *_, info = env.step(f"<open>{url}</open>")
    assert "The page cannot be read" in observation
    assert info["failed"] == 1


def test_a_page_is_known_by_its_address_in_the_world():
    document = next(World(0, people=PEOPLE).documents())
    assert WorldReader(0, PEOPLE, "train").read(document.url).url == document.url


def test_a_missing_page_is_told_without_the_port(env):
    env.reset(seed=0)
    observation = env.step(f"<open>{BASE_URL}/wiki/Nobody</open>")[0]
    assert observation.startswith("The page cannot be read: HTTP 404")
    assert "127.0.0.1" not in observation


def test_a_page_is_support_whichever_way_it_was_found(env):
    _, info = env.reset(seed=0)
    task = env.task
    document = env.tasks.world("train").document(task.metadata["support"][0])
    observation, *_, info = env.step(f"<open>{document.url}</open>")
    assert document.title in observation
    assert info["opened"] == task.metadata["support"]
    _, reward, _, _, info = env.step(f"<answer>{task.answers[0]}</answer>")
    assert (reward, info["outcome"]) == (1, "right")


def test_each_split_searches_its_own_world(env):
    for split, other in (("train", "test"), ("test", "train"), ("train", "test")):
        env.reset(seed=1, options={"split": split})
        title = env.task.metadata["supporting_titles"][0]
        *_, info = env.step(f"<search>{title}</search>")
        own = {document.title for document in World(0, people=PEOPLE, split=split).documents()}
        assert title in info["searches"][0]["titles"]
        assert set(info["searches"][0]["titles"]) <= own
        stranger = next(iter(World(0, people=PEOPLE, split=other).documents()))
        observation = env.step(f"<open>{stranger.url}</open>")[0]
        assert "HTTP 404" in observation


def test_a_foreign_task_is_refused(env):
    with pytest.raises(TaskError, match=r"^task 'mine/7': expected one of this environment's own"):
        env.reset(options={"task": Task("mine/7", "Who?", ("x",))})


_EPISODE = f"""
from ovd_envs.world.env import WorldQAEnv
env = WorldQAEnv(2, people={PEOPLE})
print(env.reset(seed=3))
title = env.task.metadata["supporting_titles"][0]
for message in (f"<search>{{title}}</search>", "<open>1</open>", "<open>http://world.invalid/no</open>"):
    print(env.step(message))
"""


def test_two_processes_see_the_same():
    one, two = (
        subprocess.run([sys.executable, "-c", _EPISODE], capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert one.stdout == two.stdout
    assert "127.0.0.1" not in one.stdout


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_search_the_pages_are_closed(protocol):
    env = WorldQAEnv(1, people=PEOPLE, search=False, protocol=protocol)
    env.reset(seed=0)
    url = env.tasks.world("train").document(env.task.metadata["support"][0]).url
    for message in ("search", "open"):
        from ovd_envs.webqa.action import Action

        observation = env.step(env.protocol.write(Action(message, url)))[0]
        assert env.task.answers[0] not in observation
