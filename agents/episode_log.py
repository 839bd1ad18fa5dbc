"""Episodes saved one by one as they end, so that a stop at any moment loses none of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from agents.episode import Episode, read_episodes, write_episodes
from ovd_envs.append_log import AppendLog
from ovd_envs.errors import OVDError


class EpisodeLog:
    """A JSONL file to which finished episodes are appended.

    What the file held before is in ``episodes``; half an episode at its end, left by a kill, is
    cut off. Use it as a context manager.

    Raises ``OVDError`` for a file that cannot be read or written, and for a row that is not an
    episode.
    """

    def __init__(self, path: str | Path) -> None:
        self._log = AppendLog(path, '{"schema": ')
        self.path = self._log.path
        try:
            self.episodes: list[Episode] = list(read_episodes(self.path))
        except OVDError:
            self._log.close()
            raise

    def append(self, episode: Episode) -> None:
        """Save one episode; it is on the disk when this returns."""
        self._log.append(episode.to_dict())
        self._log.sync()
        self.episodes.append(episode)

    def close(self, order: Iterable[Episode] | None = None) -> None:
        """Close the file; with ``order``, leave exactly those episodes in it, atomically.

        A file that was made here and got nothing is removed again.
        """
        self._log.close()
        if self._log.is_new and not self.episodes:
            self.path.unlink(missing_ok=True)
        if order is not None:
            self.episodes = list(order)
            write_episodes(self.path, self.episodes)

    def __enter__(self) -> EpisodeLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
