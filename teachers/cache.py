"""Verdicts on disk, found by content: the same episode and judge are never paid for twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from agents.episode import Episode
from ovd_envs.errors import OVDError
from ovd_envs.jsonl import write_atomic
from teachers.protocol import Judge
from teachers.verdict import Verdict


class VerdictCache:
    """A folder with one file for each verdict, written atomically; several processes may share it.

    The key is the judge's ``fingerprint`` and what judges read of an episode (task, messages,
    observations, outcome; not its id, agent or seed). A judge without a fingerprint is not
    cached, and neither is an error verdict: that judge is asked again.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def get(self, judge: Judge, episode: Episode) -> Verdict | None:
        """The known verdict, under the episode's id; ``None`` where there is none."""
        path = self._path(judge, episode)
        if path is None:
            return None
        try:
            data = json.loads(path.read_bytes())
            return Verdict.from_dict({**data, "episode": episode.id})
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OVDError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, TypeError, OVDError):
            return None  # not a verdict (somebody else's file): the judge is asked, put() mends it

    def put(self, judge: Judge, episode: Episode, verdict: Verdict) -> None:
        """Keep a verdict, unless it is an error. Raises ``OVDError`` where it cannot be written."""
        path = self._path(judge, episode)
        if path is not None and not verdict.failed:
            write_atomic(path, json.dumps(verdict.to_dict(), ensure_ascii=False))

    def _path(self, judge: Judge, episode: Episode) -> Path | None:
        fingerprint = getattr(judge, "fingerprint", None)
        if not fingerprint:
            return None
        key = verdict_key(judge, content_hash(episode))
        return self.folder / key[:2] / f"{key}.json"


def verdict_key(judge: Judge, content: str) -> str:
    """SHA-256 of the judge and of an episode's ``content_hash``, in hexadecimal digits."""
    fingerprint = getattr(judge, "fingerprint", None) or ""
    return hashlib.sha256(json.dumps([judge.name, fingerprint, content]).encode()).hexdigest()


def content_hash(episode: Episode) -> str:
    """SHA-256 of what judges read of an episode, in hexadecimal digits."""
    read: dict[str, Any] = {
        "env": episode.env,
        "task": episode.task.to_dict(),
        "observation": episode.observation,
        "turns": [(t.action, t.observation, t.reward, t.stop) for t in episode.turns],
        "reward": episode.reward,
        "terminated": episode.terminated,
        "truncated": episode.truncated,
        "end_reason": episode.end_reason,
        "info": episode.info,
    }
    # ASCII escapes: a lone surrogate in a student's text has no UTF-8 form.
    text = json.dumps(read, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
