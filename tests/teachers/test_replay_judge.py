import json

import pytest

from agents.episode import write_episodes
from ovd_envs.errors import OVDError
from teachers import make_judge, score
from teachers.score_file import score_file
from tests.teachers.conftest import make_episode
from tests.teachers.test_ensemble import Says


@pytest.fixture
def saved(tmp_path):
    episodes = [make_episode(f"message {i}", index=i) for i in range(4)]
    write_episodes(tmp_path / "e.jsonl", episodes)
    out = tmp_path / "v.jsonl"
    score_file(Says(1, 2, None, 4), tmp_path / "e.jsonl", out)
    return episodes, out


def test_saved_verdicts_are_given_again(saved):
    episodes, out = saved
    verdicts = score(make_judge("replay", file=str(out)), episodes[::-1])
    assert [v.score for v in verdicts] == [4, None, 2, 1]
    assert verdicts[1].error == "no reply"
    assert {v.judge for v in verdicts} == {"says"}


def test_a_missing_one_and_an_episode_that_changed_are_errors(saved):
    _, out = saved
    strange, changed, renamed = score(
        make_judge("replay", file=str(out)),
        [
            make_episode("message 9", index=9),
            make_episode("message 0!", index=0),
            make_episode("message 0", index=1),
        ],
    )
    assert strange.error == "v.jsonl has no verdict on this episode"
    assert changed.error == "the verdict in v.jsonl is on another episode of this id"
    assert renamed.failed


def test_the_newer_of_two_verdicts_counts(saved):
    episodes, out = saved
    lines = out.read_text().splitlines()
    row = json.loads(lines[0])
    out.write_text("\n".join([*lines, json.dumps({**row, "score": 8})]) + "\n")
    assert score(make_judge("replay", file=str(out)), episodes[:1])[0].score == 8


def test_the_name_follows_the_file(saved):
    _, out = saved
    before = make_judge("replay", file=str(out)).name
    out.write_text(out.read_text().replace('"score": 4', '"score": 5'))
    assert make_judge("replay", file=str(out)).name != before


def test_files_that_are_none(tmp_path):
    with pytest.raises(OVDError, match="expected a file of verdicts"):
        make_judge("replay")
    with pytest.raises(OVDError, match="no such file"):
        make_judge("replay", file=str(tmp_path / "no.jsonl"))
    (tmp_path / "bad.jsonl").write_text('{"episode": "a"}\n')
    with pytest.raises(OVDError, match="row 1: not a verdict"):
        make_judge("replay", file=str(tmp_path / "bad.jsonl"))
