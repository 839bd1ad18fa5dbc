"""Equal episodes that are judged at the same time: one is asked about, the others wait for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from agents.episode import Episode
from teachers.cache import content_hash, is_cached
from teachers.protocol import Judge
from teachers.verdict import Verdict


class EqualEpisodes:
    """Shares a verdict that is under way among episodes of the same content.

    Only where the judge says (by its ``fingerprint``) that a verdict depends on nothing else; a
    judge that reads whole groups is asked about each. ``contents`` are the episodes' hashes by
    their places, where they are known.
    """

    def __init__(self, judge: Judge, contents: Sequence[str] | None = None) -> None:
        self._shares = is_cached(judge)
        self._contents = contents
        self._under_way: dict[str, int] = {}
        """The place of the one that is asked about, by content."""
        self._waiting: dict[int, tuple[str, list[tuple[int, str]]]] = {}
        """By that place: the content, and the places and ids of those that wait."""

    def waits(self, place: int, episode: Episode) -> bool:
        """Whether an equal episode is under way: then this one's verdict comes with that one's."""
        if not self._shares:
            return False
        content = content_hash(episode) if self._contents is None else self._contents[place]
        leader = self._under_way.setdefault(content, place)
        if leader == place:
            self._waiting[place] = content, []
            return False
        self._waiting[leader][1].append((place, episode.id))
        return True

    def spread(self, verdicts: Iterable[tuple[int, Verdict]]) -> Iterator[tuple[int, Verdict]]:
        """The verdicts by places, each followed by those of who waited: these cost nothing."""
        for place, verdict in verdicts:
            yield place, verdict
            content, waiting = self._waiting.pop(place, ("", []))
            self._under_way.pop(content, None)
            for other, name in waiting:
                yield other, on_equal(verdict, name)


def on_equal(verdict: Verdict, episode: str) -> Verdict:
    """The same verdict on an equal episode, by its id: it costs nothing more."""
    free = {"seconds": 0.0, "prompt_tokens": 0, "completion_tokens": 0}
    # Not by replace: the parts of a verdict are on its episode too.
    return Verdict.from_dict({**verdict.to_dict(), "episode": episode, **free})
