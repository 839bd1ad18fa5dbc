"""Judge groups while others still act: a straggler holds up its own group's verdicts alone."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from agents.episode import Episode
from teachers.cache import VerdictCache
from teachers.protocol import Judge
from teachers.score import score
from teachers.verdict import Verdict


class GroupJudging:
    """Verdicts on groups of ``group_size`` episodes, each group read as soon as it has ended.

    ``ended`` takes every episode as it ends (``rollout``'s ``progress``), ``verdicts`` waits for
    the last. One thread asks the judge, for all groups that are whole by then, so a judge is asked
    by one thread at a time and its batches are not torn into groups. ``cache`` is that of
    ``score``. Close it.
    """

    def __init__(self, judge: Judge, group_size: int, *, cache: VerdictCache | None = None) -> None:
        self._judge = judge
        self._cache = cache
        self._group_size = group_size
        self._acting: dict[str, list[Episode]] = {}
        self._whole: queue.SimpleQueue[list[Episode]] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._asked: list[Future[list[Verdict]]] = []

    def ended(self, episode: Episode) -> None:
        """An episode has ended; with the last one of its group the group is judged."""
        group = self._acting.setdefault(episode.group, [])
        group.append(episode)
        if len(group) == self._group_size:
            # In the order of their places: a judge that reads a whole group sees no other.
            whole = sorted(self._acting.pop(episode.group), key=lambda e: e.index)
            self._whole.put(whole)
            self._asked.append(self._thread.submit(self._judge_whole))

    def verdicts(self, progress: Callable[[Verdict], None] | None = None) -> list[Verdict]:
        """All verdicts, in the order of reading: they are matched by episode id.

        ``progress`` is called with each, in this thread. Raises ``ValueError`` where a group has
        not ended.
        """
        if self._acting:
            raise ValueError(f"groups {sorted(self._acting)} have not ended")
        found: list[Verdict] = []
        for asked in self._asked:
            for verdict in asked.result():
                found.append(verdict)
                if progress is not None:
                    progress(verdict)
        return found

    def close(self) -> None:
        """Ask for nothing more; waits for the question under way.

        A judge that may wait long for others (``halt``) is told to begin nothing more.
        """
        halt = getattr(self._judge, "halt", None)
        if halt is not None and not all(asked.done() for asked in self._asked):
            halt()
        self._thread.shutdown(cancel_futures=True)

    def _judge_whole(self) -> list[Verdict]:
        """Ask for every group that waits; nothing where the question before took them along."""
        episodes: list[Episode] = []
        while not self._whole.empty():  # nobody else takes from it
            episodes += self._whole.get()
        return score(self._judge, episodes, cache=self._cache)
