"""Episode: JSON there and back, versions, and broken rows by their line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.episode import SCHEMA_VERSION, Episode, Segment, Turn, read_episodes, write_episodes
from ovd_envs.errors import OVDError
from ovd_envs.task import Task

text = st.text(max_size=12)
number = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(0, 2**40)
plain = st.dictionaries(text, st.one_of(st.none(), st.booleans(), whole, number, text), max_size=3)


@st.composite
def segments(draw):
    count = draw(st.integers(0, 6))
    column = lambda values: st.lists(values, min_size=count, max_size=count)  # noqa: E731
    return Segment(
        ids=draw(column(st.integers(0, 300_000))),
        mask=draw(column(st.integers(0, 1))),
        logprobs=draw(column(st.one_of(number, st.just(float("-inf"))))),
    )


tasks = st.builds(Task, text, text, st.lists(text, max_size=2).map(tuple), plain)
turns = st.builds(Turn, text, text, number, text, number, number)
episodes = st.builds(
    Episode,
    task=tasks,
    env=text,
    agent=text,
    observation=text,
    turns=st.lists(turns, max_size=3),
    segments=st.lists(segments(), max_size=2),
    reward=number,
    terminated=st.booleans(),
    truncated=st.booleans(),
    end_reason=text,
    error=st.one_of(st.none(), text),
    group=text,
    index=whole,
    seed=st.lists(whole, min_size=1, max_size=4).map(tuple),
    started=number,
    seconds=number,
    info=plain,
)


def sample(index: int = 0) -> Episode:
    segment = Segment()
    segment.extend_given([5, 6])
    segment.extend_sampled([7], [-0.25])
    return Episode(
        task=Task("t/1", "1 + 1?", ("2",)),
        env="ovd/Math-v0",
        agent="a",
        turns=[Turn("2", reward=1.0)],
        segments=[segment],
        index=index,
        end_reason="answered",
    )


@given(st.lists(episodes, max_size=4))
@settings(deadline=None, max_examples=30)
def test_what_is_written_is_what_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("episodes") / "e.jsonl"
    write_episodes(path, rows)
    assert list(read_episodes(path)) == rows
    assert all(json.loads(line)["schema"] == SCHEMA_VERSION for line in path.open())


@given(episodes)
@settings(deadline=None, max_examples=30)
def test_the_json_form_has_every_field(episode):
    saved = set(Episode.__dataclass_fields__) - {"stop_strings", "start"}  # of use while it runs
    assert set(episode.to_dict()) == saved | {"schema", "id"}
    copy = Episode.from_dict(json.loads(json.dumps(episode.to_dict())))
    assert copy == episode
    assert copy.id == f"{episode.agent}:{episode.group}:{episode.index}"


def test_episodes_are_read_as_a_stream(tmp_path):
    path = tmp_path / "e.jsonl"
    write_episodes(path, [sample(i) for i in range(3)])
    with path.open("a") as file:
        file.write("{broken\n")
    stream = read_episodes(path)
    assert [next(stream).index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OVDError, match="row 4"):
        next(stream)


def change(**fields):
    return lambda row: row.update(fields)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change(schema=2), "episode schema 2: this version reads 1"),
        (lambda row: row.pop("schema"), "episode schema None"),
        (lambda row: row.pop("task"), "misses 'task'"),
        (lambda row: row.pop("turns"), "misses 'turns'"),
        (lambda row: row.pop("env"), "env"),
        (lambda row: row["task"].pop("answers"), "misses 'answers'"),
        (change(mood="good"), "mood"),
        (change(task=None), "not an episode"),
        (change(turns=[3]), "not an episode"),
        (change(seed=3), "not an episode"),
        (lambda row: row["segments"][0]["mask"].pop(), "must have one length, got 3, 2, 3"),
        (lambda row: row["segments"][0]["ids"].append(9), "must have one length, got 4, 3, 3"),
        (lambda row: row["segments"][0].pop("logprobs"), "must have one length, got 3, 3, 0"),
    ],
)
@pytest.mark.parametrize("blank", [False, True])
def test_broken_row_17_is_named(tmp_path, spoil, reason, blank):
    rows = [sample(i).to_dict() for i in range(20)]
    spoil(rows[15 if blank else 16])
    lines = [json.dumps(row) for row in rows]
    if blank:
        lines.insert(3, "")  # the row is the line in the file, blank ones counted
    path = tmp_path / "e.jsonl"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(OVDError, match=reason) as caught:
        list(read_episodes(path))
    assert str(caught.value).startswith(f"{path}, row 17: not an episode (")
    assert "\n" not in str(caught.value)


def test_a_line_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "e.jsonl"
    lines = [json.dumps(sample(i).to_dict()) for i in range(20)]
    lines[16] = lines[16][:30]
    path.write_text("\n".join(lines))
    with pytest.raises(OVDError, match=f"^{path}, row 17: not valid JSON"):
        list(read_episodes(path))
    with pytest.raises(OVDError, match="no such file"):
        list(read_episodes(tmp_path / "none.jsonl"))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "e.jsonl"
    write_episodes(path, [sample(1)])

    def rows():
        yield sample(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_episodes(path, rows())
    assert [e.index for e in read_episodes(path)] == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["e.jsonl"]


def test_segments_keep_their_columns_together():
    segment = Segment()
    segment.extend_given([1, 2])
    segment.extend_sampled([3, 4, 5], [-0.1, -0.2, -0.3])
    segment.extend_given([6])
    assert segment == Segment(
        [1, 2, 3, 4, 5, 6], [0, 0, 1, 1, 1, 0], [0.0, 0.0, -0.1, -0.2, -0.3, 0.0]
    )
    with pytest.raises(ValueError, match="2 ids but 1 logprobs"):
        segment.extend_sampled([7, 8], [-0.1])
    assert len(segment.ids) == len(segment.mask) == 6
    with pytest.raises(ValueError, match="must have one length, got 1, 2, 1"):
        Segment([1], [0, 0], [0.0])


def test_what_an_episode_tells():
    episode = sample()
    assert (episode.done, episode.answer, episode.num_sampled_tokens) == (True, "2", 1)
    fresh = Episode(task=episode.task, env="e", agent="a")
    assert (fresh.done, fresh.answer, fresh.num_sampled_tokens) == (False, "", 0)
    # No list is shared between episodes.
    fresh.turns.append(Turn("x"))
    fresh.segments.append(Segment())
    assert Episode(task=episode.task, env="e", agent="a").turns == []
