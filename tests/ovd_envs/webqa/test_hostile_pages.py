"""A page that means no good, opened within an episode: a reason, and the episode goes on."""

import gzip

import pytest

from ovd_envs.search.bm25 import BM25Engine
from ovd_envs.search.corpus import Document
from ovd_envs.task import ListTasks, Task
from ovd_envs.web.fetcher import Fetcher
from ovd_envs.webqa.env import WebQAEnv
from tests.ovd_envs.web.conftest import serve
from tests.ovd_envs.web.servers import PAGE, reply
from tests.ovd_envs.web.test_hostile_servers import BOMB, HEAD, drip, flood

__all__ = ["serve"]  # the fixture

TASK = Task("q-1", "Where is the clock?", ("Varnmoor",))


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (drip(b"<p>slow ", after=HEAD + b"\r\n"), "too slow: more than 0.6 s"),
        (flood(b"<p>more</p>" * 1000, HEAD + b"\r\n"), "too large: more than 0.2 MB"),
        (reply(BOMB, Content_Encoding="gzip"), "too large: more than 0.2 MB"),
        (reply("", "302 Found", Location="/again"), "redirect loop"),
        (reply(b"\0\1\2\3" * 500, type="image/png"), "image/png"),
        (gzip.compress(PAGE.encode()), "broken answer"),
    ],
    ids=["drip", "endless", "bomb", "redirect loop", "binary", "no HTTP at all"],
)
def test_the_episode_goes_on(serve, page, reason):
    bad, good = serve(page), serve(reply(PAGE))
    env = WebQAEnv(
        ListTasks("made", train=[TASK]),
        engine=BM25Engine.from_documents([Document("1", "Clock", "It stands in Varnmoor.")]),
        reader=Fetcher(allow={"localhost"}, time_limit=0.6, max_bytes=200_000),
        turns=5,
    )
    env.reset(seed=0)
    seen, reward, terminated, truncated, info = env.step(f"<open>{bad.url()}</open>")
    assert "cannot be read" in seen
    assert reason in seen
    assert (reward, terminated, truncated, info["failed"]) == (0, False, False, 1)
    seen, _, terminated, truncated, info = env.step(f"<open>{good.url()}</open>")
    assert "Some words" in seen
    assert (terminated, truncated) == (False, False)
    env.step("<search>clock</search>")
    _, reward, terminated, _, info = env.step("<answer>Varnmoor</answer>")
    assert (reward, terminated, info["outcome"]) == (1, True, "right")
