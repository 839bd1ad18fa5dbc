"""A judge that repeats verdicts which were saved before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from agents.episode import Episode
from ovd_envs.errors import OVDError
from ovd_envs.jsonl import reason_of
from teachers.cache import content_hash
from teachers.verdict import Verdict
from teachers.verdict_log import content_of, read_keyed


class ReplayJudge:
    """Gives the verdicts of a file that ``ovd score`` wrote, each to the episode it was on.

    Matched by the episode's id and by what judges read of it (task, messages, observations,
    outcome), so a verdict never passes to an episode that has changed: that is an error verdict,
    as is an episode that the file does not have. A saved error is repeated. The verdicts keep the
    name of the judge that gave them.

    Args:
        file: JSONL of verdicts.

    Raises ``OVDError`` for a file that cannot be read or holds something else.
    """

    #: A verdict hangs on the episode's id too: none is cached or shared among equal episodes.
    fingerprint = ""

    def __init__(self, file: str | Path = "") -> None:
        if not file:
            raise OVDError("judge 'replay': expected a file of verdicts (--option file=FILE)")
        self.file = Path(file)
        self._verdicts: dict[str, dict[str, Verdict]] = {}
        for key, verdict in read_keyed(self.file):  # of two, the later is the newer
            self._verdicts.setdefault(verdict.episode, {})[content_of(key)] = verdict
        try:
            digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        except OSError as error:
            raise OVDError(f"{self.file}: cannot be read ({reason_of(error)})") from error
        #: Of this file as it is, so that a file of verdicts is not gone on with by another's.
        self.name = f"replay:{digest[:12]}"

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """One verdict for every episode."""
        return [self._verdict(episode) for episode in episodes]

    def _verdict(self, episode: Episode) -> Verdict:
        saved = self._verdicts.get(episode.id, {})
        if (verdict := saved.get(content_hash(episode))) is not None:
            return verdict
        error = f"{self.file.name} has no verdict on this episode"
        if saved:
            error = f"the verdict in {self.file.name} is on another episode of this id"
        return Verdict(episode.id, self.name, None, error=error)
