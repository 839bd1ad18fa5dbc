"""Episodes saved one by one as they end, so that a stop at any moment loses none of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from agents.episode import Episode, read_episodes, write_episodes
from ovd_envs.errors import OVDError

#: How each line of the file begins.
_BEGINNING = b'{"schema": '


class EpisodeLog:
    """A JSONL file to which finished episodes are appended.

    What the file held before is in ``episodes``. A last line without its line feed was being
    written when the process was killed: it is cut off. Use it as a context manager.

    Raises ``OVDError`` for a file that cannot be read or written, and for a row that is not an
    episode.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._is_new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self.path.open("ab+")
            self._mend_last_line()
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            self.episodes: list[Episode] = list(read_episodes(self.path))
        except OVDError:
            self._handle.close()
            raise

    def append(self, episode: Episode) -> None:
        """Save one episode; it is on the disk when this returns."""
        line = json.dumps(episode.to_dict(), ensure_ascii=False) + "\n"
        try:
            self._handle.write(line.encode())
            self._handle.flush()
            os.fsync(self._handle.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        self.episodes.append(episode)

    def close(self, order: Iterable[Episode] | None = None) -> None:
        """Close the file; with ``order``, leave exactly those episodes in it, atomically.

        A file that was made here and got nothing is removed again.
        """
        self._handle.close()
        if self._is_new and not self.episodes:
            self.path.unlink(missing_ok=True)
        if order is not None:
            self.episodes = list(order)
            write_episodes(self.path, self.episodes)

    def _mend_last_line(self) -> None:
        """End the last line with a line feed, or cut it off where it is half an episode.

        Only what ``append`` began is ever cut: another file given by mistake stays as it is, and
        is refused when it is read.
        """
        self._handle.seek(0)
        end, last = 0, b""
        for last in self._handle:
            end += len(last)
        if not last or last.endswith(b"\n"):
            return
        if _is_json(last):
            self._handle.write(b"\n")
        elif last.startswith(_BEGINNING) or _BEGINNING.startswith(last):
            self._handle.truncate(end - len(last))
        self._handle.flush()

    def _unwritable(self, error: OSError) -> OVDError:
        return OVDError(f"{self.path}: cannot be written ({error.strerror})")

    def __enter__(self) -> EpisodeLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
