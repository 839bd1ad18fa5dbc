"""Judge a file of episodes into a file of verdicts; what is there already is not asked again."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from agents.episode import Episode, read_episodes
from ovd_envs.errors import OVDError
from teachers.cache import VerdictCache, content_hash
from teachers.protocol import Judge, JudgeStopError
from teachers.score import stream_verdicts
from teachers.verdict import Verdict
from teachers.verdict_log import VerdictLog, row_key

#: Verdicts between two times that the file is forced onto the disk.
SYNC_EVERY = 256

#: An episode in its file: its id and the hash of what judges read of it.
Identity = tuple[str, str]


def identify(path: str | Path) -> list[Identity]:
    """The identity of every episode in a file.

    Raises ``OVDError`` for a file without episodes and, naming the row, for one that is broken.
    """
    identities = [(episode.id, content_hash(episode)) for episode in read_episodes(path)]
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
) -> list[Verdict]:
    """Verdicts on the episodes of a file, in their order, saved in ``out`` as they come.

    Verdicts that ``out`` holds already are kept, errors among them are asked for again; what an
    earlier question cost stays counted in the tokens of the verdict. A kill at any moment loses at
    most what is under way. ``progress`` is called with each verdict and whether it is new.
    ``identities`` is what ``identify`` gave, where it was called before. Once ``stop`` is set
    nothing more is asked, and what is under way is waited for.

    Raises ``OVDError`` where ``out`` holds verdicts on other episodes or of another judge, or
    cannot be written; ``JudgeStopError`` where it is no use to go on, and ``KeyboardInterrupt``
    where it was stopped. In any case what was answered is in ``out``.
    """
    identities = identify(episodes) if identities is None else identities
    out = Path(out)
    if out.exists() and out.samefile(episodes):
        raise OVDError(f"{out}: this is the file of the episodes; expected another for verdicts")
    with VerdictLog(out) as log:
        scoring = _Scoring(judge, episodes, identities, log, cache, progress)
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

    To look through it takes a tenth of a second each time, in which no reply is read and no call
    made: 3 of 100 calls, where 64 are under way. Whoever froze objects before keeps them frozen.
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
    ) -> None:
        self._judge, self._episodes, self._log, self._cache = judge, episodes, log, cache
        self._progress = progress
        self._keyed = [(name, row_key(judge, content)) for name, content in identities]
        self._known = _known(self._keyed, log, episodes)
        #: The verdicts by the positions of their episodes.
        self.found: dict[int, Verdict] = {}
        spending = getattr(judge, "spending", None)
        if spending is not None:  # a budget is that of the file, however often it is begun anew
            spending.begin(self._known.values())

    def rows(self) -> list[tuple[str, Verdict]]:
        """(key, verdict) of all that have one, in the order of the episodes."""
        return [(self._keyed[place][1], self.found[place]) for place in sorted(self.found)]

    def run(self, stop: threading.Event) -> None:
        """Look what is there, ask for the rest."""
        missing = [place for place in range(len(self._keyed)) if not self._find(place)]
        asked: list[int] = []

        def unknown() -> Iterator[Episode]:
            wanted = iter(missing)
            place = next(wanted, None)
            if place is None:
                return  # nothing to read
            for number, episode in enumerate(read_episodes(self._episodes)):
                if number == place:
                    # Equal content may have been judged meanwhile, here or by another process.
                    if self._cache is None or not self._find(place):
                        asked.append(number)
                        yield episode
                    place = next(wanted, None)
                    if place is None:
                        return

        for number, verdict in stream_verdicts(self._judge, unknown(), stop=stop):
            self._came(asked[number], verdict)
            if len(self.found) % SYNC_EVERY == 0:
                self._log.sync()
        self._log.sync()

    def _find(self, place: int) -> bool:
        """Whether the verdict is known, from the file of verdicts or from the cache."""
        name, key = self._keyed[place]
        verdict, fresh = self._known.get((name, key)), False
        if (verdict is None or verdict.failed) and self._cache is not None:
            cached = self._cache.find(_verdict_key(key), name) if self._judge_is_cached else None
            verdict, fresh = cached or verdict, cached is not None
        if verdict is None or verdict.failed:
            return False
        self.found[place] = verdict
        if self._progress is not None:
            self._progress(verdict, fresh)
        return True

    def _came(self, place: int, verdict: Verdict) -> None:
        name, key = self._keyed[place]
        if verdict.episode != name:
            raise OVDError(f"{self._episodes}: changed while it was judged")
        if self._cache is not None and self._judge_is_cached and not verdict.failed:
            self._cache.keep(_verdict_key(key), verdict)
        failed = self._known.pop((name, key), None)
        if failed is not None:  # it was paid for too
            verdict = replace(
                verdict,
                prompt_tokens=verdict.prompt_tokens + failed.prompt_tokens,
                completion_tokens=verdict.completion_tokens + failed.completion_tokens,
            )
        self.found[place] = verdict
        self._log.append(key, verdict)
        if self._progress is not None:
            self._progress(verdict, True)

    @property
    def _judge_is_cached(self) -> bool:
        return bool(getattr(self._judge, "fingerprint", None))


def _verdict_key(key: str) -> str:
    """The key in a cache of what has the key ``key`` in a file of verdicts: see ``row_key``."""
    return key.partition(":")[0]


def _known(
    keyed: Sequence[Identity], log: VerdictLog, episodes: str | Path
) -> dict[Identity, Verdict]:
    """The newest verdicts in the log, by episode id and key. Raises ``OVDError`` for a stranger."""
    expected = set(keyed)
    ids = {name for name, _ in keyed}
    known: dict[Identity, Verdict] = {}
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
                "judge, of other options or of an episode that has changed; expected another --out"
            )
    return known
