"""Judge a file of episodes into a file of verdicts; what is there already is not asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from agents.episode import Episode, read_episodes
from ovd_envs.errors import OVDError
from teachers.cache import VerdictCache, content_hash
from teachers.protocol import Judge
from teachers.score import score
from teachers.verdict import Verdict
from teachers.verdict_log import VerdictLog, row_key

#: Episodes that are held in memory at a time.
CHUNK = 256

#: An episode in its file: its id and the hash of what judges read of it.
Identity = tuple[str, str]


def identify(path: str | Path) -> list[Identity]:
    """The identity of every episode in a file.

    Raises ``OVDError`` for a file without episodes and, naming the row, for one that is broken.
    """
    identities = [(episode.id, content_hash(episode)) for episode in read_episodes(path)]
    if not identities:
        raise OVDError(f"{path}: expected at least one episode, the file has none")
    return identities


def score_file(
    judge: Judge,
    episodes: str | Path,
    out: str | Path,
    *,
    cache: VerdictCache | None = None,
    progress: Callable[[Verdict, bool], None] | None = None,
    identities: Sequence[Identity] | None = None,
) -> list[Verdict]:
    """Verdicts on the episodes of a file, in their order, saved in ``out`` as they come.

    Verdicts that ``out`` holds already are kept, errors among them are asked for again. A stop at
    any moment loses at most the batch under way. ``progress`` is called with each verdict and
    whether it is new. ``identities`` is what ``identify`` gave, where it was called before.

    Raises ``OVDError`` where ``out`` holds verdicts on other episodes or of another judge, or
    cannot be written.
    """
    identities = identify(episodes) if identities is None else identities
    out = Path(out)
    if out.exists() and out.samefile(episodes):
        raise OVDError(f"{out}: this is the file of the episodes; expected another for verdicts")
    verdicts: list[tuple[str, Verdict]] = []
    with VerdictLog(out) as log:
        known = _known(judge, identities, log, episodes)
        for chunk in _chunks(episodes):
            verdicts += _score_chunk(judge, chunk, known, log, cache, progress)
        log.finish(verdicts)
    return [verdict for _, verdict in verdicts]


def _known(
    judge: Judge, identities: Sequence[Identity], log: VerdictLog, episodes: str | Path
) -> dict[Identity, Verdict]:
    """The verdicts in the log, by episode id and key. Raises ``OVDError`` for a stranger."""
    expected = {(name, row_key(judge, content)) for name, content in identities}
    ids = {name for name, _ in identities}
    known: dict[Identity, Verdict] = {}
    for number, (key, verdict) in enumerate(log.rows, start=1):
        if verdict.episode not in ids:
            raise OVDError(
                f"{log.path}, row {number}: a verdict on {verdict.episode!r}, which is not in "
                f"{episodes}; expected another --out"
            )
        if verdict.failed:
            continue
        if (verdict.episode, key) not in expected:
            raise OVDError(
                f"{log.path}, row {number}: the verdict on {verdict.episode!r} is of another "
                "judge, of other options or of an episode that has changed; expected another --out"
            )
        known[verdict.episode, key] = verdict
    return known


def _score_chunk(
    judge: Judge,
    chunk: Sequence[Episode],
    known: dict[Identity, Verdict],
    log: VerdictLog,
    cache: VerdictCache | None,
    progress: Callable[[Verdict, bool], None] | None,
) -> list[tuple[str, Verdict]]:
    keys = [row_key(judge, content_hash(episode)) for episode in chunk]
    result: dict[int, Verdict] = {}
    missing: list[int] = []
    for position, (episode, key) in enumerate(zip(chunk, keys, strict=True)):
        verdict = known.get((episode.id, key))
        if verdict is None:
            missing.append(position)
        else:
            result[position] = verdict
            if progress is not None:
                progress(verdict, False)

    def came(number: int, verdict: Verdict) -> None:
        log.append(keys[missing[number]], verdict)
        if progress is not None:
            progress(verdict, True)

    fresh = score(judge, [chunk[position] for position in missing], cache=cache, settled=came)
    log.sync()
    result.update(zip(missing, fresh, strict=True))
    return [(key, result[position]) for position, key in enumerate(keys)]


def _chunks(path: str | Path) -> Iterator[list[Episode]]:
    stream = read_episodes(path)
    while chunk := list(islice(stream, CHUNK)):
        yield chunk
