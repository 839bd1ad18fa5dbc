"""Ask a judge for verdicts, and let no failure of it become a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from agents.episode import Episode
from teachers.protocol import Judge
from teachers.verdict import Verdict, VerdictError

if TYPE_CHECKING:
    from teachers.cache import VerdictCache

#: Episodes asked for at once, unless the judge has ``batch_size``: what an interrupt can lose.
BATCH_SIZE = 64


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
    ``fingerprint``) and told after every batch, so that an interrupt loses one batch at most.
    ``progress`` is called with every verdict as it comes, ``settled`` with the position of its
    episode as well.
    """
    verdicts: dict[int, Verdict] = {}

    def settle(position: int, verdict: Verdict) -> None:
        verdicts[position] = verdict
        if settled is not None:
            settled(position, verdict)
        if progress is not None:
            progress(verdict)

    waiting: list[int] = []
    for position, episode in enumerate(episodes):
        known = _known(judge, episode, cache)
        if known is not None:
            settle(position, known)
        else:
            waiting.append(position)
    for batch in _batches(episodes, waiting, int(getattr(judge, "batch_size", BATCH_SIZE))):
        answers = _ask(judge, [episodes[position] for position in batch])
        for position, verdict in zip(batch, answers, strict=True):
            if cache is not None:
                cache.put(judge, episodes[position], verdict)
            settle(position, verdict)
    return [verdicts[position] for position in range(len(episodes))]


def _known(judge: Judge, episode: Episode, cache: VerdictCache | None) -> Verdict | None:
    if episode.error is not None:
        last_line = episode.error.strip().rsplit("\n", 1)[-1] or "no message"
        return _failure(judge, episode, f"the episode ended in an error: {last_line}")
    return None if cache is None else cache.get(judge, episode)


def _batches(episodes: Sequence[Episode], waiting: list[int], size: int) -> Iterator[list[int]]:
    """Positions in batches of ``size`` in which no episode id comes twice."""
    seen: Counter[str] = Counter()
    rounds: dict[int, list[int]] = {}
    for position in waiting:
        identity = episodes[position].id
        rounds.setdefault(seen[identity], []).append(position)
        seen[identity] += 1
    for positions in rounds.values():
        for start in range(0, len(positions), max(size, 1)):
            yield positions[start : start + max(size, 1)]


def _ask(judge: Judge, episodes: Sequence[Episode]) -> list[Verdict]:
    """The judge's verdicts on ``episodes`` (ids all different), every failure made an error."""
    try:
        answers: list[object] = list(judge.judge(episodes))
    except Exception as error:  # noqa: BLE001 - a judge fails in any way; each failure is told
        told = f"the judge failed: {type(error).__name__}: {error}"
        return [_failure(judge, episode, told) for episode in episodes]
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
            try:
                found[0].check_turns(len(episode.turns))
            except VerdictError as error:
                result.append(_failure(judge, episode, str(error)))
            else:
                result.append(found[0])
        elif not found:
            beside = f" (and {strays} answers that are no verdicts)" if strays else ""
            result.append(_failure(judge, episode, f"the judge gave no verdict{beside}"))
        else:
            scores = ", ".join("error" if v.score is None else f"{v.score:g}" for v in found[:10])
            result.append(
                _failure(judge, episode, f"the judge gave {len(found)} verdicts: {scores}")
            )
    return result


def _failure(judge: Judge, episode: Episode, error: str) -> Verdict:
    one_line = " ".join(error.split())[:500]
    return Verdict(episode=episode.id, judge=judge.name, score=None, error=one_line)
