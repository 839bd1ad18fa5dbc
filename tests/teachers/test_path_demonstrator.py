"""PathWalker: walks the gold path in words of its own seed, and asks again in other words."""

from __future__ import annotations

from functools import cache

import pytest

import ovd_envs
from agents.episode import Episode, Turn
from agents.rollout import run_seeded
from ovd_envs.errors import OVDError, TaskError
from ovd_envs.search.protocol import SearchResult
from ovd_envs.task import ListTasks, Task
from ovd_envs.webqa.env import PROTOCOLS, WebQAEnv
from ovd_envs.world.tasks import WorldTasks
from teachers.path_demonstrator import PathDemonstrator, PathWalker
from teachers.path_judge import PathJudge
from teachers.registry import make_demonstrator

ENV = "ovd/WorldQA-v0"
STEP = {"page": "p1", "title": 'Ann "Bo" Kelm', "relation": "birth_place", "value": "Orvik"}
PATH = Task("t/0", "Where was she born?", ("Orvik",), {"path": [STEP]})


@cache
def tasks(hops: int) -> list[Task]:
    return WorldTasks(hops).distinct("train", 60)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_every_gold_path_is_walked_and_judged_flawless(protocol, hops):
    requests = [(task, (0, 0, i, 0)) for i, task in enumerate(tasks(hops))]
    options = {"hops": hops, "protocol": protocol}
    episodes = make_demonstrator("path").demonstrate(ENV, requests, options)
    assert [e.seed for e in episodes] == [seed for _, seed in requests]
    for episode, verdict in zip(episodes, PathJudge().judge(episodes), strict=True):
        assert episode.error is None
        assert (episode.reward, episode.agent) == (1, "path"), episode.task.id
        assert verdict.score == 9, verdict.reason
        titles = dict.fromkeys(step["title"] for step in episode.task.metadata["path"])
        assert len(episode.turns) <= len(titles) + 1


class Hidden:
    """A search engine that shows a page only from the given search for it on."""

    name = "hidden"

    def __init__(self, step: dict, shown_from: int) -> None:
        self.page = SearchResult("p1", step["title"], "Born in Orvik.")
        self.shown_from = shown_from
        self.queries: list[str] = []

    def search(self, queries, k):
        self.queries += queries
        found = self.page if len(self.queries) > self.shown_from else None
        return [[found or SearchResult("p2", "Other", "Nothing.")] for _ in queries]


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("seed", range(12))
def test_a_page_that_was_not_shown_is_asked_for_in_other_words(protocol, seed):
    engine = Hidden(STEP, 2)
    made = WebQAEnv(ListTasks("t", train=[PATH]), engine=engine, protocol=protocol)
    [episode] = run_seeded(PathWalker(made.protocol), lambda: made, [(PATH, (seed, 0, 0, 0))])
    assert episode.error is None
    assert episode.reward == 1
    assert len(engine.queries) == len(set(engine.queries)) == 3
    assert all(STEP["title"] in query for query in engine.queries)
    assert engine.queries[1] == f"birth place of {STEP['title']}"


def query(seed: tuple[int, ...], task: Task = PATH, protocol: str = "tags") -> str:
    episode = Episode(task=task, env="e", agent="a", observation="?", seed=seed)
    made = PROTOCOLS[protocol]()
    [act] = PathWalker(made).act([episode])
    return made.parse(act.text).text


def test_the_wording_varies_and_depends_on_its_own_seed_alone():
    found = [query((0, 0, i, 0)) for i in range(60)]
    title = STEP["title"]
    assert set(found) == {title, f"{title} birth place"}
    assert 30 < found.count(title) < 60  # mostly the name alone
    assert [query((0, 0, i, 0)) for i in range(60)] == found
    for protocol in PROTOCOLS:  # the words are the same, however they are written
        assert [query((0, 0, i, 0), protocol=protocol) for i in range(60)] == found
    # Neither the neighbours nor their order change a word.
    walker = PathWalker(PROTOCOLS["tags"]())
    episodes = [
        Episode(task=PATH, env="e", agent="a", observation="?", seed=(0, 0, i, 0))
        for i in range(60)
    ]
    together = [act.text for act in walker.act(episodes)]
    assert [act.text for act in walker.act(episodes[::-1])][::-1] == together
    assert together == [f"<search>{words}</search>" for words in found]
    assert [query((1, 0, i, 0)) for i in range(60)] != found


def test_when_every_wording_failed_it_goes_on():
    walker = PathWalker(PROTOCOLS["tags"]())
    episode = Episode(task=PATH, env="e", agent="a", observation="?", seed=(0, 0, 0, 0))
    for _ in range(5):
        [act] = walker.act([episode])
        episode.turns.append(Turn(act.text, "Nothing found."))
    assert len({turn.action for turn in episode.turns}) == 3


@pytest.mark.parametrize(
    ("metadata", "answers"),
    [
        ({}, ("x",)),
        ({"path": None}, ("x",)),
        ({"path": []}, ("x",)),
        ({"path": "p1"}, ("x",)),
        ({"path": [{"page": "p1"}, "p2"]}, ("x",)),
        ({"path": [STEP]}, ()),
    ],
)
def test_a_task_without_a_path_or_an_answer_is_told(metadata, answers):
    with pytest.raises(TaskError, match="task 't/1' has no gold path to walk, or no answer"):
        query((0, 0, 0, 0), Task("t/1", "?", answers, metadata))


def test_an_environment_without_searches_is_told_in_a_line():
    task = ovd_envs.make("ovd/Math-v0").tasks.task("train", 0)
    with pytest.raises(OVDError, match="'path': 'ovd/Math-v0' has no searches") as caught:
        PathDemonstrator().demonstrate("ovd/Math-v0", [(task, (0, 0, 0, 0))])
    assert "\n" not in str(caught.value)
