"""The judges that a judge asks: by name, with options, or as objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agents.episode import Episode
from ovd_envs.errors import OVDError
from teachers.protocol import Judge, JudgeStopError
from teachers.registry import make_judge
from teachers.score import BATCH_SIZE, score
from teachers.verdict import Verdict
from teachers.whole_groups import scores_groups


def load_member(option: str, given: object) -> Judge:
    """The judge that an option names: a name, a mapping of its name and options, or a judge.

    Raises ``OVDError`` naming ``option`` for anything else and for a judge that does not load.
    """
    try:
        if isinstance(given, str):
            return make_judge(given.strip())
        if isinstance(given, Mapping):
            options: dict[str, Any] = {str(key): value for key, value in given.items()}
            name = options.pop("name", None)
            if isinstance(name, str):
                return make_judge(name, **options)
        if isinstance(given, Judge):
            return given
    except OVDError as error:
        raise type(error)(f"{option}: {error}") from error
    raise OVDError(
        f"{option}: expected a judge's name or a mapping with its name and options, got {given!r}"
    )


def load_members(option: str, given: object) -> list[Judge]:
    """The judges of a list, or of a text with commas between their names (on a command line)."""
    if isinstance(given, str):
        given = [name for name in given.split(",") if name.strip()]
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Sequence) or not given:
        raise OVDError(f"{option}: expected a list of judges, got {given!r}")
    return [load_member(f"{option}, number {n}", one) for n, one in enumerate(given, start=1)]


def ask_member(
    member: Judge, episodes: Sequence[Episode]
) -> tuple[dict[str, Verdict], JudgeStopError | None]:
    """A member's verdicts by episode, and what stopped it: then some of them are missing."""
    found: dict[str, Verdict] = {}

    def settled(place: int, verdict: Verdict) -> None:
        found[episodes[place].id] = verdict

    try:
        score(member, episodes, settled=settled)
    except JudgeStopError as stopped:
        return found, stopped
    return found, None


def with_errors(
    member: Judge, episodes: Sequence[Episode], found: Mapping[str, Verdict], why: JudgeStopError
) -> dict[str, Verdict]:
    """``found``, and error verdicts on the episodes of which the member could not be asked."""
    error = " ".join(str(why).split())
    missing = {e.id: Verdict(e.id, member.name, None, error=error) for e in episodes}
    return {**missing, **found}


def shared_fingerprint(version: str, options: object, members: Sequence[Judge]) -> str:
    """A fingerprint of a judge with these members; empty, which is not cached, if one has none."""
    prints = [getattr(member, "fingerprint", None) for member in members]
    if not all(prints):
        return ""
    names = [[member.name, text] for member, text in zip(members, prints, strict=True)]
    return f"{version} {json.dumps([options, names])}"


def shared_batch_size(members: Sequence[Judge]) -> int:
    """The smallest number of episodes that one of them wants to be asked for at once."""
    return min(int(getattr(member, "batch_size", BATCH_SIZE)) for member in members)


def any_scores_groups(members: Sequence[Judge]) -> bool:
    """Whether one of them reads groups as a whole: then all are asked for whole groups."""
    return any(map(scores_groups, members))


def any_interactive(members: Sequence[Judge]) -> bool:
    """Whether one of them asks a person at the terminal."""
    return any(getattr(member, "interactive", False) for member in members)
