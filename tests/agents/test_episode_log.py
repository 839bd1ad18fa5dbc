"""EpisodeLog: what was appended is there after a kill, and foreign files stay as they are."""

import json
from pathlib import Path

import pytest

from agents.episode import Episode, read_episodes
from agents.episode_log import EpisodeLog
from ovd_envs import OVDError, Task


def episode(index):
    return Episode(Task("t", "q?", ("a",)), "env", "agent", end_reason="answered", index=index)


def indices(path):
    return [episode.index for episode in read_episodes(path)]


def test_each_episode_is_on_the_disk_when_append_returns(tmp_path):
    path = tmp_path / "new" / "episodes.jsonl"
    with EpisodeLog(path) as log:
        for index in range(3):
            log.append(episode(index))
            assert indices(path) == list(range(index + 1))


def test_goes_on_after_what_is_there(tmp_path):
    path = tmp_path / "episodes.jsonl"
    for index in range(3):
        with EpisodeLog(path) as log:
            assert [e.index for e in log.episodes] == list(range(index))
            log.append(episode(index))
    assert indices(path) == [0, 1, 2]


@pytest.mark.parametrize("kept", [1, 5, 11, 12, 60, -2])
def test_a_torn_last_line_is_cut_off_at_any_byte(tmp_path, kept):
    path = tmp_path / "episodes.jsonl"
    with EpisodeLog(path) as log:
        log.append(episode(0))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:kept])
    with EpisodeLog(path) as log:
        assert [e.index for e in log.episodes] == [0]
        log.append(episode(1))
    assert indices(path) == [0, 1]


def test_a_last_line_that_only_misses_its_line_feed_is_kept(tmp_path):
    path = tmp_path / "episodes.jsonl"
    with EpisodeLog(path) as log:
        log.append(episode(0))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    with EpisodeLog(path) as log:
        log.append(episode(1))
    assert indices(path) == [0, 1]


@pytest.mark.parametrize(
    "content",
    [b"my notes\nthe last line", b'{"a": 1}\n{"b": ', b'{"question": "1+1"}', b"\xff\xfe"],
)
def test_a_foreign_file_is_refused_and_not_touched(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(OVDError, match=r"notes\.txt, row 1"):
        EpisodeLog(path)
    assert path.read_bytes().rstrip(b"\n") == content


def test_a_broken_row_is_named(tmp_path):
    path = tmp_path / "episodes.jsonl"
    row = json.dumps(episode(0).to_dict())
    path.write_text(row + "\n{broken\n" + row + "\n")
    with pytest.raises(OVDError, match=r"episodes\.jsonl, row 2"):
        EpisodeLog(path)


def test_close_leaves_exactly_the_given_order(tmp_path):
    path = tmp_path / "episodes.jsonl"
    with EpisodeLog(path) as log:
        for index in (2, 0, 1):
            log.append(episode(index))
        log.close(sorted(log.episodes, key=lambda e: e.index))
    assert indices(path) == [0, 1, 2]


def test_a_new_file_that_got_nothing_is_removed_and_an_old_one_is_kept(tmp_path):
    new, old = tmp_path / "new.jsonl", tmp_path / "old.jsonl"
    old.touch()
    for path in (new, old):
        with EpisodeLog(path):
            assert path.exists()
    assert not new.exists()
    assert old.exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OVDError, match="cannot be written"):
        EpisodeLog(tmp_path / "file" / "episodes.jsonl")
    with pytest.raises(OVDError, match="cannot be written"):
        EpisodeLog(tmp_path)


def test_a_full_disk_is_one_clear_error(tmp_path):
    # /dev/full is a disk on which every write fails with ENOSPC.
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    log._log._handle.close()
    log._log._handle = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115
    with log, pytest.raises(OVDError, match="No space left"):
        log.append(episode(0))
    assert log.episodes == []


def test_a_full_disk_is_told_once_the_file_is_closed_too(tmp_path):
    """What could not be written is written at the end, and is no success then either."""
    log = EpisodeLog(tmp_path / "episodes.jsonl")
    log._log._handle.close()
    log._log._handle = Path("/dev/full").open("ab")  # noqa: SIM115
    with pytest.raises(OVDError, match="No space left"), log:
        log.append(episode(0))


def test_half_a_surrogate_pair_is_no_reason_to_lose_an_episode(tmp_path):
    said = episode(0)
    said.observation = "\ud800"
    with EpisodeLog(tmp_path / "episodes.jsonl") as log:
        log.append(said)
    with EpisodeLog(tmp_path / "episodes.jsonl") as log:
        assert log.episodes[0].observation == "\ud800"
