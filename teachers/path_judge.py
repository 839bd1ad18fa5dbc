"""A judge for search and answer: scores an episode by its task's gold path, without a model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.episode import Episode
from ovd_envs.errors import OVDError
from ovd_envs.grading.qa import normalize_answer
from ovd_envs.task import Task
from ovd_envs.webqa.support import named_documents
from teachers.score_level import ScoreLevel, check_score_level
from teachers.verdict import MAX_SCORE, Verdict

_OUTCOMES = ("right", "wrong", "no_answer", "unsupported")

#: Complaints that a reason tells; what is more is counted.
_TOLD = 3

#: Scores of turns: see ``PathJudge``.
_MORE_THAN_NEEDED, _NOT_NEEDED, _REPEATED, _WRONG_ANSWER = 4, 3, 2, 1


class PathJudge:
    """Scores the searches and the answer of an episode of ``ovd/WorldQA-v0`` or ``ovd/WebQA-v0``.

    The task's metadata name the documents that its answer rests on: "support" or "path" (by
    identity), or "supporting_titles". Found is what a search returned or what was opened.

    - 9: the answer is right, all the support was found, and no turn was wasted; 8 with one wasted
      turn, 7 with more. Wasted is a repeated query, a search that returns none of the support, a
      search more than there are documents to find, another document that was opened, a message
      without an action.
    - 2 to 4: the answer is right, but support is missing: memory or luck. By the share of the
      support that was found; also where the environment says that it was not seen.
    - 1 to 5: the answer is wrong, by the share of the support that was found: 1 for none, 5 for
      all. One less (0 to 4) without any answer.
    - 0 or 1: nothing was searched or opened; 1 for a right answer all the same.

    So finding more never lowers a score, and 7 or more means right, supported, and searched for.
    Read are the environment's "outcome", "answer", "searches", "opened" and "failed" and the number
    of the acting model's own messages; never an observation. A task without support, or an episode
    of another environment, is an error verdict.

    ``score_level`` "turn" scores each turn too (``Verdict.turns``), where the environment tells
    what each message "did": 9 for a search or a page that found support that was needed, and for
    a right and supported answer; 4 for a search more than needed, 3 for one that found nothing
    needed or a page that was not, 2 for a repeated query; 1 for an answer that is wrong or came
    too soon, 0 for a message without an action and for a last one without an answer. ``None``
    where the engine or a page failed.

    Raises ``OVDError`` for another ``score_level``.
    """

    name = "path"
    show_gold = True

    def __init__(self, *, score_level: ScoreLevel = "episode") -> None:
        self.score_level = check_score_level(score_level)
        self.fingerprint = f"path/2/{score_level}"

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode."""
        return [self._verdict(episode) for episode in episodes]

    def _verdict(self, episode: Episode) -> Verdict:
        started = time.perf_counter()
        try:
            support = Support.of(episode.task)
            turns = None
            if episode.turns:
                walk = read_walk(support, episode)
                score, reason = verdict_on(support, walk)
                if self.score_level == "turn":
                    turns = turn_scores(support, walk, episode)
            else:
                score, reason = 0, "Nothing was done."
        except OVDError as error:
            return Verdict(episode.id, self.name, None, error=" ".join(str(error).split()))
        seconds = time.perf_counter() - started
        return Verdict(episode.id, self.name, score, reason, seconds=seconds, turns=turns)


@dataclass(frozen=True, slots=True)
class Support:
    """The documents that an answer rests on."""

    documents: Mapping[str, str]
    """What each is known by (its identity, or its title in one form), and its title or identity
    as a reason shows it; in the order of the path."""
    by_title: bool
    values: tuple[str, ...] = ()
    """What the documents of the path say, one value a hop; the last is what was asked for."""

    @classmethod
    def of(cls, task: Task) -> Support:
        """The support that ``task`` names. Raises ``OVDError`` where it names none."""
        metadata = task.metadata
        path = [hop for hop in _listed(metadata.get("path")) if isinstance(hop, Mapping)]
        titles = {str(hop["page"]): str(hop.get("title", "")) for hop in path if "page" in hop}
        support = named_documents(metadata.get("support"))
        if documents := dict.fromkeys(support or titles):
            shown = {document: titles.get(document) or document for document in documents}
            return cls(shown, by_title=False, values=tuple(str(h.get("value", "")) for h in path))
        wanted = named_documents(metadata.get("supporting_titles"))
        by_title = {_one_form(title): title for title in wanted}
        if not by_title:
            raise OVDError(
                f"task {task.id!r}: expected 'path', 'support' or 'supporting_titles' in its "
                f"metadata, found {', '.join(metadata) or 'nothing'}"
            )
        return cls(by_title, by_title=True)


@dataclass(slots=True)
class Walk:
    """What an episode did, as seen from the path."""

    outcome: str
    answer: str
    searched: bool
    """Whether anything was searched or opened."""
    found: set[str] = field(default_factory=set)
    """The support that was returned or opened."""
    wasted: int = 0
    complaints: list[str] = field(default_factory=list)
    """What was wasted, for the reason."""
    searches: list[float] = field(default_factory=list)
    """The score of each search, as a turn."""
    opened: list[float] = field(default_factory=list)
    """The score of each opened document, as a turn."""


def read_walk(support: Support, episode: Episode) -> Walk:
    """What ``episode`` did. Raises ``OVDError`` where it is of another kind of environment."""
    info = episode.info
    searches, opened = info.get("searches"), info.get("opened", [])
    outcome = info.get("outcome") or "no_answer"  # there is none where a budget ended the episode
    if not isinstance(searches, (list, tuple)) or not isinstance(opened, (list, tuple)):
        found = ", ".join(info) or "nothing"
        raise OVDError(f"expected 'searches' and 'opened' in the episode's info, found {found}")
    if outcome not in _OUTCOMES:
        raise OVDError(f"expected an outcome of {', '.join(_OUTCOMES)}, got {outcome!r}")
    walk = Walk(outcome, str(info.get("answer") or ""), bool(searches or opened))
    titles: dict[str, str] = {}
    queries: dict[str, int] = {}
    useful = 0
    for number, search in enumerate(searches, start=1):
        query, results = _read_search(search, titles, with_titles=support.by_title)
        hits = _hits(support, results, titles)
        walk.found |= hits
        first = queries.setdefault(_one_form(query), number)
        if first != number:
            _waste(walk, f"search {number} repeats search {first}")
            walk.searches.append(_REPEATED)
        elif not hits:
            _waste(walk, f"search {number} ({_short(query)!r}) finds nothing that is needed")
            walk.searches.append(_NOT_NEEDED)
        else:
            useful += 1
            enough = useful > len(support.documents)
            walk.searches.append(_MORE_THAN_NEEDED if enough else MAX_SCORE)
    # One document a search is enough. A later search that finds a document again is only then too
    # much: otherwise an earlier one that finds more would spoil it.
    if (more := useful - len(support.documents)) > 0:
        _waste(walk, f"{_count(more, 'search')} more than needed", more)
    other = 0
    for document in map(str, opened):
        hits = _hits(support, [document], titles)
        walk.found |= hits
        other += not hits
        walk.opened.append(MAX_SCORE if hits else _NOT_NEEDED)
    if other:
        _waste(walk, f"{_count(other, 'page')} opened that {_is(other)} not needed", other)
    failed = info.get("failed", 0)
    done = len(searches) + len(opened) + (failed if isinstance(failed, int) else 0)
    idle = len(episode.turns) - done - 1  # the last message answers, or does nothing any more
    if idle > 0:
        _waste(walk, f"{_count(idle, 'message')} without an action", idle)
    return walk


def verdict_on(support: Support, walk: Walk) -> tuple[float, str]:
    """Score (0 to 9) and reason for what an episode did. See ``PathJudge``."""
    needed, found = len(support.documents), len(walk.found)
    answer = f"The answer {_short(walk.answer)!r}"
    right = walk.outcome in ("right", "unsupported")
    if not walk.searched:
        if right:
            return 1, f"{answer} is right, but nothing was searched: memory or luck."
        told = "There is no answer" if walk.outcome == "no_answer" else f"{answer} is wrong"
        return 0, f"{told}, and nothing was searched."
    told = _told_support(support, walk)
    if walk.outcome == "right" and found == needed:
        score = MAX_SCORE - min(walk.wasted, 2)
        return score, f"{answer} is right, and {told}{_told_waste(walk)}."
    if right:
        if found == needed:
            told += " but not shown"
        score = min(2 + 3 * found // needed, 4)
        return score, f"{answer} is right, but {told}: memory or luck{_told_waste(walk)}."
    share = 4 * found // needed
    if walk.outcome == "no_answer":
        return share, f"There is no answer; {told}{_told_waste(walk)}."
    hop = _hop(support, walk.answer)
    return 1 + share, f"{answer} is wrong{hop}; {told}{_told_waste(walk)}."


def turn_scores(support: Support, walk: Walk, episode: Episode) -> tuple[float | None, ...] | None:
    """The score of each turn (see ``PathJudge``); ``None`` where it is not told what each did."""
    did = episode.info.get("did")
    if not isinstance(did, (list, tuple)) or len(did) != len(episode.turns):
        return None
    searches, opened = iter(walk.searches), iter(walk.opened)
    right = walk.outcome == "right" and len(walk.found) == len(support.documents)
    scores: list[float | None] = []
    for what in did:
        if what == "search":
            scores.append(next(searches, None))
        elif what == "open":
            scores.append(next(opened, None))
        elif what == "answer":
            scores.append(MAX_SCORE if right else _WRONG_ANSWER)
        else:
            scores.append(None if what == "failed" else 0)
    return tuple(scores)


def _told_support(support: Support, walk: Walk) -> str:
    needed, found = len(support.documents), len(walk.found)
    if found == needed:
        if needed == 1:
            return "the supporting page was found"
        return f"{'both' if needed == 2 else f'all {needed}'} supporting pages were found"
    missing = [repr(_short(t)) for d, t in support.documents.items() if d not in walk.found]
    shown = ", ".join(missing[:_TOLD]) + (", ..." if len(missing) > _TOLD else "")
    if needed == 1:
        return f"the supporting page was not found ({shown})"
    return f"{found or 'none'} of {needed} supporting pages {_was(found)} found (missing: {shown})"


def _told_waste(walk: Walk) -> str:
    if not walk.complaints:
        return ""
    more = len(walk.complaints) - _TOLD
    return "; " + "; ".join(walk.complaints[:_TOLD]) + (f"; and {more} more" if more > 0 else "")


def _hop(support: Support, answer: str) -> str:
    """Whether a wrong answer is what an earlier document of the path says."""
    said = normalize_answer(answer, mended=True)
    values = [normalize_answer(value, mended=True) for value in support.values]
    if said and said in values[:-1] and said != values[-1]:
        return f" (it is what hop {values.index(said) + 1} of {len(values)} leads to)"
    return ""


def _hits(support: Support, results: Sequence[str], titles: Mapping[str, str]) -> set[str]:
    """The support among documents, by their identities."""
    if support.by_title:
        results = [_one_form(titles.get(document, document)) for document in results]
    return set(results) & set(support.documents)


def _read_search(
    search: Any, titles: dict[str, str], *, with_titles: bool
) -> tuple[str, Sequence[str]]:
    """Query and results of an entry of "searches"; the titles of its results go into ``titles``."""
    found = search.get("results") if isinstance(search, Mapping) else None
    if not isinstance(found, (list, tuple)) or not isinstance(search.get("query"), str):
        raise OVDError(f"expected a search with 'query' and 'results' in info, got {search!r:.80}")
    results = [str(document) for document in found]
    if with_titles:
        named = _listed(search.get("titles"))
        if len(named) != len(results):
            raise OVDError(
                "the task names its support by titles: expected a search with as many 'titles' as "
                f"'results', got {len(named)} and {len(results)}"
            )
        titles.update(zip(results, map(str, named), strict=True))
    return search["query"], results


def _waste(walk: Walk, complaint: str, turns: int = 1) -> None:
    walk.wasted += turns
    walk.complaints.append(complaint)


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, (list, tuple)) else ()


def _one_form(text: str) -> str:
    return " ".join(text.casefold().split())


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _count(number: int, thing: str) -> str:
    plural = f"{thing}es" if thing.endswith("ch") else f"{thing}s"
    return f"{number} {thing if number == 1 else plural}"


def _is(number: int) -> str:
    return "is" if number == 1 else "are"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"
