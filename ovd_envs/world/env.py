"""``ovd/WorldQA-v0``: questions about an invented world, a search engine over it, its pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ovd_envs.env import Budget
from ovd_envs.errors import TaskError
from ovd_envs.search.bm25 import BM25Engine
from ovd_envs.task import Task
from ovd_envs.web.page import FetchError, Page
from ovd_envs.webqa.action import Action
from ovd_envs.webqa.env import WebQAEnv
from ovd_envs.world.server import WorldServer
from ovd_envs.world.tasks import WorldTasks
from ovd_envs.world.world import BASE_URL, shared_world


class WorldQAEnv(WebQAEnv):
    """Questions of one to four hops about a world that exists nowhere else.

    A BM25 engine searches the pages of the world that the question is about; "open" reads a page
    over real HTTP from a server on the loopback address. An answer counts only where the pages
    that it follows from were shown. Everything else is as in ``ovd/WebQA-v0``.

    Args:
        hops: pages that an answer takes, 1 to 4, or several such numbers (see ``WorldTasks``).
        kinds: which kinds of questions.
        people: how many people each world has.
        seed: which pair of worlds, one to train in and one to test in.
        reward: "em" here, for answers are exact.
        protocol, k, turns, search, require_support, normalization, prompt_file, observation_limit,
            split, budget, render_mode: see ``WebQAEnv``.

    Raises:
        OVDError: for a bad option, naming it.
    """

    tasks: WorldTasks

    def __init__(
        self,
        hops: int | Sequence[int] = 1,
        *,
        kinds: str | Sequence[str] | None = None,
        people: int = 400,
        seed: int = 0,
        protocol: str = "tags",
        k: int = 3,
        turns: int = 5,
        reward: str = "em",
        normalization: str = "squad",
        require_support: bool = True,
        search: bool = True,
        prompt_file: str | Path | None = None,
        observation_limit: int | None = None,
        split: str = "train",
        budget: Budget | Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        source = WorldTasks(hops, kinds=kinds, people=people, seed=seed)
        super().__init__(
            source,
            engine=world_index(seed, people, source.splits[0]),
            protocol=protocol,
            k=k,
            turns=turns,
            reward=reward,
            normalization=normalization,
            require_support=require_support,
            search=search,
            prompt_file=prompt_file,
            observation_limit=observation_limit,
            split=split,
            budget=budget,
            render_mode=render_mode,
        )

    def observe(self, task: Task) -> str:
        """How to act, and the question; from now on the engine is that of the task's world."""
        self._choose_world(task)
        return super().observe(task)

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with what was found, in the world of the task."""
        self._choose_world(self.task)
        super().load_state(state)

    def _choose_world(self, task: Task) -> None:
        split = task.id.rpartition("/")[0].rpartition("/")[2]
        if split not in self.tasks.splits:
            raise TaskError(
                f"task {task.id!r}: expected one of this environment's own, '{self.tasks.name}/"
                f"SPLIT/INDEX' with SPLIT one of {', '.join(self.tasks.splits)}"
            )
        self._split = split
        self.engine = world_index(self.tasks.seed, self.tasks.people, split)
        self.reader = WorldReader(self.tasks.seed, self.tasks.people, split)

    def gold_actions(self, task: Task, answer: str) -> Sequence[str]:
        """A search for each page of the gold path, then the answer."""
        titles = dict.fromkeys(str(step["title"]) for step in task.metadata.get("path", ()))
        searches = [Action("search", title) for title in titles]
        return [self.protocol.write(step) for step in (*searches, Action("answer", answer))]

    def _document(self, url: str) -> str:
        """The id of the page at ``url``, whether a search has shown it or not."""
        world = self.tasks.world(self._split)
        page = world.paths.get(unquote(urlsplit(url).path))
        return super()._document(url) if page is None else page.id


class WorldReader:
    """Reads the pages of a world over HTTP; the server starts with the first page.

    The addresses are those of ``World.documents`` (``http://world.invalid/...``), whatever port
    the server has, so that an episode is the same wherever it is run.
    """

    def __init__(self, seed: int, people: int, split: str) -> None:
        self._world = (seed, people, split)

    def read(self, url: str) -> Page:
        """The page at ``url``. Raises ``FetchError`` for an address that is not of the world."""
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise FetchError("not a web address") from error
        if f"{parts.scheme}://{parts.netloc}" != BASE_URL or not url.startswith(BASE_URL):
            raise FetchError(f"only pages of {BASE_URL} can be read here")
        server, fetcher = _served(*self._world)
        page = fetcher.read(f"{server}{url.removeprefix(BASE_URL)}")
        return Page(page.url.replace(server, BASE_URL, 1), page.title, page.text)


@lru_cache(maxsize=8)
def world_index(seed: int, people: int, split: str) -> BM25Engine:
    """The engine over the pages of a world, made once per process."""
    return BM25Engine.from_documents(shared_world(seed, people=people, split=split).documents())


@lru_cache(maxsize=8)
def _served(seed: int, people: int, split: str) -> tuple[str, Any]:
    from ovd_envs.web.fetcher import Fetcher

    # A daemon: it ends with the process.
    server = WorldServer(shared_world(seed, people=people, split=split))
    return server.url, Fetcher(allow=[urlsplit(server.url).netloc])
