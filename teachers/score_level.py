"""What a judge scores: the episode alone, or each of its turns too."""

from __future__ import annotations

from typing import Literal

from ovd_envs.errors import OVDError

ScoreLevel = Literal["episode", "turn"]


def check_score_level(value: str) -> ScoreLevel:
    """``value``, which is one. Raises ``OVDError`` where it is something else."""
    if value == "episode":
        return "episode"
    if value == "turn":
        return "turn"
    raise OVDError(f"score_level: expected episode or turn, got {value!r}")
