"""``ovd/WebQA-v0``: a question, a search engine, and pages to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ovd_envs.env import Budget, Reply, TextEnv
from ovd_envs.errors import OVDError
from ovd_envs.grading.qa import NORMALIZATIONS, grade_qa
from ovd_envs.search.protocol import SearchEngine, SearchError, SearchResult, blocks
from ovd_envs.search.registry import EngineSpec, shared_engine
from ovd_envs.sources import shared_source
from ovd_envs.task import Task, TaskSource
from ovd_envs.web.page import FetchError, PageReader
from ovd_envs.webqa.action import Action, Protocol
from ovd_envs.webqa.observation import disarm, fit, pages
from ovd_envs.webqa.search_r1 import SearchR1Protocol
from ovd_envs.webqa.support import named_documents
from ovd_envs.webqa.tags import TagProtocol
from ovd_envs.webqa.tool_calls import ToolCallProtocol

PROTOCOLS: Mapping[str, type[TagProtocol | ToolCallProtocol | SearchR1Protocol]] = {
    protocol.name: protocol for protocol in (TagProtocol, ToolCallProtocol, SearchR1Protocol)
}
REWARDS = ("f1", "em", "substring")

LAST_MESSAGE = "Answer now: your next message is the last."

#: The mark of a cut and a character of any script, in bytes and more.
_LEAST_LIMIT = 16

#: What a message that asked for something can have done: see ``WebQAEnv``.
_CAME_OF = ("search", "open", "failed")

#: What an episode changes here.
_EPISODE = ("_results", "_seen", "_searches", "_opened", "_did", "_invalid", "_failed", "_failures")

#: Searches that fail in a row before the engine is taken to be down: then the run stops.
_PATIENCE = 3


class WebQAEnv(TextEnv):
    """Search, read, answer.

    Each message is one action; only the acting model's own message is read for it, and for the
    answer. A search shows the first ``k`` results, whole passages up to the observation's limit;
    "open" shows a result or a page in parts. A message without an action costs its turn. In the
    last turn only an answer counts: a search is not done then.

    ``info`` tells "action" (what the message asked for), "searches" (each with its "query" and the
    "results" and "titles" that it showed), "opened", "invalid" (messages without an action),
    "failed" (searches and pages that could not be had) and "did" (what came of each message:
    "search", "open", "answer", "failed" or "nothing"); at the end also "outcome" ("right",
    "wrong", "no_answer", "unsupported"), the "answer" that was read, "em", "f1" and "substring".

    Args:
        source: the questions: a source, a JSONL file, or what ``task_source`` takes.
        engine: an engine, or what ``make_engine`` takes: "bm25:FOLDER", "http:URL", ...
        protocol: how actions are written: "tags", "tool_calls" or "search-r1".
        k: results of a search.
        turns: messages of an episode; the last must answer.
        reader: reads the pages of addresses: a ``PageReader``, "web" for the real web, or nothing:
            then only what the engine found can be opened.
        reward: "f1", "em" (exact match) or "substring" (the gold answer within the answer).
        normalization: of answers, before they are compared: "squad", or "mended" (accents, dashes
            and answers of which nothing else would be left).
        require_support: reward only answers whose supporting documents were shown, where the
            task names them (metadata "support" or "supporting_titles").
        search: ``False`` lets every search find nothing and opens no page, to see what is known
            without them; then no support is asked for.
        prompt_file: a text with ``{question}`` in it, instead of the protocol's own prompt.
        observation_limit: characters of one observation (tokens, where ``budget`` has
            ``count_tokens``); by default 2000 characters, or 500 tokens.
        split: the split of the tasks to draw from.
        budget: limits beside the turns, a ``Budget`` or a mapping of its fields.
        render_mode: "ansi" or "human".

    Raises:
        OVDError: for a bad option, naming it.
    """

    def __init__(
        self,
        source: TaskSource | str | Path | Mapping[str, str | Path] | None = None,
        *,
        engine: EngineSpec | None = None,
        protocol: str = "tags",
        k: int = 3,
        turns: int = 5,
        reader: PageReader | str | None = None,
        reward: str = "f1",
        normalization: str = "squad",
        require_support: bool = False,
        search: bool = True,
        prompt_file: str | Path | None = None,
        observation_limit: int | None = None,
        split: str = "train",
        budget: Budget | Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        _one_of("protocol", protocol, tuple(PROTOCOLS))
        _one_of("reward", reward, REWARDS)
        _one_of("normalization", normalization, NORMALIZATIONS)
        for name, value in (("k", k), ("turns", turns), ("observation_limit", observation_limit)):
            least = _LEAST_LIMIT if name == "observation_limit" else 1
            if value is not None and (type(value) is not int or value < least):
                raise OVDError(
                    f"{name}: expected a whole number of at least {least}, got {value!r}"
                )
        if source is None or engine is None:
            missing = "source" if source is None else "engine"
            raise OVDError(
                f"{missing}: expected questions (source=FILE.jsonl) and a search engine "
                "(engine=bm25:FOLDER, made by `ovd index`); ovd/WorldQA-v0 brings both"
            )
        self.protocol: Protocol = (
            PROTOCOLS[protocol]()
            if prompt_file is None
            else PROTOCOLS[protocol](_read_prompt(prompt_file))
        )
        self.dialect = self.protocol.dialect
        self.stop_strings = self.protocol.stop_strings
        self.k = k
        self.reward = reward
        self.normalization = normalization
        self.require_support = require_support
        self.search = search
        self.engine: SearchEngine = shared_engine(engine)
        self.reader = _reader(reader)
        self.blocks = search and (blocks(self.engine) or blocks(self.reader))
        super().__init__(
            shared_source(source),
            split=split,
            budget=Budget.beside(budget, turns=turns),
            render_mode=render_mode,
        )
        self._count = self.budget.count_tokens or len
        self.observation_limit = observation_limit or (
            2000 if self.budget.count_tokens is None else 500
        )
        self._bound: SearchEngine = self.engine
        self._failures = 0

    def observe(self, task: Task) -> str:
        """How to act, and the question."""
        self._results: list[SearchResult] = []
        self._seen: dict[str, SearchResult] = {}
        self._searches: list[dict[str, Any]] = []
        self._opened: list[str] = []
        self._did: list[str] = []
        self._invalid = self._failed = 0
        self._bind(task)
        return self.protocol.prompt(task.question)

    def _bind(self, task: Task) -> None:
        # Some engines know which task a query belongs to (a simulated one writes for it).
        bind = getattr(self.engine, "for_task", None)
        self._bound = self.engine if bind is None else bind(task, training_step=self.training_step)

    def save_state(self) -> dict[str, Any]:
        """What was found, opened and asked for so far."""
        return {name: getattr(self, name) for name in _EPISODE}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with what was found; the engine is this environment's own."""
        for name in _EPISODE:
            setattr(self, name, state[name])
        self._bind(self.task)

    def respond(self, action: str) -> Reply:
        """Search, open a page, or grade the answer."""
        asked = self.protocol.parse(action)
        if asked.kind == "answer":
            self._did.append("answer")
            return self._answered(asked.text)
        last = self.budget.turns is not None and self.turn >= self.budget.turns
        if last:
            self._invalid += asked.kind == "invalid"
            self._did.append("nothing")
            nothing = dict.fromkeys(("em", "f1", "substring"), 0.0)
            info = self._info_of(asked, outcome="no_answer", **nothing)
            return Reply(end="no_answer", info=info)
        before = (len(self._searches), len(self._opened), self._failed)
        if asked.kind == "search":
            observation = self._search(asked.text)
        elif asked.kind == "open":
            observation = self._open(asked)
        else:
            self._invalid += 1
            observation = self.protocol.complaint(asked.text)
        now = (len(self._searches), len(self._opened), self._failed)
        came = [what for what, a, b in zip(_CAME_OF, before, now, strict=True) if b > a]
        self._did += came or ["nothing"]
        if self.protocol.warns and self.budget.turns == self.turn + 1:
            observation = f"{observation}\n{LAST_MESSAGE}"
        return Reply(observation, info=self._info_of(asked))

    def gold_actions(self, task: Task, answer: str) -> Sequence[str]:
        """The gold answer; before it a search for each supporting title, where they are needed.

        None where the support is named by its identity alone: which words find it is not known.
        """
        titles: list[str] = []
        if self.require_support and self.search:
            titles = named_documents(task.metadata.get("supporting_titles"))
            if not titles and named_documents(task.metadata.get("support")):
                return ()
        searches = [Action("search", title) for title in titles]
        return [self.protocol.write(step) for step in (*searches, Action("answer", answer))]

    def _search(self, query: str) -> str:
        """Search, remember what was found, and show it."""
        try:
            results = self._bound.search([query], self.k)[0] if self.search else []
            self._failures = 0
        except SearchError as error:
            self._failed += 1
            self._failures += 1
            if self._failures >= _PATIENCE:
                raise
            return self.protocol.complaint(f"the search failed: {disarm(_line(error))}")
        passages = [
            disarm(self.protocol.passage(number, _on_one_line(result)))
            for number, result in enumerate(results, start=1)
        ]
        text, number = fit(passages, self.observation_limit, self._count)
        results = results[:number]  # what was not shown is no support
        self._results = results
        self._seen.update({result.id: result for result in results})
        self._searches.append(
            {
                "query": query,
                "results": [result.id for result in results],
                "titles": [result.title for result in results],
            }
        )
        return self.protocol.observation(text or "Nothing found.")

    def _open(self, asked: Action) -> str:
        """One part of a result or of a page."""
        found = self._target(asked.text)
        url = found.url if found is not None else asked.text
        on_the_web = url.partition(":")[0].lower() in ("http", "https")
        if self.search and self.reader is not None and on_the_web:
            try:
                page = self.reader.read(url)
            except FetchError as error:
                self._failed += 1
                return self.protocol.complaint(f"the page cannot be read: {disarm(_line(error))}")
            identity, title, text = self._document(page.url), page.title, page.text
        elif found is not None:
            identity, title, text = found.id, found.title, found.text
        else:
            return self.protocol.complaint(
                f"there is no result {disarm(asked.text[:100])!r} to open"
            )
        parts = pages(disarm(f"{title}\n{text}"), self.observation_limit, self._count)
        if asked.page > len(parts):
            return self.protocol.complaint(f"the page has {len(parts)} part(s)")
        self._opened.append(identity)
        part = parts[asked.page - 1]
        if len(parts) > 1:
            part = f"{part}\n(part {asked.page} of {len(parts)})"
        return self.protocol.observation(part)

    def _target(self, text: str) -> SearchResult | None:
        """The result that ``text`` names: its number in the last search, its address or title."""
        number = int(text) if text.isdecimal() and len(text) < 7 else None
        if number is not None and 0 < number <= len(self._results):
            return self._results[number - 1]
        for result in reversed(self._seen.values()):
            names = [result.url, result.title, disarm(_on_one_line(result).title)]
            # Ids are not shown, and mostly numbers: one that is too high means none of them.
            if text in names or (number is None and text == result.id):
                return result
        return None

    def _document(self, url: str) -> str:
        """The identity of the document at ``url``: that of the result with this address."""
        for result in self._seen.values():
            if result.url == url:
                return result.id
        return url

    def _answered(self, answer: str) -> Reply:
        grade = grade_qa(self.task.answers, answer, mended=self.normalization == "mended")
        scores = {"em": grade.em, "f1": grade.f1, "substring": grade.substring}
        reward = scores[self.reward]
        outcome = "right" if reward >= 1 else "wrong"
        if self.require_support and self.search and not self._supported():
            # Said before anything was found: known by heart, or guessed.
            outcome = "unsupported" if reward >= 1 else "wrong"
            reward = 0.0
        asked = Action("answer", answer)
        info = self._info_of(asked, outcome=outcome, answer=answer, **scores)
        return Reply(reward=reward, end="answered", info=info)

    def _supported(self) -> bool:
        """Whether every document that the task names as support was shown."""
        shown = {*self._opened, *self._seen}
        wanted = named_documents(self.task.metadata.get("support"))
        if not wanted:
            wanted = named_documents(self.task.metadata.get("supporting_titles"))
            shown |= {result.title for result in self._seen.values()}
        return shown.issuperset(wanted)

    def _info_of(self, asked: Action, **ending: Any) -> dict[str, Any]:
        """What ``info`` tells; "outcome" and the answer only at the end."""
        return {
            "action": asked.kind,
            "searches": self._searches,
            "opened": self._opened,
            "invalid": self._invalid,
            "failed": self._failed,
            "did": self._did,
            **({"answer": None, **ending} if ending else {}),
        }


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OVDError(f"{name}: expected one of {', '.join(known)}, got {value!r}")


def _read_prompt(path: str | Path) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise OVDError(f"prompt_file {path}: cannot be read ({reason})") from error
    if "{question}" not in text:
        raise OVDError(f"prompt_file {path}: expected {{question}} where the question goes")
    return text


def _reader(reader: PageReader | str | None) -> PageReader | None:
    if reader == "web":
        from ovd_envs.web.fetcher import Fetcher

        return Fetcher()
    if isinstance(reader, str):
        raise OVDError(f"reader: expected web, a PageReader or nothing, got {reader!r}")
    return reader


def _on_one_line(result: SearchResult) -> SearchResult:
    """The result with its title on one line."""
    return replace(result, title=" ".join(result.title.split()))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
