"""Judge a file of episodes into a file of verdicts; what is there already is not asked again."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from agents.episode import Episode, read_episodes
from ovd_envs.errors import OVDError
from teachers.cache import VerdictCache, content_hash, is_cached
from teachers.equal_episodes import on_equal
from teachers.protocol import Judge, JudgeStopError
from teachers.score import stream_units
from teachers.verdict import Verdict
from teachers.verdict_log import VerdictLog, row_key
from teachers.whole_groups import Grouping, GroupKey, Unit, group_key, scores_groups

#: Verdicts between two times that the file is forced onto the disk.
SYNC_EVERY = 256


class Identity(NamedTuple):
    """An episode in its file."""

    id: str
    content: str
    """The hash of what judges read of it."""
    group: GroupKey | None
    """Its group; ``None`` where it ended in an error."""


def identify(path: str | Path) -> list[Identity]:
    """The identity of every episode in a file.

    Raises ``OVDError`` for a file without episodes and, naming the row, for one that is broken.
    """
    identities = [
        Identity(e.id, content_hash(e), None if e.error is not None else group_key(e))
        for e in read_episodes(path)
    ]
    if not identities:
        raise OVDError(f"{path}: expected at least one episode, the file has none")
    return identities


def score_file(
    judge: Judge,
    episodes: str | Path,
    out: str | Path,
    *,
    cache: VerdictCache | None = None,
    progress: Callable[[Verdict, bool], None] | None = None,
    identities: Sequence[Identity] | None = None,
    stop: threading.Event | None = None,
    paid: Iterable[Verdict] = (),
) -> list[Verdict]:
    """Verdicts on the episodes of a file, in their order, saved in ``out`` as they come.

    Verdicts that ``out`` holds already are kept, errors among them are asked for again (with their
    whole group where the judge reads groups); what an earlier question cost stays counted in the
    tokens of the verdict. A kill at any moment loses at most what is under way. ``progress`` is
    called with each verdict and whether it is new.
    ``identities`` is what ``identify`` gave, where it was called before. Once ``stop`` is set
    nothing more is asked, and what is under way is waited for. What the verdicts of ``paid`` cost
    counts in the judge's budget, beside what those of ``out`` did.

    Raises ``OVDError`` where ``out`` holds verdicts on other episodes or of another judge, or
    cannot be written; ``JudgeStopError`` where it is no use to go on, and ``KeyboardInterrupt``
    where it was stopped. In any case what was answered is in ``out``.
    """
    identities = identify(episodes) if identities is None else identities
    out = Path(out)
    if out.exists() and out.samefile(episodes):
        raise OVDError(f"{out}: this is the file of the episodes; expected another for verdicts")
    with VerdictLog(out) as log:
        scoring = _Scoring(judge, episodes, identities, log, cache, progress, paid)
        try:
            with _no_long_collections():
                scoring.run(stop or threading.Event())
        except JudgeStopError:
            log.finish(scoring.rows())
            raise
        log.finish(scoring.rows())
        if stop is not None and stop.is_set() and len(scoring.found) < len(identities):
            raise KeyboardInterrupt
        return [verdict for _, verdict in scoring.rows()]


@contextlib.contextmanager
def _no_long_collections() -> Iterator[None]:
    """Keep the garbage collector off what is there already: all modules, a model.

    While it looks through them no reply is read and no call made. Whoever froze objects before
    keeps them frozen.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Scoring:
    """The verdicts of one file, as far as they are there."""

    def __init__(
        self,
        judge: Judge,
        episodes: str | Path,
        identities: Sequence[Identity],
        log: VerdictLog,
        cache: VerdictCache | None,
        progress: Callable[[Verdict, bool], None] | None,
        paid: Iterable[Verdict],
    ) -> None:
        self._judge, self._episodes, self._log, self._cache = judge, episodes, log, cache
        self._progress = progress
        self._grouping: Grouping | None = None
        self._contents = [one.content for one in identities]
        self._beside = [""] * len(identities)
        if scores_groups(judge):
            self._grouping = Grouping.by((one.id, one.group) for one in identities)
            self._beside = self._grouping.contexts(self._contents)
        self._keyed = [
            (one.id, row_key(judge, one.content, beside))
            for one, beside in zip(identities, self._beside, strict=True)
        ]
        self._known = _known(self._keyed, log, episodes)
        self._shares = is_cached(judge)
        self._by_content: dict[str, Verdict] = {}
        """A verdict on each content, where a verdict depends on nothing else."""
        #: The verdicts by the positions of their episodes.
        self.found: dict[int, Verdict] = {}
        spending = getattr(judge, "spending", None)
        if spending is not None:  # a budget is that of the file, however often it is begun anew
            spending.begin([*paid, *self._known.values()])

    def rows(self) -> list[tuple[str, Verdict]]:
        """(key, verdict) of all that have one, in the order of the episodes."""
        rows = []
        for place, known in enumerate(self._keyed):
            # What was to be asked for again, and was not yet, stays as it was: what a failure has
            # cost counts in the budget of the next start.
            verdict = self.found.get(place) or self._known.get(known)
            if verdict is not None:
                rows.append((known[1], verdict))
        return rows

    def run(self, stop: threading.Event) -> None:
        """Look what is there, ask for the rest."""
        if self._grouping is None:
            missing = [place for place in range(len(self._keyed)) if not self._find(place)]
            units: Iterable[Unit] = ([one] for one in self._unknown(missing))
        else:
            missing = sorted(self._missing_groups(self._grouping))
            units = self._grouping.units(self._unknown(missing))
        streamed = stream_units(self._judge, units, stop=stop, contents=self._contents)
        for place, verdict in streamed:
            self._came(place, verdict)
            if len(self.found) % SYNC_EVERY == 0:
                self._log.sync()
        self._log.sync()

    def _unknown(self, missing: Iterable[int]) -> Iterator[tuple[int, Episode]]:
        """The episodes at these places, in their order."""
        wanted = iter(missing)
        place = next(wanted, None)
        if place is None:
            return  # nothing to read
        for number, episode in enumerate(read_episodes(self._episodes)):
            if number == place:
                # Equal content may have been judged meanwhile, here or by another process; a group
                # is asked for as a whole.
                if self._grouping is not None or not self._find(place):
                    yield number, episode
                place = next(wanted, None)
                if place is None:
                    return

    def _missing_groups(self, grouping: Grouping) -> Iterator[int]:
        """The places of all groups in which a verdict is missing, and of what is in no group."""
        for places in grouping.groups:
            if any(self._look(place)[0] is None for place in places):
                yield from places
            else:
                for place in places:
                    self._find(place)
        for place, group in enumerate(grouping.of):
            if group is None and not self._find(place):
                yield place

    def _find(self, place: int) -> bool:
        """Whether the verdict is known; then it is taken."""
        verdict, fresh = self._look(place)
        if verdict is None:
            return False
        self._take(place, verdict, fresh)
        return True

    def _look(self, place: int) -> tuple[Verdict | None, bool]:
        """The verdict in the file of verdicts, or else one on equal content, there or in the cache.

        And whether it is new here.
        """
        name, key = self._keyed[place]
        verdict, fresh = self._known.get((name, key)), False
        if verdict is None or verdict.failed:
            shared = self._by_content.get(self._contents[place])
            if shared is not None:
                shared = on_equal(shared, name)
            elif self._cache is not None and self._is_cached(place):
                shared = self._cache.find(_verdict_key(key), name)
            if shared is not None:
                # What it cost was paid for elsewhere; what a failure cost before it, here.
                paid = (0, 0)
                if verdict is not None:
                    paid = verdict.prompt_tokens, verdict.completion_tokens
                verdict = replace(shared, prompt_tokens=paid[0], completion_tokens=paid[1])
                fresh = True
        return (None if verdict is None or verdict.failed else verdict), fresh

    def _take(self, place: int, verdict: Verdict, fresh: bool) -> None:
        self.found[place] = verdict
        if self._shares and not verdict.failed:
            self._by_content.setdefault(self._contents[place], verdict)
        if self._progress is not None:
            self._progress(verdict, fresh)

    def _came(self, place: int, verdict: Verdict) -> None:
        name, key = self._keyed[place]
        if verdict.episode != name:
            raise OVDError(f"{self._episodes}: changed while it was judged")
        if self._cache is not None and self._is_cached(place) and not verdict.failed:
            self._cache.keep(_verdict_key(key), verdict)
        before = self._known.pop((name, key), None)
        if before is not None:  # it was paid for too
            verdict = replace(
                verdict,
                prompt_tokens=verdict.prompt_tokens + before.prompt_tokens,
                completion_tokens=verdict.completion_tokens + before.completion_tokens,
            )
        self._log.append(key, verdict)
        self._take(place, verdict, True)

    def _is_cached(self, place: int) -> bool:
        return is_cached(self._judge, self._beside[place])


def _verdict_key(key: str) -> str:
    """The key in a cache of what has the key ``key`` in a file of verdicts: see ``row_key``."""
    return key.partition(":")[0]


def _known(
    keyed: Sequence[tuple[str, str]], log: VerdictLog, episodes: str | Path
) -> dict[tuple[str, str], Verdict]:
    """The newest verdicts in the log, by episode id and key. Raises ``OVDError`` for a stranger."""
    expected = set(keyed)
    ids = {name for name, _ in keyed}
    known: dict[tuple[str, str], Verdict] = {}
    for number, (key, verdict) in enumerate(log.rows, start=1):
        if verdict.episode not in ids:
            raise OVDError(
                f"{log.path}, row {number}: a verdict on {verdict.episode!r}, which is not in "
                f"{episodes}; expected another --out"
            )
        if (verdict.episode, key) in expected:
            known[verdict.episode, key] = verdict
        elif not verdict.failed:
            raise OVDError(
                f"{log.path}, row {number}: the verdict on {verdict.episode!r} is of another "
                "judge, of other options or of an episode (or group) that has changed; expected "
                "another --out"
            )
    return known
