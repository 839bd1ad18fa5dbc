"""Saved episodes as demonstrations: matched by task, counted where there is none."""

import pytest

from agents.episode import Segment, write_episodes
from agents.rollout import rollout
from agents.scripted import ScriptedAgent
from ovd_envs import OVDError, make
from teachers import make_demonstrator
from teachers.protocol import Demonstrator
from tests.training.made import dialect
from training.rows import episode_rows


def tasks(count):
    source = make("ovd/Math-v0").tasks
    return [source.task("train", number) for number in range(count)]


@pytest.fixture
def saved(tmp_path):
    """Two episodes of task 0, one of task 1, a broken one of task 2, none of task 3."""
    agent = ScriptedAgent(lambda e: f"{'ab'[e.index]} \\boxed{{{e.task.answers[0]}}}", "somebody")
    episodes = rollout(agent, "ovd/Math-v0", tasks(3), group_size=2)
    for episode in episodes:
        episode.segments = [Segment([9, 9], [0, 1], [0.0, -1.0])]
    for episode in episodes[4:]:
        episode.error = "down"
    path = tmp_path / "saved.jsonl"
    write_episodes(path, [*episodes[:3], *episodes[4:]])
    return path


def test_each_place_is_shown_another_episode_of_its_task(saved):
    shown = make_demonstrator("saved", episodes=str(saved))
    assert isinstance(shown, Demonstrator)
    one, two, *_ = tasks(2)
    wanted = [(two, (0, 1, 1, 5)), *[(one, (0, 1, 0, index)) for index in range(3)]]
    episodes = shown.demonstrate("ovd/Math-v0", wanted)
    assert [(e.task, e.seed) for e in episodes] == wanted
    assert [e.answer[0] for e in episodes] == ["a", "a", "b", "a"]
    assert [e.id for e in episodes] == ["saved:1-1:5", "saved:1-0:0", "saved:1-0:1", "saved:1-0:2"]
    assert {(e.reward, e.error, e.kept) for e in episodes} == {(1.0, None, 0)}
    # Its text is shown, in the student's own tokens.
    [row] = episode_rows(0, episodes[0], 1.0, dialect(), teacher=True)
    own = [i for i, m in zip(row.ids, row.mask, strict=True) if m]
    assert dialect().decode(own) == episodes[0].answer
    # Nothing is shared: who changes one changes no other.
    episodes[1].turns[0].action = "changed"
    assert shown.demonstrate("ovd/Math-v0", wanted)[1].answer[0] == "a"


def test_a_task_without_an_episode_is_an_error_of_the_demonstrator(saved):
    shown = make_demonstrator("saved", episodes=str(saved))
    *_, broken, missing = tasks(4)
    episodes = shown.demonstrate("ovd/Math-v0", [(broken, (0, 1, 2, 0)), (missing, (0, 1, 3, 1))])
    for episode in episodes:
        assert f"no saved episode of task {episode.task.id!r}" in episode.error
        assert episode.done
    other = make("ovd/Math-v0", level="word-1").tasks.task("train", 0)
    renamed = type(other)(tasks(1)[0].id, other.question, other.answers)
    [episode] = shown.demonstrate("ovd/Math-v0", [(renamed, (0, 1, 0, 0))])
    assert "is of another question" in episode.error


def test_of_a_name_that_two_questions_have_only_the_right_one_is_shown(saved):
    """In files that were joined, e.g. of two levels or of a task source that has changed."""
    one, two, *_ = tasks(2)
    renamed = type(two)(one.id, two.question, two.answers)
    agent = ScriptedAgent(lambda e: f"\\boxed{{{e.task.answers[0]}}}", "somebody")
    both = rollout(agent, "ovd/Math-v0", [renamed, one])
    write_episodes(saved, both)
    shown = make_demonstrator("saved", episodes=str(saved))
    for task, episode in ((one, both[1]), (renamed, both[0])):
        requests = [(task, (0, 1, 0, index)) for index in range(2)]
        episodes = shown.demonstrate("ovd/Math-v0", requests)
        assert [(e.error, e.answer) for e in episodes] == [(None, episode.answer)] * 2


def test_a_file_that_shows_nothing_is_refused(tmp_path, saved):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(OVDError, match="has no episode that could be shown"):
        make_demonstrator("saved", episodes=str(empty))
    empty.write_text('{"schema": 1}\n')
    with pytest.raises(OVDError, match="row 1: not an episode"):
        make_demonstrator("saved", episodes=str(empty))
    with pytest.raises(OVDError, match="saved"):
        make_demonstrator("saved", file=str(saved))
