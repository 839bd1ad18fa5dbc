"""Ask a judge for verdicts, and let no failure of it become a score."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, cast

from agents.episode import Episode
from teachers.cache import VerdictCache, content_hash
from teachers.equal_episodes import EqualEpisodes
from teachers.protocol import Judge, JudgeStopError
from teachers.verdict import Verdict, VerdictError
from teachers.whole_groups import Grouping, Unit, scores_groups

#: Episodes asked for at once, unless the judge has ``batch_size``: what an interrupt can lose.
BATCH_SIZE = 64

#: Seconds between two looks at whether to stop, while replies are waited for.
_GLANCE = 0.1


def score(
    judge: Judge,
    episodes: Sequence[Episode],
    *,
    cache: VerdictCache | None = None,
    progress: Callable[[Verdict], None] | None = None,
    settled: Callable[[int, Verdict], None] | None = None,
) -> list[Verdict]:
    """Verdicts of ``judge`` on ``episodes``, in the order of ``episodes``.

    A verdict that is missing, comes twice, is no ``Verdict``, and an exception of the judge
    become error verdicts of the episodes concerned, as does an episode that ended in an error.
    Verdicts on unknown ids are dropped. ``cache`` is asked first (if the judge has a
    ``fingerprint``) and told of each verdict as it comes. ``progress`` is called with every verdict
    as it comes, ``settled`` with the position of its episode as well. A judge that
    ``scores_groups`` is asked for whole groups: all of an agent's episodes of a task with the same
    group.

    Raises ``JudgeStopError`` where it is no use to ask for more, when what was asked is answered.
    """
    verdicts: dict[int, Verdict] = {}

    def settle(position: int, verdict: Verdict) -> None:
        verdicts[position] = verdict
        if settled is not None:
            settled(position, verdict)
        if progress is not None:
            progress(verdict)

    grouping = Grouping.of_episodes(episodes) if scores_groups(judge) else None
    beside = [""] * len(episodes)
    if grouping is not None and cache is not None:
        beside = grouping.contexts([content_hash(episode) for episode in episodes])

    def known(position: int) -> Verdict | None:
        return None if cache is None else cache.get(judge, episodes[position], beside[position])

    def unknown() -> Iterator[Unit]:
        numbered = enumerate(episodes)
        units = ([one] for one in numbered) if grouping is None else grouping.units(numbered)
        for unit in units:
            found = [(position, known(position)) for position, _ in unit]
            if any(verdict is None for _, verdict in found):
                yield unit  # a group of which one is missing is asked for as a whole
                continue
            for position, verdict in found:
                if verdict is not None:
                    settle(position, verdict)

    for position, verdict in stream_units(judge, unknown()):
        if cache is not None:
            cache.put(judge, episodes[position], verdict, beside[position])
        settle(position, verdict)
    return [verdicts[position] for position in range(len(episodes))]


def stream_verdicts(
    judge: Judge, episodes: Iterable[Episode], *, stop: threading.Event | None = None
) -> Iterator[tuple[int, Verdict]]:
    """(number of the episode, verdict) as each comes: ``stream_units`` without ado.

    Of a judge that ``scores_groups`` all episodes are held until the last has come.
    """
    units: Iterable[Unit]
    if scores_groups(judge):
        episodes = list(episodes)
        units = Grouping.of_episodes(episodes).units(enumerate(episodes))
    else:
        units = ([one] for one in enumerate(episodes))
    return stream_units(judge, units, stop=stop)


def stream_units(
    judge: Judge,
    units: Iterable[Unit],
    *,
    stop: threading.Event | None = None,
    contents: Sequence[str] | None = None,
) -> Iterator[tuple[int, Verdict]]:
    """(place of the episode, verdict) as each comes; failures are made errors as in ``score``.

    A unit is one episode, or a whole group for a judge that ``scores_groups``; it is never torn.
    No more are taken than the judge is asked for at a time: those of a batch, or, where it has
    ``submit`` (``submit_group``), twice its ``concurrency``. Equal episodes that would be under way
    at the same time share a verdict (see ``EqualEpisodes``, which takes ``contents``). Once
    ``stop`` is set nothing more is asked, and the stream ends when what is under way is answered.

    Raises ``JudgeStopError`` in the same manner, where the judge does.
    """
    stop = threading.Event() if stop is None else stop
    submit = getattr(judge, "submit_group" if scores_groups(judge) else "submit", None)
    asking = _Batches(judge) if submit is None else _OneByOne(judge, submit, stop)
    equal = EqualEpisodes(judge, contents)
    try:
        for unit in units:
            place, episode = unit[0]
            if episode.error is not None:
                last_line = episode.error.strip().rsplit("\n", 1)[-1] or "no message"
                told = f"the episode ended in an error: {last_line}"
                yield place, _failure(judge, episode, told)
            elif not equal.waits(place, episode):
                yield from equal.spread(asking.ask(unit))
            if stop.is_set() or asking.stopped is not None:
                break
        if asking.stopped is None or isinstance(asking, _OneByOne):
            yield from equal.spread(asking.rest(stop))
    finally:
        asking.close()
    if asking.stopped is not None and not stop.is_set():
        raise asking.stopped


class _Batches:
    """Asks for about ``batch_size`` episodes at a time, no id twice among them."""

    def __init__(self, judge: Judge) -> None:
        self.stopped: JudgeStopError | None = None
        self._judge = judge
        self._size = max(int(getattr(judge, "batch_size", BATCH_SIZE)), 1)
        self._batch: dict[str, tuple[int, Episode]] = {}

    def ask(self, unit: Unit) -> Iterator[tuple[int, Verdict]]:
        """Take a unit; the verdicts of the batch that it fills, or would stand in twice."""
        if any(episode.id in self._batch for _, episode in unit):
            yield from self._flush()
        self._batch.update((episode.id, (place, episode)) for place, episode in unit)
        if len(self._batch) >= self._size:
            yield from self._flush()

    def rest(self, stop: threading.Event) -> Iterator[tuple[int, Verdict]]:
        """The last verdicts, unless it was stopped: the judge has not been asked for them."""
        if self._batch and not stop.is_set():
            yield from self._flush()

    def close(self) -> None:
        """Nothing is under way."""

    def _flush(self) -> list[tuple[int, Verdict]]:
        batch, self._batch = list(self._batch.values()), {}
        try:
            answers = _ask(self._judge, [episode for _, episode in batch])
        except JudgeStopError as stopped:
            self.stopped = stopped
            answers = list(stopped.answered)
            answered = {answer.episode for answer in answers}
            batch = [one for one in batch if one[1].id in answered]
            answers = _matched(self._judge, [episode for _, episode in batch], answers)
        return [(place, verdict) for (place, _), verdict in zip(batch, answers, strict=True)]


class _OneByOne:
    """Keeps twice ``concurrency`` units submitted: the judge never waits for the next."""

    def __init__(
        self, judge: Judge, submit: Callable[[Any], Future[Any]], stop: threading.Event
    ) -> None:
        self.stopped: JudgeStopError | None = None
        self._judge = judge
        self._submit = submit
        self._whole = scores_groups(judge)
        self._places = 2 * max(int(getattr(judge, "concurrency", BATCH_SIZE)), 1)
        self._stop = stop
        self._under_way: dict[int, Unit] = {}
        self._done: queue.SimpleQueue[tuple[int, Future[Any]]] = queue.SimpleQueue()
        self._halted = False

    def ask(self, unit: Unit) -> Iterator[tuple[int, Verdict]]:
        """Submit a unit; the verdicts that came, one at least where no place is left."""
        number, episodes = unit[0][0], [episode for _, episode in unit]
        try:
            future = self._submit(episodes if self._whole else episodes[0])
        except JudgeStopError as stopped:
            self._end(stopped)
            return
        except Exception as error:  # noqa: BLE001 - as of ``judge``: each failure is told
            for place, episode in unit:
                yield place, _failure(self._judge, episode, _told(error))
            return
        self._under_way[number] = unit
        future.add_done_callback(lambda done: self._done.put((number, done)))
        full = len(self._under_way) >= self._places
        while not self._done.empty() or (full and len(self._under_way) >= self._places):
            yield from self._next()
            if self._stop.is_set():
                return

    def rest(self, stop: threading.Event) -> Iterator[tuple[int, Verdict]]:
        """What is under way."""
        while self._under_way:
            if stop.is_set():
                self._halt()
            yield from self._next()

    def close(self) -> None:
        """Nothing more is asked for, should anything be left."""
        if self._under_way:
            self._halt()

    def _next(self) -> Iterator[tuple[int, Verdict]]:
        """The next verdict, or none for now."""
        try:
            number, future = self._done.get(timeout=_GLANCE)
        except queue.Empty:
            return
        unit = self._under_way.pop(number)
        episodes = [episode for _, episode in unit]
        try:
            answer = future.result()
            verdicts = _matched(self._judge, episodes, answer if self._whole else [answer])
        except JudgeStopError as stopped:
            self._end(stopped)
            return
        except Exception as error:  # noqa: BLE001 - as of ``judge``: each failure is told
            verdicts = [_failure(self._judge, episode, _told(error)) for episode in episodes]
        yield from ((place, one) for (place, _), one in zip(unit, verdicts, strict=True))

    def _end(self, stopped: JudgeStopError) -> None:
        # The first says why; those that it halts come later.
        self.stopped = self.stopped or stopped
        self._halt()

    def _halt(self) -> None:
        if not self._halted:
            self._halted = True
            with contextlib.suppress(AttributeError):
                cast(Any, self._judge).halt()


def _ask(judge: Judge, episodes: Sequence[Episode]) -> list[Verdict]:
    """The judge's verdicts on ``episodes`` (ids all different), every failure made an error.

    Raises ``JudgeStopError``.
    """
    try:
        answers: list[object] = list(judge.judge(episodes))
    except JudgeStopError:
        raise
    except Exception as error:  # noqa: BLE001 - a judge fails in any way; each failure is told
        return [_failure(judge, episode, _told(error)) for episode in episodes]
    return _matched(judge, episodes, answers)


def _matched(judge: Judge, episodes: Sequence[Episode], answers: Iterable[object]) -> list[Verdict]:
    """The verdict on each of ``episodes`` among the answers, by its id; an error for none."""
    by_id: dict[str, list[Verdict]] = {}
    strays = 0
    for answer in answers:
        if isinstance(answer, Verdict):
            by_id.setdefault(answer.episode, []).append(answer)
        else:
            strays += 1
    result: list[Verdict] = []
    for episode in episodes:
        found = by_id.get(episode.id, [])
        if len(found) == 1:
            result.append(_checked(judge, episode, found[0]))
        elif not found:
            beside = f" (and {strays} answers that are no verdicts)" if strays else ""
            result.append(_failure(judge, episode, f"the judge gave no verdict{beside}"))
        else:
            scores = ", ".join("error" if v.score is None else f"{v.score:g}" for v in found[:10])
            result.append(
                _failure(judge, episode, f"the judge gave {len(found)} verdicts: {scores}")
            )
    return result


def _checked(judge: Judge, episode: Episode, verdict: Verdict) -> Verdict:
    """``verdict``, or an error where it scores another number of turns."""
    try:
        verdict.check_turns(len(episode.turns))
    except VerdictError as error:
        return _failure(judge, episode, str(error))
    return verdict


def _told(error: Exception) -> str:
    return f"the judge failed: {type(error).__name__}: {error}"


def _failure(judge: Judge, episode: Episode, error: str) -> Verdict:
    one_line = " ".join(error.split())[:500]
    return Verdict(episode=episode.id, judge=judge.name, score=None, error=one_line)
